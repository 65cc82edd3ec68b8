//! What the database itself promises about events: order, idempotency, and that nobody changes them.

use futures_util::future::join_all;
use projector::ident::Ident;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::support::cluster::Cluster;

pub(crate) const PROJECT: Uuid = Uuid::from_u128(0xa);

pub(crate) async fn migrated() -> (Cluster, Client) {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    projector::migrate::apply(&mut client, &Ident::new("public").unwrap()).await.unwrap();
    (cluster, client)
}

/// SQLSTATE and message of a failure.
pub(crate) type Refusal = (String, String);

fn refusal(error: &tokio_postgres::Error) -> Refusal {
    let error = error.as_db_error().unwrap();
    (error.code().code().to_owned(), error.message().to_owned())
}

pub(crate) async fn append_to(
    client: &Client,
    project: Uuid,
    run: Uuid,
    expected: Option<i32>,
    events: &str,
) -> Result<Vec<(i32, i64, Uuid)>, Refusal> {
    let sql = "select version, position, event_id from append_events($1, $2, $3, $4::text::jsonb)";
    match client.query(sql, &[&project, &run, &expected, &events]).await {
        Ok(rows) => Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()),
        Err(error) => Err(refusal(&error)),
    }
}

pub(crate) async fn append(
    client: &Client,
    run: Uuid,
    expected: Option<i32>,
    events: &str,
) -> Result<Vec<(i32, i64, Uuid)>, Refusal> {
    append_to(client, PROJECT, run, expected, events).await
}

