//! Read models follow the log of a running server, and are what plain SQL makes of history.

use std::process::ExitStatus;

use serde_json::Value;

use crate::support::app::App;
use crate::support::workload;

fn ended_well(status: ExitStatus) -> bool {
    status.code() == Some(0)
}

#[tokio::test]
async fn the_read_models_equal_history_before_during_and_after_the_first_start() {
    let app = App::shipped().await;
    workload::load(&app, 1, 2, 200).await;

    let sidecar = app.run().await;
    workload::load(&app, 2, 4, 400).await;
    app.caught_up().await;

    app.assert_rows_equal_history().await;
    assert!(ended_well(sidecar.terminate().await));
}

#[tokio::test]
async fn the_read_models_agree_with_each_other_at_every_moment() {
    let app = App::shipped().await;
    let _sidecar = app.run().await;
    let reader = app.client().await;
    let writer = app.client().await;
    // each run begins and ends in one transaction each, step and all
    let writing = tokio::spawn(async move {
        for number in 0..150 {
            let sql = format!(
                "begin;
                 insert into events (project_id, run_id, version, type, payload) values
                   (gen_random_uuid(), '00000000-0000-4000-8000-{number:012}', 1, 'run_started', '{{}}'),
                   (gen_random_uuid(), '00000000-0000-4000-8000-{number:012}', 2, 'step_started',
                    '{{\"step_id\": \"s\", \"attempt\": 1}}');
                 commit; begin;
                 insert into events (project_id, run_id, version, type, payload) values
                   (gen_random_uuid(), '00000000-0000-4000-8000-{number:012}', 3, 'step_succeeded',
                    '{{\"step_id\": \"s\", \"attempt\": 1}}'),
                   (gen_random_uuid(), '00000000-0000-4000-8000-{number:012}', 4, 'run_succeeded', '{{}}');
                 commit;"
            );
            writer.batch_execute(&sql).await.unwrap();
        }
    });

    let mut looks = 0;
    loop {
        reader.batch_execute("begin isolation level repeatable read").await.unwrap();
        let torn = "select count(*) from run_status r join step_status s using (run_id)
             where r.status = 'succeeded' and s.status = 'running'";
        let torn: i64 = reader.query_one(torn, &[]).await.unwrap().get(0);
        let odd =
            "select count(*) from (select from run_log group by run_id having count(*) % 2 = 1) it";
        let odd: i64 = reader.query_one(odd, &[]).await.unwrap().get(0);
        let all: i64 = reader.query_one("select count(*) from run_log", &[]).await.unwrap().get(0);
        reader.batch_execute("commit").await.unwrap();

        assert_eq!((torn, odd), (0, 0), "after {looks} looks");
        looks += 1;
        if all == 600 {
            break;
        }
        assert!(!writing.is_finished() || looks < 100_000, "{all} lines");
    }
    writing.await.unwrap();
    app.caught_up().await;
}

/// How often each type occurs.
const TYPES: &str = r#"
table = "types"
key   = { type = "type" }

[columns]
type  = "text"
seen  = "bigint not null default 0"

[[on]]
event = "*"
add   = { seen = "`1`" }
"#;

const TYPES_DIFFER: &str = "select count(*) from (
    (select type, seen from types except all select type, count(*) from events group by type)
    union all
    (select type, count(*) from events group by type except all select type, seen from types)) it";

