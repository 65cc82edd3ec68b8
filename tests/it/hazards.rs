//! Events and tables as nobody would want them, and as they come nevertheless.

use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::support::app::App;
use crate::support::workload;

const PROJECT: Uuid = Uuid::from_u128(7);

async fn append(app: &App, run: Uuid, expected: i32, events: Value) -> Result<(), String> {
    let values: [&(dyn ToSql + Sync); 4] = [&PROJECT, &run, &expected, &events];
    let sql = "select append_events($1, $2, $3, $4)";
    let appended = app.client().await.query(sql, &values).await;
    let told = |it: tokio_postgres::Error| it.as_db_error().unwrap().code().code().to_owned();
    appended.map(drop).map_err(told)
}

#[tokio::test]
async fn hostile_payloads_appear_as_they_are() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    let run = Uuid::from_u128(0x1000);
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let digits = "9".repeat(400);
    let fields = [
        format!("{{\"long\": \"{}\"}}", "x".repeat((1 << 20) - 300)),
        format!("{{\"deep\": {}}}", deep(64)),
        format!("{{\"deep\": {}}}", deep(1_000)),
        format!("{{\"numbers\": [1e308, -1e308, 1e-308, {digits}, 0.1]}}"),
        "{\"twice\": 1, \"twice\": 2}".to_owned(),
        "{\"emoji\": \"🦀👩‍👩‍👧\", \"rtl\": \"\u{202e}مرحبا שלום\", \"tab\": \"a\\tb\\n\"}".to_owned(),
        "{\"quotes\": \"it's \\\"so\\\" \\\\ {}[],: $1 %s ';--\"}".to_owned(),
    ];

    let nul = json!([{ "type": "log", "payload": { "message": "a\0b" } }]);
    let refused = append(&app, run, 0, nul).await;
    let client = app.client().await;
    for (at, it) in fields.iter().enumerate() {
        let payload = format!("{{\"level\": \"info\", \"message\": \"m{at}\", \"fields\": {it}}}");
        let version = i32::try_from(at).unwrap() + 1;
        let insert = "insert into events (project_id, run_id, version, type, payload)
             values ($1, $2, $3, 'log', $4::text::jsonb)";
        client.execute(insert, &[&PROJECT, &run, &version, &payload]).await.unwrap();
    }
    app.caught_up().await;

    assert_eq!(refused.unwrap_err(), "22P05");
    let same = "select count(*) from run_log l join events e using (run_id, version)
         where l.fields = e.payload -> 'fields' and l.message = e.payload ->> 'message'";
    assert_eq!(app.value(same).await.unwrap(), fields.len().to_string(), "{}", sidecar.log());
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn odd_payloads_of_the_vocabulary_fail_no_shipped_projection() {
    let app = App::shipped().await;
    let _sidecar = app.run().await;
    let deep = "{\"a\":".repeat(300) + "1" + &"}".repeat(300);
    for (kind, payload) in [
        ("run_started", "{}".to_owned()),
        ("run_started", "[]".to_owned()),
        ("run_failed", "{\"error\": \"a text\"}".to_owned()),
        ("run_failed", "{\"error\": {\"message\": {\"not\": \"a text\"}}}".to_owned()),
        ("log", "{\"level\": 3, \"message\": [1, 2]}".to_owned()),
        (
            "step_started",
            format!(
                "{{\"step_id\": \"deep\", \"attempt\": 1, \"name\": \"n\", \"input\": {deep}}}"
            ),
        ),
        (
            "step_succeeded",
            format!("{{\"step_id\": \"deep\", \"attempt\": 1, \"output\": {deep}}}"),
        ),
    ] {
        let insert = "insert into events (project_id, run_id, version, type, payload)
             values ($1, gen_random_uuid(), 1, $2, $3::text::jsonb)";
        app.client().await.execute(insert, &[&PROJECT, &kind, &payload]).await.unwrap();
    }

    app.caught_up().await;

    let failed = "select string_agg(name || ': ' || last_error, '; ')
         from projector.projections where state <> 'live'";
    assert_eq!(app.value(failed).await, None);
}

#[tokio::test]
async fn columns_that_come_to_events_under_way_change_nothing() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 70, 2, 50).await;

    app.cluster
        .batch("alter table events add column shard int default 3, add column note text")
        .await;
    workload::load(&app, 71, 2, 50).await;
    app.cluster.batch("alter table events drop column note").await;
    // the payload moves to the end of the row, and positions get a gap
    app.cluster
        .batch(
            "alter table events add column note text default 'again';
             select setval(pg_get_serial_sequence('events', 'position'), 10000000)",
        )
        .await;
    workload::load(&app, 72, 2, 50).await;
    app.caught_up().await;

    app.assert_rows_equal_history().await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_transaction_of_a_hundred_thousand_events_is_one_step_and_little_memory() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    let reader = app.client().await;
    let history = app.client().await;

    let writing = tokio::spawn(async move {
        history.batch_execute(&workload::bulk(5_000)).await.unwrap();
    });
    loop {
        let lines: i64 =
            reader.query_one("select count(*) from run_log", &[]).await.unwrap().get(0);
        assert!([0, 100_000].contains(&lines), "{lines}");
        if lines == 100_000 {
            break;
        }
        // one that starts over and over would never come to an end
        assert!(sidecar.lines() < 20, "{}", sidecar.log());
    }
    writing.await.unwrap();

    app.caught_up().await;
    let peak = sidecar.peak_memory();
    assert!(peak < 150 << 20, "{} MiB", peak >> 20);
    app.assert_rows_equal_history().await;
}
