//! Time travel: what read models said at each version, from history alone.

use projector::definition::case::is_same;
use serde_json::{Value, json};

use crate::support::app::App;

pub(crate) const PROJECT: &str = "7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801";
pub(crate) const RUN: &str = "0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10";

const PICKY: &str = r#"
        table = "picky"
        key = { run_id = "run_id" }
        [columns]
        run_id = "uuid"
        n = "int"
        [[on]]
        event = "made_up"
        set = { n = "payload.n" }
        "#;

/// The story of a run that fails, is resumed and succeeds, with a secret in it.
pub(crate) fn story() -> Vec<Value> {
    let step = |kind: &str, step: &str, attempt: i32| {
        json!({"type": kind, "payload": {"step_id": step, "attempt": attempt, "kind": "http",
            "name": step, "output": {"password": "hunter2", "n": attempt},
            "error": {"message": format!("{step} {attempt} went wrong")}}})
    };
    vec![
        json!({"type": "run_started", "payload": {"workflow": "checkout", "input": {"n": 1}}}),
        step("step_scheduled", "charge", 1),
        step("step_started", "charge", 1),
        json!({"type": "log", "payload": {"level": "debug", "message": "trying"}}),
        step("step_failed", "charge", 1),
        json!({"type": "run_failed", "payload": {"error": {"message": "no luck"}, "step_id": "charge"}}),
        json!({"type": "run_resumed"}),
        step("step_started", "charge", 2),
        step("step_started", "ship", 1),
        step("step_succeeded", "charge", 2),
        json!({"type": "made_up", "payload": {"x": 1}}),
        step("step_skipped", "ship", 1),
        json!({"type": "run_succeeded", "payload": {"output": {"ok": true}}}),
    ]
}

pub(crate) async fn append(app: &App, event: &Value) {
    app.client()
        .await
        .execute(
            "select append_events($1::text::uuid, $2::text::uuid, null, $3)",
            &[&PROJECT, &RUN, &json!([event])],
        )
        .await
        .unwrap();
}

/// Appends the story, an event a second.
pub(crate) async fn append_story(app: &App) {
    for (number, mut event) in story().into_iter().enumerate() {
        event["recorded_at"] = format!("2026-11-23T09:00:{number:02}Z").into();
        append(app, &event).await;
    }
}

