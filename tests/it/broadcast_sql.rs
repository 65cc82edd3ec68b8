//! Broadcasts into `realtime.messages`, as a Supabase database has it.

use projector::lsn::Lsn;
use projector::realtime::sink::Sink;
use projector::realtime::{Message, Target};

use crate::pg::settings;
use crate::support::app::{App, Sidecar};
use crate::support::proxy::Proxy;
use crate::support::workload;

/// The part of Realtime's own schema that senders meet: a partitioned table, row-level security, the
/// grants.
const SCHEMA: &str = "
    create schema realtime;
    create table realtime.messages (
      topic text not null, extension text not null, payload jsonb, event text,
      private boolean default false, updated_at timestamp not null default now(),
      inserted_at timestamp not null default now(), id uuid not null default gen_random_uuid(),
      binary_payload bytea, primary key (id, inserted_at),
      check (payload is null or binary_payload is null) not valid
    ) partition by range (inserted_at);
    alter table realtime.messages enable row level security;
    create index messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
      where extension = 'broadcast' and private is true;";

/// A partition for yesterday to the day after tomorrow, as Realtime makes them by the day.
const PARTITIONS: &str = "
    do $$ begin
      execute format('create table realtime.messages_today partition of realtime.messages
        for values from (%L) to (%L)', (now() at time zone 'utc')::date - 1, (now() at time zone 'utc')::date + 3);
    end $$";

fn telling(app: &App) -> Sidecar {
    let mut command = app.command("run");
    command
        .env("PROJECTOR_REALTIME_MODE", "sql")
        .env("PROJECTOR_REALTIME_RATE", "10000")
        .env("PROJECTOR_REALTIME_WINDOW", "10ms");
    Sidecar::spawn(command)
}

const LINES: &str = "select coalesce(sum(jsonb_array_length(payload -> 'lines')), 0)::text
     from realtime.messages where event = 'log'";

#[tokio::test]
async fn messages_commit_with_their_checkpoint_and_a_kill_loses_none() {
    let app = App::shipped().await;
    // a session would write local times here
    app.cluster.batch("alter database postgres set timezone = 'America/New_York'").await;
    app.cluster.batch(SCHEMA).await;
    app.cluster.batch(PARTITIONS).await;
    let mut sidecar = telling(&app);
    sidecar.says("\"ready\"").await;

    for round in 0..4 {
        workload::load(&app, round, 2, 60).await;
        sidecar.kill9();
        sidecar = telling(&app);
        sidecar.says("\"ready\"").await;
    }
    app.caught_up().await;
    // each version of each run is in some line
    let missing = "select count(*)::text from events e where not exists (
         select from realtime.messages m, jsonb_array_elements(m.payload -> 'lines') l
         where m.event = 'log' and m.topic = 'run:' || e.run_id
           and (l ->> 'version')::int = e.version)";
    app.becomes(missing, "0").await;

    // rows stand in the order of the lines, by their own moments, in UTC
    let unordered = "select count(*)::text from (
           select (payload ->> 'prev')::int as prev, topic,
             max((payload ->> 'head')::int) over (partition by topic order by inserted_at
               rows between unbounded preceding and 1 preceding) as last
           from realtime.messages where event = 'log') m where coalesce(last, 0) < prev";
    assert_eq!(app.value(unordered).await.as_deref(), Some("0"));
    let odd = "select count(*)::text from realtime.messages
         where extension <> 'broadcast' or not private or payload is null
           or abs(extract(epoch from inserted_at - now() at time zone 'utc')) > 3600";
    assert_eq!(app.value(odd).await.as_deref(), Some("0"));
    // nobody takes it for a projection, and no projection was built again for it
    let kept = "select count(*)::text from projector.checkpoints where projection = '(broadcasts)'";
    assert_eq!(app.value(kept).await.as_deref(), Some("1"));
    let builds = "select count(*)::text from projector.rebuilds where reason <> 'new'";
    assert_eq!(app.value(builds).await.as_deref(), Some("0"));
    app.assert_rows_equal_history().await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn what_is_missing_in_the_database_is_said_and_waited_for() {
    let app = App::shipped().await;
    let sidecar = telling(&app);
    sidecar.says("\"ready\"").await;

    workload::load(&app, 1, 1, 10).await;
    let told = sidecar.says("broadcasts are not taken").await;
    assert!(told.contains("no table realtime.messages"), "{told}");
    app.caught_up().await;
    app.cluster.batch(SCHEMA).await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));

    let sidecar = telling(&app);
    let told = sidecar.says("broadcasts are not taken").await;
    assert!(told.contains("no partition for today") && told.contains("RUN_JANITOR"), "{told}");
    app.cluster.batch(PARTITIONS).await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));

    let events = app.value("select count(*)::text from events").await.unwrap();
    let sidecar = telling(&app);
    app.becomes(LINES, &events).await;
    assert!(!sidecar.log().contains("not taken"));
}