async fn versions(client: &Client, run: Uuid) -> Vec<i32> {
    let rows = client
        .query("select version from events where run_id = $1 order by position", &[&run])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

pub(crate) async fn refused(client: &Client, sql: &str) -> Refusal {
    match client.batch_execute(sql).await {
        Ok(()) => panic!("was not refused: {sql}"),
        Err(error) => refusal(&error),
    }
}

#[tokio::test]
async fn events_get_the_next_versions_in_the_order_given() {
    let (_cluster, client) = migrated().await;
    let run = Uuid::now_v7();

    let first =
        append(&client, run, Some(0), r#"[{"type":"a"},{"type":"b"},{"type":"c"}]"#).await.unwrap();
    let then = append(
        &client,
        run,
        Some(3),
        r#"[{"type":"d","payload":{"x":1},"metadata":{"by":"w"},"recorded_at":"2026-01-01T12:00:00+02:00"}]"#,
    )
    .await
    .unwrap();

    assert_eq!(first.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(then[0].0, 4);
    assert_eq!(versions(&client, run).await, [1, 2, 3, 4]);
    let row = client
        .query_one(
            "select type, payload::text, metadata::text, project_id, recorded_at = '2026-01-01 10:00Z'
             from events where event_id = $1",
            &[&then[0].2],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "d");
    assert_eq!(row.get::<_, &str>(1), r#"{"x": 1}"#);
    assert_eq!(row.get::<_, &str>(2), r#"{"by": "w"}"#);
    assert_eq!(row.get::<_, Uuid>(3), PROJECT);
    assert!(row.get::<_, bool>(4));
}

#[tokio::test]
async fn an_outdated_version_is_a_conflict_that_names_both() {
    let (_cluster, client) = migrated().await;
    let run = Uuid::new_v4();
    append(&client, run, Some(0), r#"[{"type":"a"},{"type":"b"}]"#).await.unwrap();

    for outdated in [0, 1, 3] {
        let (code, message) =
            append(&client, run, Some(outdated), r#"[{"type":"x"}]"#).await.unwrap_err();

        assert_eq!(code, SqlState::T_R_SERIALIZATION_FAILURE.code());
        assert!(message.contains(&format!("is at version 2, expected {outdated}")), "{message}");
    }
    let (code, _) =
        append(&client, Uuid::new_v4(), Some(1), r#"[{"type":"x"}]"#).await.unwrap_err();
    assert_eq!(code, "40001");
    assert_eq!(versions(&client, run).await, [1, 2]);
}

#[tokio::test]
async fn appending_the_same_event_ids_again_gives_the_first_result() {
    let (_cluster, client) = migrated().await;
    let run = Uuid::now_v7();
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let events =
        format!(r#"[{{"type":"a","event_id":"{one}"}},{{"type":"b","event_id":"{two}"}}]"#);
    let mixed = format!(r#"[{{"type":"a"}},{{"type":"b","event_id":"{}"}}]"#, Uuid::new_v4());

    let first = append(&client, run, Some(0), &events).await.unwrap();
    append(&client, run, None, r#"[{"type":"c"}]"#).await.unwrap();
    let with_mixed = append(&client, run, Some(3), &mixed).await.unwrap();

    assert_eq!(append(&client, run, Some(0), &events).await.unwrap(), first);
    assert_eq!(append(&client, run, None, &events).await.unwrap(), first);
    assert_eq!(append(&client, run, Some(99), &events).await.unwrap(), first);
    assert_eq!(append(&client, run, Some(3), &mixed).await.unwrap(), with_mixed);
    assert_eq!(versions(&client, run).await, [1, 2, 3, 4, 5]);
    // The same id in another run is another event.
    append(&client, Uuid::now_v7(), Some(0), &events).await.unwrap();
}

#[tokio::test]
async fn event_ids_of_which_only_some_are_known_are_refused() {
    let (_cluster, client) = migrated().await;
    let run = Uuid::now_v7();
    let known = Uuid::new_v4();
    append(&client, run, Some(0), &format!(r#"[{{"type":"a","event_id":"{known}"}}]"#))
        .await
        .unwrap();

    let events = format!(
        r#"[{{"type":"b","event_id":"{}"}},{{"type":"a","event_id":"{known}"}}]"#,
        Uuid::new_v4()
    );
    let (code, message) = append(&client, run, Some(1), &events).await.unwrap_err();

    assert_eq!(code, "22023");
    assert!(message.contains("events[1].event_id"), "{message}");
    assert_eq!(versions(&client, run).await, [1]);
}

#[tokio::test]
async fn of_racers_with_the_same_expected_version_exactly_one_wins() {
    let (cluster, client) = migrated().await;
    let racers = join_all((0..8).map(|_| cluster.client())).await;

    for round in 0..10 {
        let run = if round % 2 == 0 { Uuid::now_v7() } else { Uuid::new_v4() };
        let results = join_all(
            racers.iter().map(|it| append(it, run, Some(0), r#"[{"type":"a"},{"type":"b"}]"#)),
        )
        .await;

        let won = results.iter().filter(|it| it.is_ok()).count();
        assert_eq!(won, 1, "{results:?}");
        assert!(results.iter().filter_map(|it| it.as_ref().err()).all(|it| it.0 == "40001"));
        assert_eq!(versions(&client, run).await, [1, 2]);
    }
}

#[tokio::test]
async fn of_racers_that_expect_nothing_all_win_and_no_version_is_left_out() {
    let (cluster, client) = migrated().await;
    let racers = join_all((0..8).map(|_| cluster.client())).await;
    let run = Uuid::now_v7();

    let appends = racers.iter().map(|racer| async move {
        for _ in 0..10 {
            append(racer, run, None, r#"[{"type":"a"},{"type":"b"},{"type":"c"}]"#).await.unwrap();
        }
    });
    join_all(appends).await;

    assert_eq!(versions(&client, run).await, (1..=240).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_same_append_twice_at_once_happens_once() {
    let (cluster, client) = migrated().await;
    let racers = join_all((0..4).map(|_| cluster.client())).await;

    for expected in [Some(0), None] {
        let run = Uuid::now_v7();
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        let events =
            format!(r#"[{{"type":"a","event_id":"{one}"}},{{"type":"b","event_id":"{two}"}}]"#);
        let results = join_all(racers.iter().map(|it| append(it, run, expected, &events))).await;

        assert!(results.windows(2).all(|it| it[0] == it[1] && it[0].is_ok()), "{results:?}");
        assert_eq!(versions(&client, run).await, [1, 2]);
    }
}

#[tokio::test]
async fn a_waiting_append_goes_on_when_the_one_before_it_is_rolled_back() {
    let (cluster, mut first) = migrated().await;
    let second = cluster.client().await;
    let run = Uuid::now_v7();
    let transaction = first.transaction().await.unwrap();
    transaction
        .execute("select append_events($1, $2, 0, '[{\"type\": \"a\"}]')", &[&PROJECT, &run])
        .await
        .unwrap();

    let waiting = append(&second, run, Some(0), r#"[{"type":"b"}]"#);
    let (appended, rolled_back) = futures_util::future::join(waiting, transaction.rollback()).await;

    rolled_back.unwrap();
    assert_eq!(appended.unwrap()[0].0, 1);
}

#[tokio::test]
async fn bad_input_is_refused_by_element_and_field() {
    let (_cluster, client) = migrated().await;
    let many = format!("[{}]", vec![r#"{"type":"a"}"#; 1001].join(","));
    let big = |field: &str| {
        format!(r#"[{{"type":"a"}},{{"type":"a","{field}":{{"x":"{}"}}}}]"#, "x".repeat(1 << 20))
    };
    let id = Uuid::new_v4();
    let twice = format!(
        r#"[{{"type":"a","event_id":"{id}"}},{{"type":"b"}},{{"type":"c","event_id":"{}"}}]"#,
        id.to_string().to_uppercase()
    );
    let cases = [
        ("{}", "events must be a JSON array"),
        ("null", "events must be a JSON array"),
        (many.as_str(), "at most 1000 elements, not 1001"),
        (r#"[{"type":"a"},7]"#, "events[1] must be an object"),
        (r#"["type"]"#, "events[0] must be an object"),
        (r#"[{}]"#, "events[0].type is missing"),
        (r#"[{"type":""}]"#, "events[0].type must not be empty"),
        (r#"[{"type":1}]"#, "events[0].type must be a string"),
        (r#"[{"type":null}]"#, "events[0].type must be a string"),
        (r#"[{"type":"a","payload":[]}]"#, "events[0].payload must be an object"),
        (r#"[{"type":"a","payload":"x"}]"#, "events[0].payload must be an object"),
        (r#"[{"type":"a","metadata":null}]"#, "events[0].metadata must be an object"),
        (r#"[{"type":"a","event_id":"x"}]"#, "events[0].event_id must be a UUID"),
        (r#"[{"type":"a","event_id":5}]"#, "events[0].event_id must be a UUID"),
        (twice.as_str(), "events[2].event_id is the same as that of events[0]"),
        (r#"[{"type":"a","recorded_at":"now"}]"#, "events[0].recorded_at must be a timestamp"),
        (r#"[{"type":"a","recorded_at":1}]"#, "events[0].recorded_at must be a timestamp"),
        (
            r#"[{"type":"a","recorded_at":"2026-02-28T00:00:00Z"},{"type":"a","recorded_at":"2026-02-30T00:00:00Z"}]"#,
            "events[1].recorded_at is not a time: 2026-02-30T00:00:00Z",
        ),
        (r#"[{"type":"a","data":{}}]"#, "events[0].data is not a field"),
        (&big("payload"), "events[1].payload must be at most 1 MiB"),
        (&big("metadata"), "events[1].metadata must be at most 1 MiB"),
    ];

    for (events, expected) in cases {
        let (code, message) = append(&client, Uuid::now_v7(), None, events).await.unwrap_err();
        assert_eq!(code, "22023", "{message}");
        assert!(message.contains(expected), "{expected}: {message}");
    }

    let missing = [
        ("null, gen_random_uuid(), 0, '[{\"type\": \"a\"}]'", "project_id must not be null"),
        ("gen_random_uuid(), null, 0, '[{\"type\": \"a\"}]'", "run_id must not be null"),
        (
            "gen_random_uuid(), gen_random_uuid(), -1, '[{\"type\": \"a\"}]'",
            "expected_version must be",
        ),
        ("gen_random_uuid(), gen_random_uuid(), 0, null", "events must be a JSON array"),
    ];
    for (arguments, expected) in missing {
        let (code, message) = refused(&client, &format!("select append_events({arguments})")).await;
        assert_eq!(code, "22023", "{message}");
        assert!(message.contains(expected), "{message}");
    }
    let nul = refused(
        &client,
        r#"select append_events(gen_random_uuid(), gen_random_uuid(), 0, '[{"type": "\u0000"}]')"#,
    );
    assert_eq!(nul.await.0, "22P05");
    let rows = client.query("select from events", &[]).await.unwrap();
    assert!(rows.is_empty());
}

#[tokio::test]
async fn an_append_of_nothing_does_nothing() {
    let (_cluster, client) = migrated().await;

    assert_eq!(append(&client, Uuid::now_v7(), Some(0), "[]").await.unwrap(), []);
}

#[tokio::test]
async fn a_payload_of_one_mebibyte_and_a_thousand_events_are_taken() {
    let (_cluster, client) = migrated().await;
    // jsonb writes a space after the colon: 9 bytes around the string.
    let full = format!(
        r#"[{{"type":"a","payload":{{"x":"{}"}}}},{{"type":"b"}}]"#,
        "x".repeat((1 << 20) - 9)
    );
    let thousand = format!("[{}]", vec![r#"{"type":"a"}"#; 1000].join(","));

    assert_eq!(append(&client, Uuid::now_v7(), Some(0), &full).await.unwrap().len(), 2);
    assert_eq!(append(&client, Uuid::now_v7(), Some(0), &thousand).await.unwrap().len(), 1000);
}

#[tokio::test]
async fn a_run_stays_in_its_project() {
    let (_cluster, client) = migrated().await;
    let run = Uuid::now_v7();
    append(&client, run, Some(0), r#"[{"type":"a"}]"#).await.unwrap();

    let (code, message) =
        append_to(&client, Uuid::from_u128(0xb), run, Some(1), r#"[{"type":"b"}]"#)
            .await
            .unwrap_err();

    assert_eq!(code, "22023");
    assert!(message.contains("project_id"), "{message}");
}

#[tokio::test]
async fn events_cannot_be_changed_through_the_root_or_any_partition() {
    let (_cluster, client) = migrated().await;
    append(&client, Uuid::now_v7(), Some(0), r#"[{"type":"a"}]"#).await.unwrap();
    append(&client, Uuid::new_v4(), Some(0), r#"[{"type":"a"}]"#).await.unwrap();
    // One made later by the function, and one made by hand.
    client.batch_execute("select projector.ensure_partitions(5)").await.unwrap();
    client
        .batch_execute(
            "create table projector.by_hand partition of public.events
             for values from ('00000000-0000-0000-0000-000000000000') to ('00000000-0000-0000-0000-0000000000ff');
             insert into events (project_id, run_id, version, type)
             values (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 1, 'a')",
        )
        .await
        .unwrap();
    let partitions = client
        .query(
            "select inhrelid::regclass::text from pg_inherits where inhparent = 'events'::regclass",
            &[],
        )
        .await
        .unwrap();
    assert!(7 < partitions.len());

    let mut statements = vec![
        "insert into events (project_id, run_id, version, type)
         values (gen_random_uuid(), gen_random_uuid(), 1, 'a')
         on conflict (run_id, version) do update set type = 'b'"
            .to_owned(),
        "truncate events cascade".to_owned(),
        "update projector.by_hand set type = 'b'".to_owned(),
        "delete from projector.by_hand".to_owned(),
    ];
    let tables =
        partitions.iter().map(|row| row.get::<_, String>(0)).filter(|it| !it.contains("by_hand"));
    for table in tables.chain(["public.events".to_owned()]) {
        statements.push(format!("update {table} set type = 'b'"));
        statements.push(format!("delete from {table} where false"));
        statements.push(format!("truncate {table}"));
    }
    for statement in statements {
        let (code, message) = refused(&client, &statement).await;
        assert_eq!(code, "0A000", "{statement}");
        assert!(message.contains("append-only"), "{message}");
    }
}

#[tokio::test]
async fn a_uuid_v7_run_lives_in_its_month_and_others_in_the_default() {
    let (_cluster, client) = migrated().await;
    let (by_time, random) = (Uuid::now_v7(), Uuid::new_v4());
    append(&client, by_time, Some(0), r#"[{"type":"a"}]"#).await.unwrap();
    append(&client, random, Some(0), r#"[{"type":"a"}]"#).await.unwrap();

    let place = "select tableoid::regclass::text = 'projector.' || to_char(now() at time zone 'UTC', '\"events_\"YYYY_MM'),
        tableoid::regclass::text = 'projector.events_default' from events where run_id = $1";
    let timed = client.query_one(place, &[&by_time]).await.unwrap();
    let other = client.query_one(place, &[&random]).await.unwrap();

    assert!(timed.get::<_, bool>(0));
    assert!(other.get::<_, bool>(1));
}

#[tokio::test]
async fn partitions_are_made_ahead_once_and_a_month_in_the_default_is_left_out() {
    let (_cluster, client) = migrated().await;
    // A run id of five months ahead, as a wrong clock makes it.
    client
        .batch_execute(
            "insert into events (project_id, run_id, version, type)
             select gen_random_uuid(), projector.first_uuid_at(date_trunc('month', now() at time zone 'UTC') at time zone 'UTC'
               + interval '5 months 3 days'), 1, 'a'",
        )
        .await
        .unwrap();
    let ensure = "select projector.ensure_partitions(6)";

    let made: i32 = client.query_one(ensure, &[]).await.unwrap().get(0);
    let again: i32 = client.query_one(ensure, &[]).await.unwrap().get(0);

    assert_eq!(made, 2); // months 4 and 6: four of them are there since migrate
    assert_eq!(again, 0);
}

#[tokio::test]
async fn retention_drops_whole_months_and_nothing_else() {
    let (_cluster, client) = migrated().await;
    append(&client, Uuid::now_v7(), Some(0), r#"[{"type":"a"}]"#).await.unwrap();
    append(&client, Uuid::new_v4(), Some(0), r#"[{"type":"a"}]"#).await.unwrap();
    let kept = client.query("select projector.drop_events_before(now())", &[]).await.unwrap();

    let dropped = client
        .query("select projector.drop_events_before(now() + interval '1 month')", &[])
        .await
        .unwrap();

    assert!(kept.is_empty());
    assert_eq!(dropped.len(), 1);
    let left: i64 = client.query_one("select count(*) from events", &[]).await.unwrap().get(0);
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_checkpoint_moves_only_from_where_its_writer_left_it() {
    let (_cluster, client) = migrated().await;
    client
        .batch_execute("insert into projector.checkpoints (projection, lsn) values ('a', '0/10'), ('b', '0/20')")
        .await
        .unwrap();
    let advance = |expected: &str| {
        format!("select projector.advance('{{a,b}}', '{expected}', '0/30', now(), 7)")
    };

    let (code, message) = refused(&client, &advance("{0/10,0/11}")).await;
    client.batch_execute(&advance("{0/10,0/20}")).await.unwrap();

    assert_eq!(code, "PJ001", "{message}");
    let rows = client
        .query(
            "select lsn = '0/30', events, committed_at is not null from projector.checkpoints",
            &[],
        )
        .await
        .unwrap();
    for row in rows {
        assert!(row.get::<_, bool>(0));
        assert_eq!(row.get::<_, i64>(1), 7);
        assert!(row.get::<_, bool>(2));
    }
    assert_eq!(refused(&client, &advance("{0/10,0/20}")).await.0, "PJ001");
}

#[tokio::test]
async fn the_references_tell_a_run_as_the_contract_does() {
    let (_cluster, client) = migrated().await;
    client.batch_execute(include_str!("reference.sql")).await.unwrap();
    let run = Uuid::now_v7();
    let events = r#"[
        {"type":"run_started","payload":{"workflow":"w"},"recorded_at":"2026-01-01T00:59:59Z"},
        {"type":"step_scheduled","payload":{"step_id":"s","attempt":1,"name":"Send","kind":"http"}},
        {"type":"step_started","payload":{"step_id":"s","attempt":1}},
        {"type":"step_failed","payload":{"step_id":"s","attempt":1,"error":{"message":"boom"},"retry_at":"2026-01-01T00:00:00Z"}},
        {"type":"step_started","payload":{"step_id":"s","attempt":2}},
        {"type":"step_failed","payload":{"step_id":"s","attempt":1,"error":{"message":"late"}}},
        {"type":"run_failed","payload":{"error":{"message":"dead"}},"recorded_at":"2026-01-01T01:00:00Z"},
        {"type":"log","payload":{"message":"hi","level":"debug"}}]"#;
    append(&client, run, Some(0), events).await.unwrap();
    let told = async |sql: &str| -> Vec<String> {
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };

    let status =
        "select concat_ws(' ', workflow, status, version, steps_started, steps_failed, error,
        failed_step, last_event, duration_ms) from reference.run_status";
    let step =
        "select concat_ws(' ', step_id, name, kind, status, attempt, error, retry_at, last_version)
        from reference.step_status";
    let log = "select concat_ws(' ', version, level, step_id, message) from reference.run_log
        where version in (2, 4, 7, 8) order by version";
    let dead =
        "select concat_ws(' ', workflow, reason, last_step, failures) from reference.dead_runs";
    let stats = "select concat_ws(' ', started, failed) from reference.workflow_stats
        where hour < '2026-01-01 02:00Z' order by hour";
    assert_eq!(told(status).await, ["w failed 8 2 2 dead log 1000"]);
    assert_eq!(told(step).await, ["s Send http running 2 6"]);
    assert_eq!(told(log).await, ["2 info s", "4 error s boom", "7 error dead", "8 debug hi"]);
    assert_eq!(told(dead).await, ["w dead s 1"]);
    assert_eq!(told(stats).await, ["1 0", "0 1"]);
    append(&client, run, Some(8), r#"[{"type":"run_resumed"}]"#).await.unwrap();
    assert_eq!(told(status).await, ["w running 9 2 2 run_resumed"]);
    assert!(told(dead).await.is_empty());
}
