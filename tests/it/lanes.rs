//! A projection that fails leaves its lane and says why; the others go on.

use serde_json::Value;

use crate::support::app::{App, Sidecar};
use crate::support::workload;

/// Fails on a level that is no number.
const BROKEN: &str = r#"table = "broken"
on_error = "pause"
key   = { run_id = "run_id" }

[columns]
run_id = "uuid"
level  = "int"

[[on]]
event = "bad"
set   = { level = "payload.level" }
"#;

/// In a lane of its own.
const ASIDE: &str = r#"table = "aside"
key   = { type = "type" }
lane  = "aside"

[columns]
type = "text"
seen = "bigint not null default 0"

[[on]]
event = "*"
add   = { seen = "`1`" }
"#;

/// The database refuses a row of it.
const CHECKED: &str = r#"table = "checked"
on_error = "pause"
key   = { run_id = "run_id" }

[columns]
run_id = "uuid"
level  = "int"
small  = "smallint not null default 0"

[[on]]
event = "fine"
set   = { level = "payload.level" }

[[on]]
event = "bad"
add   = { small = "payload.amount" }
"#;

fn event(kind: &str, payload: &str) -> String {
    format!(
        "insert into events (project_id, run_id, version, type, payload)
         values (gen_random_uuid(), gen_random_uuid(), 1, '{kind}', '{payload}')"
    )
}

async fn assert_failed(app: &App, sidecar: &Sidecar, name: &str, said: &[&str]) {
    let state = format!("select state from projector.projections where name = '{name}'");
    app.becomes(&state, "failed").await;
    let error = format!("select last_error from projector.projections where name = '{name}'");
    let error = app.value(&error).await.unwrap();
    for text in said {
        assert!(error.contains(text), "{text}: {error}");
    }
    app.becomes("select count(*) from projector.projections where state = 'failed'", "1").await;
    crate::support::eventually::eventually("the failure in the status", async || {
        let (_, body) = sidecar.get("/api/projections").await;
        let status: Value = serde_json::from_str(&body).unwrap();
        let all = status["projections"].as_array().unwrap();
        let found = all.iter().find(|it| it["name"] == name).unwrap().clone();
        if found["state"] == "failed" && found["error"] == error { Ok(()) } else { Err(found) }
    })
    .await;
    let (_, metrics) = sidecar.get("/metrics").await;
    let gauge = format!("projector_projection_state{{projection=\"{name}\",state=\"failed\"}} 1");
    assert!(metrics.contains(&gauge), "{metrics}");
    let output = app.output(app.command("status")).await;
    let table = String::from_utf8(output.stdout).unwrap();
    let line = table.lines().find(|it| it.starts_with(name)).unwrap();
    assert!(line.contains("failed"), "{table}");
}

#[tokio::test]
async fn a_rule_that_fails_takes_its_projection_out_and_no_other() {
    let app = App::shipped().await;
    app.define("broken", BROKEN);
    app.define("aside", ASIDE);
    let sidecar = app.run().await;
    workload::load(&app, 60, 2, 50).await;

    app.cluster.batch(&event("bad", "{\"level\": \"high\"}")).await;
    workload::load(&app, 61, 2, 50).await;

    let said = ["broken.toml:11", "`level`", "expected integer, found the text 'high'", "`bad`"];
    assert_failed(&app, &sidecar, "broken", &said).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
    let aside = "select (select sum(seen) from aside) = (select count(*) from events)";
    assert_eq!(app.value(aside).await.unwrap(), "t");
    let lanes = "select count(distinct application_name) from pg_stat_activity
         where application_name like 'projector lane %'";
    assert_eq!(app.value(lanes).await.unwrap(), "2");

    // a definition that can take the event is built from history
    assert_eq!(sidecar.terminate().await.code(), Some(0));
    app.define("broken", &BROKEN.replace("level  = \"int\"", "level  = \"text\""));
    let _sidecar = app.run().await;
    app.caught_up().await;
    assert_eq!(app.value("select level from broken").await.unwrap(), "high");
}

#[tokio::test]
async fn rows_that_the_database_refuses_take_their_projection_out_and_no_other() {
    let app = App::shipped().await;
    app.define("checked", &CHECKED.replace("\"int\"", "\"int check (level < 10)\""));
    let sidecar = app.run().await;
    workload::load(&app, 62, 2, 50).await;

    app.cluster.batch(&event("fine", "{\"level\": 5}")).await;
    app.cluster.batch(&event("fine", "{\"level\": 50}")).await;
    workload::load(&app, 63, 2, 50).await;

    assert_failed(&app, &sidecar, "checked", &["check constraint"]).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_sum_that_no_longer_fits_takes_its_projection_out_and_no_other() {
    let app = App::shipped().await;
    app.define(
        "checked",
        &CHECKED
            .replace("{ run_id = \"run_id\" }", "{ run_id = \"project_id\" }")
            .replace("set   = { level", "max   = { level"),
    );
    let sidecar = app.run().await;

    app.cluster
        .batch(
            "insert into events (project_id, run_id, version, type, payload)
             select '7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801', gen_random_uuid(), 1, 'bad', '{\"amount\": 30000}'
             from generate_series(1, 2)",
        )
        .await;
    workload::load(&app, 64, 2, 50).await;

    assert_failed(&app, &sidecar, "checked", &["smallint out of range"]).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_read_model_that_was_dropped_is_built_again() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 65, 2, 50).await;
    app.caught_up().await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));

    app.cluster.batch("drop table dead_runs").await;
    let _sidecar = app.run().await;
    workload::load(&app, 66, 2, 50).await;
    app.caught_up().await;

    app.assert_rows_equal_history().await;
}