#[tokio::test]
async fn a_table_that_somebody_locks_is_said_and_waited_for() {
    let app = App::shipped().await;
    app.cluster.batch(SCHEMA).await;
    app.cluster.batch(PARTITIONS).await;
    let sidecar = telling(&app);
    sidecar.says("\"ready\"").await;
    let other = app.cluster.client().await;
    other.batch_execute("begin; lock table realtime.messages").await.unwrap();

    workload::load(&app, 1, 1, 10).await;
    let told = sidecar.says("broadcasts wait").await;
    assert!(told.contains("lock timeout"), "{told}");
    other.batch_execute("rollback").await.unwrap();

    let events = app.value("select count(*)::text from events").await.unwrap();
    app.becomes(LINES, &events).await;
}

#[tokio::test]
async fn a_statement_that_hangs_is_given_up_said_and_tried_again() {
    let app = App::shipped().await;
    app.cluster.batch(SCHEMA).await;
    app.cluster.batch(PARTITIONS).await;
    app.cluster
        .batch(
            "create function slow() returns trigger language plpgsql as
               $$ begin perform pg_sleep(3600); return new; end $$;
             create trigger slow before insert on realtime.messages for each row
               execute function slow()",
        )
        .await;
    let sidecar = telling(&app);
    sidecar.says("\"ready\"").await;

    workload::load(&app, 1, 1, 10).await;
    let told = sidecar.says("broadcasts wait").await;
    assert!(told.contains("statement timeout"), "{told}");
    app.caught_up().await;
    app.cluster.batch("drop trigger slow on realtime.messages").await;

    let events = app.value("select count(*)::text from events").await.unwrap();
    app.becomes(LINES, &events).await;
}

#[tokio::test]
async fn a_network_that_is_dead_is_noticed_and_gone_around() {
    let app = App::shipped().await;
    app.cluster.batch(SCHEMA).await;
    app.cluster.batch(PARTITIONS).await;
    let proxy = Proxy::start(app.cluster.port()).await;
    let (direct, through) = (app.cluster.port().to_string(), proxy.port().to_string());
    let settings = settings(&app.cluster.url().replace(&direct, &through));
    let message = Message {
        topic: "run:1".into(),
        event: "log".into(),
        private: true,
        id: uuid::Uuid::new_v4(),
        payload: "{\"lines\":[1]}".into(),
    };
    let mut sink = Sink::new(&Target::Sql, &settings).unwrap();
    assert_eq!(sink.deliver(std::slice::from_ref(&message), Lsn(1)).await.done, 1);

    proxy.stall();
    let silent = sink.deliver(std::slice::from_ref(&message), Lsn(2)).await;
    let again = sink.deliver(&[message], Lsn(3)).await;

    assert!(silent.failure.unwrap().to_string().contains("does not answer in time"));
    assert_eq!((silent.done, silent.is_kept), (0, false));
    assert_eq!((again.done, again.is_kept), (1, true));
}

/// A trigger that refuses what a condition says.
fn refusing(condition: &str) -> String {
    format!(
        "create function refuse() returns trigger language plpgsql as
           $$ begin raise exception 'not this one'; end $$;
         create trigger refuse before insert on realtime.messages for each row
           when ({condition}) execute function refuse()"
    )
}

#[tokio::test]
async fn a_last_message_that_is_refused_is_kept_as_done() {
    let app = App::shipped().await;
    app.cluster.batch(SCHEMA).await;
    app.cluster.batch(PARTITIONS).await;
    app.cluster.batch(&refusing("new.event = 'log'")).await;
    let sidecar = telling(&app);
    sidecar.says("\"ready\"").await;

    let before = app.value("select pg_current_wal_flush_lsn()").await.unwrap();
    app.cluster
        .batch(
            "insert into events (project_id, run_id, version, type, payload)
             values (gen_random_uuid(), gen_random_uuid(), 1, 'log', '{}')",
        )
        .await;
    let told = sidecar.says("a broadcast is refused and left out").await;

    assert!(told.contains("not this one"), "{told}");
    let kept = format!(
        "select ('{before}'::pg_lsn < lsn)::text from projector.checkpoints
         where projection = '(broadcasts)'"
    );
    app.becomes(&kept, "true").await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));
    let sidecar = telling(&app);
    sidecar.says("\"ready\"").await;
    app.cluster.batch("drop trigger refuse on realtime.messages").await;
    workload::load(&app, 1, 1, 3).await;
    let rest = app.value("select (count(*) - 1)::text from events").await.unwrap();
    app.becomes(LINES, &rest).await;
    assert!(!sidecar.log().contains("refused and left out"));
}

#[tokio::test]
async fn a_table_that_refuses_every_row_is_an_operators_error() {
    let app = App::shipped().await;
    app.cluster.batch(SCHEMA).await;
    app.cluster.batch(PARTITIONS).await;
    let sidecar = telling(&app);
    sidecar.says("\"ready\"").await;
    workload::load(&app, 1, 1, 3).await;
    let events = app.value("select count(*)::text from events").await.unwrap();
    app.becomes(LINES, &events).await;
    app.cluster.batch(&refusing("true")).await;

    workload::load(&app, 2, 1, 10).await;
    let told = sidecar.says("broadcasts are not taken").await;

    assert!(told.contains("not this one, whatever it is sent"), "{told}");
    app.cluster.batch("drop trigger refuse on realtime.messages").await;
    let events = app.value("select count(*)::text from events").await.unwrap();
    app.becomes(LINES, &events).await;
    assert!(!sidecar.log().contains("refused and left out"));
}
