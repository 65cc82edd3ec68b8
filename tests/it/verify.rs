//! `projector verify`: read models held against history while they go on.

use std::process::Output;

use serde_json::Value;

use crate::support::app::{App, Sidecar};
use crate::support::eventually::eventually;
use crate::support::workload;

/// Runs `projector verify` with these arguments, and reads its JSON.
async fn verify(app: &App, arguments: &[&str]) -> (Option<i32>, Value, Output) {
    let mut command = app.command("verify");
    command.args(["--output", "json"]).args(arguments);
    let output = app.output(command).await;
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), report, output)
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Scratch tables, and slots besides the sidecar's.
const LEFT: &str = "select concat_ws(' ', (select string_agg(relname, ' ') from pg_class
       where relname ~ '^verify_' and relkind = 'r'),
     (select string_agg(slot_name, ' ') from pg_replication_slots where slot_name <> 'projector'))";

#[tokio::test]
async fn read_models_agree_with_history_while_events_keep_coming() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 20, 2, 100).await;
    let writing = async { workload::load(&app, 21, 3, 600).await };

    let ((code, report, output), _) = tokio::join!(verify(&app, &["--all"]), writing);

    assert_eq!(code, Some(0), "{report:#} {}", error(&output));
    let projections = report["projections"].as_array().unwrap();
    assert_eq!(projections.len(), 5);
    for it in projections {
        assert!(0 < it["rows"].as_u64().unwrap() || it["projection"] == "dead_runs", "{it}");
        assert_eq!(it["count"], 0);
    }
    assert_eq!(app.value(LEFT).await.unwrap(), "");
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_changed_a_missing_and_an_extra_row_are_found_and_mended() {
    let app = App::shipped().await;
    let _sidecar = app.run().await;
    app.cluster.batch(&workload::bulk(1_000)).await;
    app.caught_up().await;
    app.cluster
        .batch(
            "update step_status set attempt = 7
               where (run_id, step_id) = (select run_id, step_id from step_status limit 1);
             delete from step_status where (run_id, step_id) =
               (select run_id, step_id from step_status where attempt = 1 offset 50 limit 1);
             insert into step_status (run_id, step_id, project_id, status, last_version)
               values (gen_random_uuid(), E'odd\\tone', gen_random_uuid(), 'running', 1)",
        )
        .await;

    let (code, report, output) = verify(&app, &["step_status", "run_status"]).await;
    assert_eq!(code, Some(3), "{}", error(&output));
    let [run_status, step_status] = &report["projections"].as_array().unwrap()[..] else {
        panic!("{report:#}")
    };
    assert_eq!(run_status["count"], 0);
    for kind in ["changed", "missing", "extra"] {
        assert_eq!(step_status[kind], 1, "{step_status:#}");
    }
    let first = step_status["first"].as_array().unwrap();
    let changed = first.iter().find(|it| it["kind"] == "changed").unwrap();
    assert_eq!(changed["columns"][0]["column"], "attempt");
    assert_eq!(changed["columns"][0]["stored"], "7");
    assert_eq!(changed["columns"][0]["history"], "1");
    let extra = first.iter().find(|it| it["kind"] == "extra").unwrap();
    assert_eq!(extra["key"][1][1], "odd\tone");

    let text = app.output({
        let mut command = app.command("verify");
        command.args(["step_status", "--limit", "1", "--repair"]);
        command
    });
    let text = text.await;
    assert_eq!(text.status.code(), Some(3));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("1 changed, 1 missing, 1 extra") && text.contains("2 more"), "{text}");
    app.becomes(
        "select count(*) from projector.rebuilds where phase = 'done' and reason = 'request'",
        "1",
    )
    .await;
    let (code, report, _) = verify(&app, &["--all"]).await;
    assert_eq!(code, Some(0), "{report:#}");
}

#[tokio::test]
async fn without_a_sidecar_rows_are_compared_if_nothing_came_since() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 30, 2, 50).await;
    app.caught_up().await;
    sidecar.terminate().await;

    let (code, report, output) = verify(&app, &["--all"]).await;
    assert_eq!(code, Some(0), "{report:#} {}", error(&output));

    workload::load(&app, 31, 1, 1).await;
    let (code, _, output) = verify(&app, &["--all"]).await;
    assert_eq!(code, Some(1));
    assert!(error(&output).contains("no sidecar runs here"), "{}", error(&output));
    assert!(error(&output).contains("start `projector run`"), "{}", error(&output));
    assert_eq!(app.value(LEFT).await.unwrap(), "");
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused_with_what_to_do() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    let (code, _, output) = verify(&app, &["run_stats"]).await;
    assert_eq!(code, Some(2));
    assert!(error(&output).contains("there are: dead_runs"), "{}", error(&output));

    app.cluster.batch("select projector.pause('run_log')").await;
    app.becomes("select state from projector.projections where name = 'run_log'", "paused").await;
    let (code, _, output) = verify(&app, &["run_log"]).await;
    assert_eq!(code, Some(1));
    assert!(error(&output).contains("projector resume run_log"), "{}", error(&output));
    sidecar.terminate().await;
}

#[tokio::test]
async fn a_comparison_that_is_killed_leaves_what_the_next_one_takes_away() {
    let app = App::shipped().await;
    let _sidecar = app.run().await;
    app.cluster.batch(&workload::bulk(5_000)).await;
    let mut command = app.command("verify");
    command.args(["run_log"]);
    let killed = Sidecar::spawn(command);
    eventually("a scratch table", async || {
        let left = app.value(LEFT).await.unwrap();
        if left.contains("verify_") { Ok(()) } else { Err(left) }
    })
    .await;
    killed.kill9();
    app.becomes("select count(*) from pg_replication_slots where slot_name <> 'projector'", "0")
        .await;
    app.becomes(
        "select count(*) from pg_stat_activity where application_name = 'projector verify'",
        "0",
    )
    .await;

    let (code, report, output) = verify(&app, &["workflow_stats"]).await;

    assert_eq!(code, Some(0), "{report:#} {}", error(&output));
    assert_eq!(app.value(LEFT).await.unwrap(), "");
}