/// Runs `projector replay` with these arguments: exit code, standard output, standard error.
async fn replay(app: &App, arguments: &[&str]) -> (i32, String, String) {
    let mut command = app.command("replay");
    command.args(arguments);
    let output = app.output(command).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn replay_at_each_version_gives_the_rows_that_were_live_then() {
    let app = App::shipped().await;
    let _sidecar = app.run().await;
    let tables = ["run_status", "step_status", "run_log", "dead_runs"];
    let mut live = Vec::new();
    for event in story() {
        append(&app, &event).await;
        app.caught_up().await;
        let mut rows = Vec::new();
        for table in tables {
            let sql =
                format!("select coalesce(jsonb_agg(to_jsonb(t) order by t), '[]') from {table} t");
            let found: Value = app.client().await.query_one(&sql, &[]).await.unwrap().get(0);
            rows.push(found);
        }
        live.push(rows);
    }

    for (version, rows) in (1..).zip(&live) {
        let version: i32 = version;
        let arguments = [RUN, "--output", "json", "--version", &version.to_string()];
        let (code, out, err) = replay(&app, &arguments).await;

        assert_eq!(code, 0, "{err}");
        let state: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(state["version"], version);
        assert_eq!(state["left_out"], json!(["workflow_stats"]));
        for (table, live) in tables.iter().zip(rows) {
            let rows = state["projections"][table]["rows"].as_array().unwrap();
            let live = live.as_array().unwrap();
            assert_eq!(rows.len(), live.len(), "{table} at {version}");
            for (row, live) in rows.iter().zip(live) {
                for (column, value) in row.as_object().unwrap() {
                    let at = format!("{table}.{column} at {version}: {value} {}", live[column]);
                    assert!(is_same(value, &live[column]), "{at}");
                }
            }
        }
    }
    assert!(!live.is_empty());
}

#[tokio::test]
async fn replay_reads_well_and_says_what_it_cannot_do() {
    let app = App::shipped().await;
    append_story(&app).await;

    let (code, out, _) = replay(&app, &[RUN, "--version", "9"]).await;
    assert_eq!(code, 0);
    insta::assert_snapshot!("replay_text", out);
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");

    let (_, out, err) = replay(&app, &[RUN, "--diff", "--projection", "step_status"]).await;
    insta::assert_snapshot!("replay_diff", out + &err);

    let until = [RUN, "--until", "2026-11-23T09:00:05Z", "--projection", "dead_runs"];
    let (_, out, _) = replay(&app, &until).await;
    assert!(out.contains("at version 6") && out.contains("no luck"), "{out}");
    let (_, out, _) = replay(&app, &[RUN, "--until", "2026-01-01"]).await;
    assert!(out.contains("had no event yet"), "{out}");

    let (code, _, err) = replay(&app, &[RUN, "--version", "14"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("no version 14") && err.contains("last event is version 13"), "{err}");
    let (code, _, err) = replay(&app, &["0198f2c1-7d3e-7a40-9c55-000000000000"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("there is no run") && err.contains("hint:"), "{err}");
    let (code, _, err) = replay(&app, &[RUN, "--projection", "run_state"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("there are: dead_runs, run_log"), "{err}");
    for output in [out, err] {
        assert!(!output.contains("hunter2"));
    }
}

#[tokio::test]
async fn a_rule_that_fails_is_told_with_its_place_and_the_others_are_shown() {
    let app = App::shipped().await;
    app.define("picky", PICKY);
    append(&app, &json!({"type": "made_up", "payload": {"n": 1}})).await;
    append(&app, &json!({"type": "made_up", "payload": {"n": "many"}})).await;
    append(&app, &json!({"type": "made_up", "payload": {"n": 3}})).await;

    let (code, out, err) = replay(&app, &[RUN, "--output", "json"]).await;

    assert_eq!(code, 0, "{err}");
    let state: Value = serde_json::from_str(&out).unwrap();
    let picky = &state["projections"]["picky"];
    assert_eq!(picky["rows"][0]["n"], 1);
    assert_eq!(picky["set_aside"]["count"], 2);
    let aside = &picky["set_aside"]["events"][0];
    assert_eq!(
        (&aside["version"], &aside["rule"]),
        (&json!(2), &json!("projections/picky.toml:9"))
    );
    let error = aside["error"].as_str().unwrap();
    assert!(error.starts_with("column `n`: expected"), "{error}");
    assert_eq!(state["projections"]["run_log"]["count"], 3);

    let (_, out, _) = replay(&app, &[RUN, "--diff", "--projection", "picky"]).await;
    assert!(out.contains("set aside: version 2: projections/picky.toml:9: column"), "{out}");

    app.define("picky", &PICKY.replace("table =", "on_error = \"pause\"\n        table ="));
    let (_, out, _) = replay(&app, &[RUN, "--projection", "picky"]).await;
    assert!(out.contains("stopped at version 2: projections/picky.toml:10: column"), "{out}");
}

#[tokio::test]
async fn the_api_tells_the_same_as_the_command_and_nothing_of_another_project() {
    let app = App::shipped().await;
    append_story(&app).await;
    let sidecar = app.run().await;
    let get = async |query: &str| {
        let (code, body) = sidecar.get(&format!("/api/runs/{RUN}/state{query}")).await;
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };

    let (_, out, _) = replay(&app, &[RUN, "--output", "json", "--version", "6"]).await;
    let mut told: Value = serde_json::from_str(&out).unwrap();
    told["truncated"] = false.into();
    assert_eq!(get("?version=6").await, (200, told));

    let (_, out, _) = replay(&app, &[RUN, "--output", "json", "--diff"]).await;
    let steps: Vec<Value> = out.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let (_, page) = get("?diff=1&limit=5").await;
    assert_eq!(page["steps"].as_array().unwrap(), &steps[..5]);
    assert_eq!(page["next"], 5);
    let (_, page) = get("?diff=1&limit=50&after=5").await;
    assert_eq!(page["steps"].as_array().unwrap(), &steps[5..]);
    assert_eq!(page["next"], Value::Null);

    let (_, state) = get("?until=2026-11-23T09:00:05Z&projection=dead_runs").await;
    assert_eq!(state["version"], 6);
    assert_eq!(state["projections"]["dead_runs"]["rows"][0]["reason"], "no luck");
    for (query, code, word) in [
        ("?version=14", 404, "unknown_version"),
        ("?project=00000000-0000-4000-8000-000000000000", 404, "unknown_run"),
        ("?projection=nothing", 404, "unknown_projection"),
        ("?version=-1", 400, "bad_parameter"),
        ("?until=soon", 400, "bad_parameter"),
        ("?verson=1", 400, "bad_query"),
    ] {
        let (found, body) = get(query).await;
        assert_eq!((found, body["error"]["code"].as_str().unwrap()), (code, word), "{query}");
    }
    assert_eq!(get(&format!("?project={PROJECT}")).await.0, 200);
}