#[tokio::test]
async fn a_definition_that_is_added_is_built_from_history() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 3, 2, 100).await;
    assert!(ended_well(sidecar.terminate().await));

    app.define("types", TYPES);
    let _sidecar = app.run().await;
    workload::load(&app, 4, 2, 100).await;
    app.caught_up().await;

    assert_eq!(app.value(TYPES_DIFFER).await.unwrap(), "0");
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_changed_definition_makes_a_new_generation_and_a_changed_comment_does_not() {
    let app = App::bare(&[]).await;
    app.define("types", TYPES);
    let sidecar = app.run().await;
    workload::load(&app, 5, 2, 50).await;
    app.caught_up().await;
    assert!(ended_well(sidecar.terminate().await));
    app.cluster
        .batch(
            "create role reader; grant select on types to reader;
             create policy all_of_it on types for select to reader using (true);
             create view seldom as select type from types where seen < 5;
             create table before as select 'types'::regclass::oid as id;",
        )
        .await;
    let generation = "select generation::text from projector.projections";

    app.define("types", &format!("# more words\n{TYPES}"));
    let sidecar = app.run().await;
    assert_eq!(app.value(generation).await.unwrap(), "1");
    assert!(ended_well(sidecar.terminate().await));

    let changed = TYPES
        .replace("[[on]]", "last_at = \"timestamptz\"\n\n[[on]]")
        .replace("\"`1`\" }", "\"`2`\" }\nmax   = { last_at = \"recorded_at\" }");
    app.define("types", &changed);
    let sidecar = app.run().await;
    workload::load(&app, 6, 2, 50).await;
    app.caught_up().await;

    assert_eq!(app.value(generation).await.unwrap(), "2");
    let wrong = "select count(*) from types t full join
         (select type, count(*) * 2 as seen, max(recorded_at) as at from events group by type) e using (type)
         where (t.seen, t.last_at) is distinct from (e.seen, e.at)";
    assert_eq!(app.value(wrong).await.unwrap(), "0");
    let kept = "select ('types'::regclass::oid = (select id from before))
         and has_table_privilege('reader', 'types', 'select')
         and exists (select from pg_policy where polname = 'all_of_it')
         and (select relrowsecurity from pg_class where oid = 'types'::regclass)
         and (select count(*) from pg_inherits where inhparent = 'types'::regclass) = 1";
    assert_eq!(app.value(kept).await.unwrap(), "t");
    app.value("select count(*) from seldom").await.unwrap();
    assert!(ended_well(sidecar.terminate().await));

    // a column that goes, too
    app.cluster.batch("drop view seldom").await;
    app.define("types", TYPES);
    let _sidecar = app.run().await;
    app.caught_up().await;
    assert_eq!(app.value(TYPES_DIFFER).await.unwrap(), "0");
}

#[tokio::test]
async fn a_definition_that_is_taken_away_leaves_its_rows_and_comes_back_right() {
    let app = App::shipped().await;
    app.define("types", TYPES);
    let sidecar = app.run().await;
    workload::load(&app, 7, 1, 50).await;
    app.caught_up().await;
    assert!(ended_well(sidecar.terminate().await));
    let rows = app.value("select count(*) from types").await;
    let state = "select state from projector.projections where name = 'types'";

    app.undefine("types");
    let sidecar = app.run().await;
    app.becomes(state, "detached").await;
    workload::load(&app, 8, 1, 50).await;
    app.caught_up().await;
    assert_eq!(app.value("select count(*) from types").await, rows);
    assert!(ended_well(sidecar.terminate().await));

    app.define("types", TYPES);
    let sidecar = app.run().await;
    app.becomes(state, "live").await;
    app.caught_up().await;
    assert_eq!(app.value(TYPES_DIFFER).await.unwrap(), "0");
    let (_, body) = sidecar.get("/api/projections").await;
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["projections"].as_array().unwrap().len(), 6);
}

/// Every operation of the format at once.
const EVERYTHING: &str = r#"
table = "orders"
key   = { run_id = "run_id", step = "payload.step" }

[columns]
run_id   = "uuid"
step     = "text"
attempt  = "int"
status   = "text"
first    = "text"
total    = "numeric"
least    = "int"
most     = "double precision"
tags     = "text[]"
notes    = "jsonb"
settings = "jsonb"
opened   = "text"

[lookup]
opened = { first = "payload.opened_by" }

[epoch]
column = "attempt"
value  = "payload.attempt"
keep   = ["first", "tags"]

