//! Why a row says what it says: the events behind it, and the rules that wrote it.

use serde_json::{Value, json};

use crate::replay::{PROJECT, RUN, append, append_story};
use crate::support::app::App;

/// Runs `projector explain` with these arguments: exit code, standard output, standard error.
async fn explain(app: &App, arguments: &[&str]) -> (i32, String, String) {
    let mut command = app.command("explain");
    command.args(arguments);
    let output = app.output(command).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn explain_json(app: &App, arguments: &[&str]) -> Value {
    let (code, out, err) = explain(app, &[arguments, &["--output", "json"]].concat()).await;
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test]
async fn a_row_is_explained_by_its_events_and_the_lines_that_wrote_it() {
    let app = App::shipped().await;
    append_story(&app).await;
    let _sidecar = app.run().await;
    app.caught_up().await;

    let key = format!("run_id={RUN},step_id=charge");
    let (code, out, err) = explain(&app, &["step_status", &key]).await;

    assert_eq!(code, 0, "{err}");
    insta::assert_snapshot!("explain_text", out);
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    // each named line writes that column
    let found = explain_json(&app, &["step_status", &key]).await;
    let file = std::fs::read_to_string(app.projections().join("step_status.toml")).unwrap();
    for touch in found["events"].as_array().unwrap() {
        for column in touch["columns"].as_array().unwrap() {
            for by in column["by"].as_array().unwrap() {
                let Some((_, line)) = by.as_str().unwrap().split_once(".toml:") else { continue };
                let line = file.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
                let name = column["column"].as_str().unwrap();
                assert!(line.contains(&format!("{name} ")), "{name}: {line}");
            }
        }
    }
    assert_eq!(found["touched"], 5);
    assert_eq!(found["row"]["status"], "succeeded");
    assert_eq!(found["live"], json!({"state": "agrees"}));

    // a row that came and went, with a value from `[lookup]`
    let found = explain_json(&app, &["dead_runs", RUN]).await;
    assert_eq!(found["row"], Value::Null);
    let changes: Vec<_> =
        found["events"].as_array().unwrap().iter().map(|it| it["change"].clone()).collect();
    assert_eq!(changes, ["added", "removed", "untouched"]);
    let added = found["events"][0]["columns"].as_array().unwrap();
    let workflow = added.iter().find(|it| it["column"] == "workflow").unwrap();
    assert_eq!(workflow["by"], json!(["[lookup]"]));
    assert_eq!(found["live"]["state"], "agrees");
}

#[tokio::test]
async fn a_live_row_that_is_not_historys_is_told() {
    let app = App::shipped().await;
    append_story(&app).await;
    let sidecar = app.run().await;
    app.caught_up().await;
    sidecar.terminate().await;

    app.cluster.batch("update run_status set steps_failed = 7, error = null").await;
    let found = explain_json(&app, &["run_status", RUN]).await;
    assert_eq!(
        found["live"],
        json!({"state": "differs", "columns":
            [{"column": "steps_failed", "history": 1, "live": 7}]})
    );
    app.cluster.batch("update run_status set steps_failed = 1").await;
    append(&app, &json!({"type": "log"})).await;
    let found = explain_json(&app, &["run_status", RUN]).await;
    assert_eq!(found["live"], json!({"state": "behind", "events": 1}));
    app.cluster.batch("delete from run_status").await;
    let found = explain_json(&app, &["run_status", RUN]).await;
    assert_eq!(found["live"], json!({"state": "missing"}));

    let nobody = "0198f2c1-7d3e-7a40-9c55-000000000000";
    let (code, out, _) = explain(&app, &["run_status", nobody]).await;
    assert_eq!(code, 0);
    assert!(out.contains("no event touched this row (0 read)"), "{out}");
    assert!(out.contains("agrees: the table has no such row"), "{out}");
    let (code, _, err) = explain(&app, &["step_status", RUN]).await;
    assert_eq!(code, 2);
    assert!(err.contains("a key of `step_status` is run_id=<uuid>,step_id=<text>"), "{err}");
}

#[tokio::test]
async fn a_row_of_many_runs_is_explained_from_the_events_of_its_key() {
    let app = App::shipped().await;
    app.cluster
        .batch(
            "insert into events (project_id, run_id, version, type, recorded_at)
             select ('00000000-0000-4000-8000-00000000000' || p)::uuid, gen_random_uuid(), 1,
               'run_started', timestamptz '2026-11-23 09:00Z' + n * interval '10 minutes'
             from generate_series(1, 2) p, generate_series(0, 11) n",
        )
        .await;
    let sidecar = app.run().await;
    app.caught_up().await;

    let project = "00000000-0000-4000-8000-000000000002";
    let key = format!("project_id={project},hour=2026-11-23T10:00:00Z");
    let found = explain_json(&app, &["workflow_stats", &key, "--limit", "2"]).await;

    // the database left out the other project and the other hour
    assert_eq!((&found["read"], &found["touched"]), (&json!(6), &json!(6)));
    assert_eq!(found["row"]["started"], 6);
    assert_eq!(found["live"], json!({"state": "agrees"}));
    let shown = found["events"].as_array().unwrap();
    assert_eq!(shown.len(), 2);
    let started = shown[0]["columns"].as_array().unwrap();
    assert_eq!(started[0]["column"], "started");
    assert_eq!((&started[0]["before"], &started[0]["after"]), (&json!(4), &json!(5)));

    let (code, body) =
        sidecar.get(&format!("/api/tables/workflow_stats/explain?key={key}&limit=2")).await;
    assert_eq!((code, serde_json::from_str::<Value>(&body).unwrap()), (200, found));
    let foreign = format!("/api/tables/workflow_stats/explain?key={key}&project={PROJECT}");
    assert_eq!(sidecar.get(&foreign).await.0, 404);
    let nothing = format!("/api/tables/run_status/explain?key={RUN}");
    assert_eq!(sidecar.get(&nothing).await.0, 404);
}

#[tokio::test]
async fn a_bad_event_of_another_row_is_no_matter() {
    let app = App::bare(&[]).await;
    app.define(
        "parts",
        r#"
        table = "parts"
        key = { run_id = "run_id", part = "payload.part" }
        [columns]
        run_id = "uuid"
        part = "text"
        n = "int"
        [[on]]
        event = "made"
        set = { n = "payload.n" }
        "#,
    );
    let made = |part: &str, n: Value| json!({"type": "made", "payload": {"part": part, "n": n}});
    append(&app, &made("a", json!(1))).await;
    append(&app, &made("b", json!("many"))).await;
    append(&app, &made("a", json!(2))).await;
    append(&app, &made("b", json!(3))).await;

    let found = explain_json(&app, &["parts", &format!("run_id={RUN},part=a")]).await;
    assert_eq!((&found["row"]["n"], &found["fault"]), (&json!(2), &Value::Null));
    assert_eq!(found["live"], json!({"state": "unknown"}));
    let found = explain_json(&app, &["parts", &format!("run_id={RUN},part=b")]).await;
    assert_eq!(found["row"], Value::Null);
    let events = found["events"].as_array().unwrap();
    assert_eq!((&events[0]["change"], events.len()), (&json!("set_aside"), 2));
    let rule = events[0]["error"]["rule"].as_str().unwrap();
    assert!(rule.ends_with("parts.toml:10"), "{rule}");
}

#[tokio::test]
async fn json_of_another_kind_is_told_as_the_table_has_it() {
    let app = App::bare(&[]).await;
    app.define(
        "odd",
        r#"table = "odd"
key   = { run_id = "run_id" }

[columns]
run_id = "uuid"
list   = "jsonb"
object = "jsonb"

[[on]]
event = "set"
set   = { list = "payload.v", object = "payload.v" }

[[on]]
event  = "add"
append = { list = "payload.v" }
merge  = { object = "payload.v" }
"#,
    );
    let _sidecar = app.run().await;
    let run = |number: usize| format!("0198f2c1-7d3e-7a40-9c55-{number:012}");
    let event = |number: usize, version: u32, kind: &str, value: &str| {
        format!(
            "insert into events (project_id, run_id, version, type, payload) values
             (gen_random_uuid(), '{}', {version}, '{kind}', '{{\"v\": {value}}}');",
            run(number)
        )
    };
    let stored = ["{\"x\": 1}", "[1]", "\"]\"", "7", "true"];

    // the events of a run in two transactions, and in one
    for (number, value) in stored.iter().enumerate() {
        app.cluster.batch(&event(number, 1, "set", value)).await;
        app.cluster.batch(&event(number, 2, "add", "{\"y\": 2}")).await;
        let both =
            event(10 + number, 1, "set", value) + &event(10 + number, 2, "add", "{\"y\": 2}");
        app.cluster.batch(&both).await;
    }
    app.caught_up().await;

    for number in (0..stored.len()).chain(10..10 + stored.len()) {
        let mut explain = app.command("explain");
        explain.args(["odd", &run(number)]);
        let output = app.output(explain).await;
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("agrees: "), "{said}");
    }
    let mut rebuild = app.command("rebuild");
    rebuild.arg("odd");
    let rows = "select string_agg(it::text, ' ' order by run_id) from odd it";
    let before = app.value(rows).await.unwrap();
    assert_eq!(app.output(rebuild).await.status.code(), Some(0));
    assert_eq!(app.value(rows).await.unwrap(), before);
}
