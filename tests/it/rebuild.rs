//! Read models are made anew while the old ones serve and follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use projector::config::{self, Environment};
use projector::definition;
use projector::engine::{Board, Catalogue, Engine, EngineError};
use projector::metrics::Metrics;
use projector::redact::Redactor;
use rustix::process::Signal;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::pg::settings;
use crate::support::app::{App, Sidecar, shipped};
use crate::support::eventually::eventually;
use crate::support::workload;

const SHIPPED: [&str; 5] = ["run_status", "step_status", "run_log", "dead_runs", "workflow_stats"];

/// Counts the rows of `run_log` until told to end: never fewer than before, and never an error.
async fn count_rows(client: Client, end: Arc<AtomicBool>) -> u32 {
    let (mut looks, mut before) = (0, 0_i64);
    while !end.load(Ordering::SeqCst) {
        let rows = client.query_one("select count(*) from run_log", &[]).await.unwrap().get(0);
        assert!(before <= rows, "a reader saw {rows} rows after {before}");
        before = rows;
        looks += 1;
    }
    looks
}

/// Appends small transactions until told to end, some hundreds a second where the machine can, and no
/// faster than they are followed: on one that has no time left, whatever yields would never be done.
async fn keep_writing(client: Client, seed: u64, end: Arc<AtomicBool>) {
    let mut round = 0;
    let lag = "select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), lsn)), 0) < 1048576
         from projector.checkpoints";
    while !end.load(Ordering::SeqCst) {
        workload::write(&client, seed * 10_000 + round, 40, 1).await;
        round += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
        while !end.load(Ordering::SeqCst)
            && !client.query_one(lag, &[]).await.unwrap().get::<_, bool>(0)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn ask(app: &App, names: &[&str]) {
    for name in names {
        app.value(&format!("select projector.rebuild('{name}')")).await.unwrap();
    }
}

/// Which phase the last rebuild of a projection is in.
async fn phase_of(app: &App, name: &str) -> String {
    let sql = format!(
        "select phase from projector.rebuilds where projection = '{name}' order by id desc limit 1"
    );
    app.value(&sql).await.unwrap_or_else(|| "none".to_owned())
}

/// Waits until the last rebuild of a projection has come to this phase.
async fn comes_to(app: &App, name: &str, wanted: &str) {
    eventually(&format!("`{wanted}` of {name}"), async || {
        let phase = phase_of(app, name).await;
        if phase == wanted { Ok(()) } else { Err(phase) }
    })
    .await;
}

/// What no rebuild leaves behind, whatever became of it.
async fn assert_nothing_left(app: &App) {
    app.becomes(
        "select count(*) from pg_replication_slots where slot_name like 'projector\\_%'",
        "0",
    )
    .await;
    let tables = "select coalesce(string_agg(c.relname, ', '), 'none') from pg_class c
         where c.relnamespace = 'projector'::regnamespace and c.relkind = 'r'
           and c.relname ~ '_[0-9]+$' and not c.relispartition";
    app.becomes(tables, "none").await;
    assert_eq!(
        app.value("select count(*) from projector.rebuilds where finished_at is null")
            .await
            .unwrap(),
        "0"
    );
}

/// What the sidecar says of a projection.
async fn status(sidecar: &Sidecar, name: &str) -> Value {
    let (_, body) = sidecar.get("/api/projections").await;
    let status: Value = serde_json::from_str(&body).unwrap();
    let all = status["projections"].as_array().unwrap();
    all.iter().find(|it| it["name"] == name).cloned().unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_under_load_is_noticed_by_no_reader() {
    let app = App::shipped().await;
    app.cluster.batch(&workload::bulk(200)).await;
    let _sidecar = app.run().await;
    app.caught_up().await;
    let end = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(count_rows(app.client().await, Arc::clone(&end)));
    let mut writing = tokio::task::JoinSet::new();
    for seed in 1..=3 {
        writing.spawn(keep_writing(app.client().await, seed, Arc::clone(&end)));
    }

    for _ in 0..2 {
        ask(&app, &SHIPPED).await;
        comes_to(&app, "run_log", "fold").await;
        let counted = "select sum(events) from projector.checkpoints";
        let before: i64 = app.value(counted).await.unwrap().parse().unwrap();
        for name in SHIPPED {
            comes_to(&app, name, "done").await;
        }
        let after: i64 = app.value(counted).await.unwrap().parse().unwrap();
        assert!(before < after, "nothing was followed meanwhile");
    }
    end.store(true, Ordering::SeqCst);
    writing.join_all().await;
    assert!(10 < reading.await.unwrap());

    app.caught_up().await;
    app.assert_rows_equal_history().await;
    let generations =
        "select string_agg(distinct generation::text, ' ') from projector.projections";
    assert_eq!(app.value(generations).await.unwrap(), "3");
    assert_nothing_left(&app).await;
}

/// Brings a rebuild of `run_status` to `phase` and keeps it there until what is returned is dropped.
async fn stop_at(app: &App, phase: &str) -> Client {
    let client = app.client().await;
    match phase {
        // a slot waits for whatever was begun before it
        "snapshot" => {
            client.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
            ask(app, &["run_status"]).await;
        }
        "fold" => ask(app, &["run_status"]).await,
        // a lane that cannot commit does not come to the anchor. The lock is a transaction that the
        // slot would wait for, so it is taken when the slot is there; a fold may be faster than that
        "catch_up" => loop {
            ask(app, &["run_status"]).await;
            comes_to(app, "run_status", "fold").await;
            let lock =
                "begin; select from projector.checkpoints where projection = 'run_log' for update";
            client.batch_execute(lock).await.unwrap();
            app.cluster.batch(&workload::bulk(1)).await;
            let came_to = eventually("the end of the fold", async || {
                let phase = phase_of(app, "run_status").await;
                if phase == "fold" { Err(phase) } else { Ok(phase) }
            })
            .await;
            if came_to == "catch_up" {
                break;
            }
            client.batch_execute("rollback").await.unwrap();
            comes_to(app, "run_status", "done").await;
        },
        _ => {
            client.batch_execute("begin; select count(*) from run_status").await.unwrap();
            ask(app, &["run_status"]).await;
        }
    }
    comes_to(app, "run_status", phase).await;
    client
}

#[tokio::test]
async fn a_rebuild_that_is_killed_in_any_phase_is_done_by_the_next_process() {
    let app = App::shipped().await;
    app.cluster.batch(&workload::bulk(1_000)).await;
    let mut sidecar = app.run().await;

    for phase in ["snapshot", "fold", "catch_up", "swap"] {
        let obstacle = stop_at(&app, phase).await;
        sidecar.kill9();
        app.cluster.batch(&workload::bulk(2)).await;
        drop(obstacle);
        sidecar = app.run().await;

        comes_to(&app, "run_status", "done").await;
        app.caught_up().await;
        app.assert_rows_equal_history().await;
        assert_nothing_left(&app).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuilds_under_load_and_a_kill_at_any_moment_leave_the_rows_right() {
    let mut app = App::shipped().await;
    let mut rng = fastrand::Rng::with_seed(11);
    app.cluster.batch(&workload::bulk(300)).await;
    let mut sidecar = app.run().await;

    for round in 0..8 {
        let end = Arc::new(AtomicBool::new(false));
        let (client, stop) = (app.client().await, Arc::clone(&end));
        let writing = tokio::spawn(async move {
            let append = workload::bulk(5);
            // a server that is killed ends the writing
            while !stop.load(Ordering::SeqCst) && client.batch_execute(&append).await.is_ok() {}
        });
        // what an earlier round has asked for may be under way still
        let asked = "insert into projector.rebuilds (projection, phase)
             select name, 'requested' from projector.projections on conflict do nothing";
        app.cluster.batch(asked).await;
        let phase = ["fold", "catch_up", "swap"][round % 3];
        let sql =
            format!("select count(*) from projector.rebuilds where phase in ('{phase}', 'done')");
        let client = app.client().await;
        eventually("some progress", async || {
            let row = client.query_one(&sql, &[]).await.unwrap();
            if 0 < row.get::<_, i64>(0) { Ok(()) } else { Err("none") }
        })
        .await;
        for _ in 0..rng.u32(0..200) {
            client.query_one("select 1", &[]).await.unwrap();
        }
        if round == 5 {
            app.cluster.kill9();
            app.cluster.restart().await;
        } else {
            sidecar.kill9();
            sidecar = app.spawn();
        }
        end.store(true, Ordering::SeqCst);
        writing.await.unwrap();
    }
    app.becomes("select count(*) from projector.rebuilds where finished_at is null", "0").await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
    assert_nothing_left(&app).await;
}

#[tokio::test]
async fn a_long_reader_is_waited_for_and_a_rebuild_can_be_canceled() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 71, 2, 50).await;
    app.caught_up().await;
    let reader = app.client().await;
    reader.batch_execute("begin; select count(*) from run_status").await.unwrap();

    ask(&app, &["run_status"]).await;
    let waiting = "select coalesce(max(waiting_for), '') like '%run_status%held by%'
         from projector.rebuilds where finished_at is null";
    app.becomes(waiting, "t").await;
    eventually("the reason in the status", async || {
        let it = status(&sidecar, "run_status").await;
        let waits = it["rebuild"]["waiting_for"].as_str().is_some_and(|it| it.contains("held by"));
        if waits { Ok(()) } else { Err(it) }
    })
    .await;
    // the others, and the generation that serves, follow meanwhile
    workload::load(&app, 72, 2, 50).await;
    app.caught_up().await;

    app.value("select projector.cancel_rebuild('run_status')").await.unwrap();
    comes_to(&app, "run_status", "canceled").await;
    assert_nothing_left(&app).await;
    app.becomes("select state from projector.projections where name = 'run_status'", "live").await;

    ask(&app, &["run_status", "run_log"]).await;
    comes_to(&app, "run_log", "swap").await;
    reader.batch_execute("commit").await.unwrap();
    comes_to(&app, "run_status", "done").await;
    comes_to(&app, "run_log", "done").await;
    workload::load(&app, 73, 2, 50).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
    assert_nothing_left(&app).await;
}

#[tokio::test]
async fn what_hangs_on_a_read_model_survives_its_rebuild() {
    let app = App::shipped().await;
    let _sidecar = app.run().await;
    workload::load(&app, 74, 2, 50).await;
    app.caught_up().await;
    app.cluster
        .batch(
            "create role analyst;
             grant select on run_status to analyst;
             create policy analysts on run_status for select to analyst using (status = 'failed');
             create view failed_runs as select run_id, error from run_status where status = 'failed';
             create index by_hour on run_status (date_trunc('hour', started_at at time zone 'UTC')) where error is null;
             comment on table run_status is 'where each run stands';
             comment on column run_status.error is 'what went wrong';
             create publication mirror for table run_status",
        )
        .await;
    let described = "select json_build_array('run_status'::regclass::oid::text,
           (select relacl::text from pg_class where oid = 'run_status'::regclass),
           (select json_agg(p order by policyname) from pg_policies p where tablename = 'run_status'),
           pg_get_viewdef('failed_runs'::regclass),
           (select json_agg(pg_get_indexdef(indexrelid) order by indexrelid::regclass::text) from pg_index
            where indrelid = 'run_status'::regclass and indisvalid),
           obj_description('run_status'::regclass), col_description('run_status'::regclass,
             (select attnum from pg_attribute where attrelid = 'run_status'::regclass and attname = 'error')),
           (select json_agg(prpubid::text) from pg_publication_rel where prrelid = 'run_status'::regclass))::text";
    let before = app.value(described).await.unwrap();

    ask(&app, &["run_status"]).await;
    comes_to(&app, "run_status", "done").await;

    assert_eq!(app.value(described).await.unwrap(), before);
    let on_partition =
        "select count(*) from pg_inherits i join pg_index x on x.indexrelid = i.inhrelid
         where i.inhparent = 'by_hour'::regclass and x.indisvalid";
    assert_eq!(app.value(on_partition).await.unwrap(), "1");
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_paused_projection_rests_until_it_is_resumed() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 75, 2, 50).await;
    app.caught_up().await;

    app.value("select projector.pause('dead_runs')").await.unwrap();
    let state = "select state from projector.projections where name = 'dead_runs'";
    app.becomes(state, "paused").await;
    let checkpoint = "select lsn from projector.checkpoints where projection = 'dead_runs'";
    let rested = app.value(checkpoint).await;
    app.cluster.batch(&workload::bulk(20)).await;
    app.caught_up().await;
    assert_eq!(app.value(checkpoint).await, rested);
    assert_eq!(status(&sidecar, "dead_runs").await["state"], "paused");
    assert_eq!(sidecar.get("/readyz").await.0, 200);
    sidecar.kill9();
    let _sidecar = app.run().await;
    app.cluster.batch(&workload::bulk(20)).await;
    app.caught_up().await;
    assert_eq!(app.value(checkpoint).await, rested);

    app.value("select projector.resume('dead_runs')").await.unwrap();
    app.becomes(state, "live").await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;

    // and where nothing has happened meanwhile, it goes on as if it had not rested
    app.value("select projector.pause('dead_runs')").await.unwrap();
    app.becomes(state, "paused").await;
    app.value("select projector.resume('dead_runs')").await.unwrap();
    app.becomes(state, "live").await;
    app.cluster.batch(&workload::bulk(20)).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_snapshot_from_before_a_rebuild_never_finds_a_table_empty() {
    let app = App::shipped().await;
    let _sidecar = app.run().await;
    workload::load(&app, 84, 2, 50).await;
    app.caught_up().await;
    let reader = app.client().await;
    let begin = "begin isolation level repeatable read; select count(*) from events";
    reader.batch_execute(begin).await.unwrap();

    ask(&app, &["run_log"]).await;
    let waiting = "select coalesce(max(waiting_for), '') like 'transactions that began before%'
         from projector.rebuilds where finished_at is null";
    app.becomes(waiting, "t").await;

    let both = "select (select count(*) from run_log) = (select count(*) from events)";
    assert!(reader.query_one(both, &[]).await.unwrap().get::<_, bool>(0));
    reader.batch_execute("commit").await.unwrap();
    comes_to(&app, "run_log", "done").await;
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_rebuild_works_without_a_sidecar_and_not_beside_one() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 85, 2, 50).await;
    app.caught_up().await;
    let config = config::load(None, &Environment::default(), &[]).unwrap().config;
    let engine = Engine {
        settings: settings(app.cluster.url()),
        definitions: Catalogue::new(definition::load(shipped()).unwrap()),
        redactor: Arc::new(Redactor::default()),
        realtime: None,
        metrics: Arc::new(Metrics::new()),
        status: Arc::new(Board::new(config.source.slot.as_str())),
        config: Arc::new(config),
    };
    let names = ["run_status", "dead_runs", "nothing"].map(str::to_owned);
    let cancel = CancellationToken::new();
    let refused = engine.rebuild_alone(&names, &cancel).await;
    assert!(matches!(refused, Err(EngineError::Standby(_))), "{refused:?}");
    assert_eq!(sidecar.terminate().await.code(), Some(0));
    workload::load(&app, 86, 2, 50).await;

    engine.rebuild_alone(&names, &cancel).await.unwrap();

    let ended = "select string_agg(projection || ' ' || phase, ', ' order by projection)
         from projector.rebuilds where reason = 'request'";
    let wanted = "dead_runs done, nothing failed, run_status done";
    assert_eq!(app.value(ended).await.unwrap(), wanted);
    let complete =
        "select (select events from projector.checkpoints where projection = 'run_status')
         = (select count(*) from events)";
    assert_eq!(app.value(complete).await.unwrap(), "t");
    // the sidecar takes it up: the others catch up, and nothing is counted twice
    let _sidecar = app.run().await;
    workload::load(&app, 87, 2, 50).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
    assert_nothing_left(&app).await;
}

/// Counts events by type.
const COUNTS: &str = r#"table = "counts"
key   = { type = "type" }

[columns]
type = "text"
seen = "bigint not null default 0"

[[on]]
event = "*"
add   = { seen = "`1`" }
"#;

const RIGHT: &str = "select (select sum(seen) from counts) = (select count(*) from events)";

async fn rebuilds(app: &App) -> String {
    app.value("select count(*) from projector.rebuilds").await.unwrap()
}

#[tokio::test]
async fn definitions_change_while_projector_runs() {
    let app = App::shipped().await;
    app.define("counts", COUNTS);
    let sidecar = app.run().await;
    workload::load(&app, 76, 2, 50).await;
    app.caught_up().await;
    let reload = async || {
        let seen = sidecar.lines();
        sidecar.signal(Signal::HUP);
        sidecar.says_more("reading the definitions again", seen).await;
        seen
    };

    // a comment is no change
    let before = rebuilds(&app).await;
    app.define("counts", &format!("# how many\n{COUNTS}"));
    reload().await;
    let text = "select definition_text like '# how many%' from projector.projections where name = 'counts'";
    app.becomes(text, "t").await;
    assert_eq!(rebuilds(&app).await, before);

    // a broken edit is refused, and what was there goes on
    app.define("counts", &COUNTS.replace("add ", "incr"));
    let seen = reload().await;
    let refused = sidecar.says_more("definitions are not reloaded", seen).await;
    assert!(refused.contains("counts.toml:10"), "{refused}");
    workload::load(&app, 77, 2, 50).await;
    app.caught_up().await;
    app.becomes(RIGHT, "t").await;

    // a changed one is built beside: the old rows follow until then
    let reader = app.client().await;
    reader.batch_execute("begin; select count(*) from counts").await.unwrap();
    app.define(
        "counts",
        &COUNTS
            .replace("seen = \"bigint", "last = \"timestamptz\"\nseen = \"bigint")
            .replace("add   = {", "max   = { last = \"recorded_at\" }\nadd   = {"),
    );
    reload().await;
    comes_to(&app, "counts", "swap").await;
    workload::load(&app, 78, 2, 50).await;
    app.caught_up().await;
    app.becomes(RIGHT, "t").await;
    reader.batch_execute("commit").await.unwrap();
    comes_to(&app, "counts", "done").await;
    app.becomes("select bool_and(last is not null) from counts", "t").await;

    // one that history does not fit is not built, and the rows go on by the one before
    app.define(
        "counts",
        &format!(
            "on_error = \"pause\"\n{}",
            COUNTS.replace("bigint not null", "smallint not null check (seen < 10)")
        ),
    );
    reload().await;
    comes_to(&app, "counts", "failed").await;
    eventually("the reason in the status", async || {
        let it = status(&sidecar, "counts").await;
        if it["state"] == "live" && it["error"].is_string() { Ok(()) } else { Err(it) }
    })
    .await;
    workload::load(&app, 79, 2, 50).await;
    app.caught_up().await;
    app.becomes(RIGHT, "t").await;

    // one in a lane of its own, and one that is gone
    app.define(
        "aside",
        &COUNTS.replace("counts", "aside").replace("[columns]", "lane = \"aside\"\n[columns]"),
    );
    app.undefine("counts");
    reload().await;
    app.becomes("select state from projector.projections where name = 'counts'", "detached").await;
    app.becomes("select state from projector.projections where name = 'aside'", "live").await;
    workload::load(&app, 80, 2, 50).await;
    app.becomes("select (select sum(seen) from aside) = (select count(*) from events)", "t").await;
    app.assert_rows_equal_history().await;
    assert_nothing_left(&app).await;
}

#[tokio::test]
async fn a_definition_that_goes_while_it_is_built_comes_back_and_follows() {
    let app = App::bare(&[]).await;
    app.define("counts", COUNTS);
    let sidecar = app.run().await;
    workload::load(&app, 85, 2, 50).await;
    app.caught_up().await;
    let state = "select state from projector.projections where name = 'counts'";
    // a reader keeps the rebuild from its end
    let reader = app.client().await;
    reader.batch_execute("begin; select count(*) from counts").await.unwrap();
    ask(&app, &["counts"]).await;
    comes_to(&app, "counts", "swap").await;

    app.undefine("counts");
    sidecar.signal(Signal::HUP);
    sidecar.says("build given up").await;
    app.becomes("select count(*) from projector.rebuilds where finished_at is null", "0").await;
    app.becomes(state, "detached").await;
    reader.batch_execute("commit").await.unwrap();
    workload::load(&app, 86, 2, 50).await;

    app.define("counts", COUNTS);
    sidecar.signal(Signal::HUP);
    app.becomes(state, "live").await;
    app.caught_up().await;
    app.becomes(RIGHT, "t").await;
    assert!(!sidecar.log().contains("projection failed"), "{}", sidecar.log());
}

#[tokio::test]
async fn a_definition_that_changed_while_nobody_ran_is_built_while_the_old_rows_follow() {
    let app = App::bare(&[]).await;
    app.define("counts", COUNTS);
    let sidecar = app.run().await;
    workload::load(&app, 81, 2, 50).await;
    app.caught_up().await;
    sidecar.terminate().await;
    workload::load(&app, 82, 2, 50).await;
    let reader = app.client().await;
    reader.batch_execute("begin; select count(*) from counts").await.unwrap();

    app.define("counts", &COUNTS.replace("`1`", "`2`"));
    let sidecar = app.spawn();
    comes_to(&app, "counts", "swap").await;
    app.becomes(RIGHT, "t").await;
    sidecar.kill9();
    let sidecar = app.spawn();
    comes_to(&app, "counts", "swap").await;
    workload::load(&app, 83, 2, 50).await;
    app.becomes(RIGHT, "t").await;
    reader.batch_execute("commit").await.unwrap();

    sidecar.says("\"ready\"").await;
    let doubled = "select (select sum(seen) from counts) = 2 * (select count(*) from events)";
    app.becomes(doubled, "t").await;
    assert_nothing_left(&app).await;
}

#[tokio::test]
async fn a_request_that_nothing_can_be_made_of_fails_with_its_reason() {
    let app = App::with(&[("max_replication_slots", "1")]).await;
    let sidecar = app.spawn();
    // there is a slot for the stream and none for a build: what is needed waits, and says for what
    eventually("what is waited for", async || {
        let it = status(&sidecar, "run_log").await;
        let waits = it["rebuild"]["waiting_for"].as_str().is_some_and(|it| it.contains("slot"));
        if waits { Ok(()) } else { Err(it) }
    })
    .await;
    app.cluster
        .batch("insert into projector.rebuilds (projection, phase) values ('nothing', 'requested')")
        .await;
    comes_to(&app, "nothing", "failed").await;
    let error =
        app.value("select error from projector.rebuilds where projection = 'nothing'").await;
    assert!(error.unwrap().contains("no definition"));
}