[[on]]
event    = "step"
when     = "payload.step"
set      = { status = "payload.status" }
set_once = { first = "payload.status" }
add      = { total = "payload.amount" }
min      = { least = "version" }
max      = { most = "payload.size" }
append   = { tags = "payload.status", notes = "payload.status" }
merge    = { settings = "payload.settings" }

[[on]]
event   = "list"
foreach = "payload.items"
key     = { run_id = "run_id", step = "item" }
set     = { status = "'listed'" }

[[on]]
event  = "gone"
delete = true
"#;

#[tokio::test]
async fn every_operation_of_the_format_works_on_a_server() {
    let app = App::bare(&[]).await;
    app.define("orders", EVERYTHING);
    let _sidecar = app.run().await;

    let insert = |version: i32, kind: &str, payload: &str| {
        format!(
            "insert into events (project_id, run_id, version, type, payload) values
             (gen_random_uuid(), '00000000-0000-4000-8000-000000000001', {version}, '{kind}', '{payload}')"
        )
    };
    for (at, (kind, payload)) in [
        ("open", r#"{"opened_by": "ann"}"#),
        ("step", r#"{"step": "a", "attempt": 1, "status": "new", "amount": 1.10, "size": 5, "settings": {"x": 1, "y": 1}}"#),
        ("step", r#"{"step": "a", "attempt": 1, "status": "next", "amount": 2.20, "size": 4, "settings": {"y": 2}}"#),
        ("list", r#"{"items": ["a", "b", "c"]}"#),
        ("gone", r#"{"step": "c"}"#),
        ("step", r#"{"step": "b", "attempt": 1, "status": "old", "amount": 7}"#),
        ("step", r#"{"step": "b", "attempt": 2, "status": "new", "amount": 0.5}"#),
        ("step", r#"{"step": "b", "attempt": 1, "status": "late", "amount": 100}"#),
    ]
    .into_iter()
    .enumerate()
    {
        app.cluster.batch(&insert(i32::try_from(at).unwrap() + 1, kind, payload)).await;
    }
    app.caught_up().await;

    let rows = "select jsonb_agg(to_jsonb(o) - 'run_id' order by step)::text from orders o";
    let rows: Value = serde_json::from_str(&app.value(rows).await.unwrap()).unwrap();
    let wanted = serde_json::json!([
        { "step": "a", "attempt": 1, "status": "listed", "first": "new", "total": 3.30, "least": 2,
          "most": 5, "tags": ["new", "next"], "notes": ["new", "next"],
          "settings": { "x": 1, "y": 2 }, "opened": "ann" },
        { "step": "b", "attempt": 2, "status": "new", "first": "old", "total": 0.5, "least": 7,
          "most": null, "tags": ["old", "new", "late"], "notes": ["new"], "settings": null,
          "opened": "ann" },
    ]);
    assert_eq!(rows, wanted, "{rows:#}");
}

/// The last word of each topic, over all runs.
const TOPICS: &str = r#"
table = "topics"
key   = { topic = "payload.topic" }

[columns]
topic = "text"
word  = "text"
first = "text"

[[on]]
event    = "word"
set      = { word = "payload.word" }
set_once = { first = "payload.word" }
"#;

#[tokio::test]
async fn across_runs_the_highest_position_wins_though_it_was_committed_first() {
    let app = App::bare(&[]).await;
    app.define("topics", TOPICS);
    let _sidecar = app.run().await;
    let (early, late) = (app.client().await, app.client().await);
    let word = |word: &str| {
        format!(
            "insert into events (project_id, run_id, version, type, payload)
             values (gen_random_uuid(), gen_random_uuid(), 1, 'word',
                     '{{\"topic\": \"t\", \"word\": \"{word}\"}}')"
        )
    };

    early.batch_execute(&format!("begin; {}", word("lower"))).await.unwrap();
    late.batch_execute(&word("higher")).await.unwrap();
    app.caught_up().await;
    early.batch_execute("commit").await.unwrap();
    app.caught_up().await;

    let row = "select word || ' ' || first from topics";
    assert_eq!(app.value(row).await.unwrap(), "higher lower");
}
