//! Events that cannot be applied: their row is parked as it was, all others go on, and nothing is lost.

use serde_json::Value;

use crate::support::app::{App, Sidecar};
use crate::support::eventually::eventually;

/// Fails on a level that is no number; the database refuses one above 100.
const LEVELS: &str = r#"table = "levels"
key   = { run_id = "run_id" }

[columns]
run_id = "uuid"
level  = "int check (level <= 100)"
seen   = "bigint not null default 0"

[[on]]
event = "level"
set   = { level = "payload.level" }
add   = { seen = "`1`" }

[[on]]
event = "tick"
add   = { seen = "`1`" }
"#;

/// `n`-th run, its `version`-th event.
fn level(run: u32, version: i32, level: &str) -> String {
    format!(
        "insert into events (project_id, run_id, version, type, payload)
         values (gen_random_uuid(), '{}', {version}, 'level', '{{\"level\": {level}}}');",
        id(run)
    )
}

fn id(run: u32) -> String {
    format!("00000000-0000-7000-8000-{run:012}")
}

const ROWS: &str =
    "select string_agg(format('%s:%s/%s', ltrim(right(run_id::text, 12), '0'), level, seen), ' '
     order by run_id) from levels";
const LETTERS: &str =
    "select string_agg(format('%s:%s:%s', ltrim(right(row_key->>'run_id', 12), '0'), version,
     attempts), ' ' order by id) from projector.dead_letters where projection = 'levels'";

async fn count(app: &App, events: u32) {
    let counted = "select events from projector.checkpoints where projection = 'levels'";
    app.becomes(counted, &events.to_string()).await;
}

#[tokio::test]
async fn an_event_that_a_rule_fails_on_parks_its_row_and_no_other() {
    let app = App::bare(&[]).await;
    app.define("levels", LEVELS);
    let sidecar = app.run().await;

    app.cluster.batch(&(level(1, 1, "1") + &level(2, 1, "1"))).await;
    count(&app, 2).await;
    app.cluster.batch(&(level(1, 2, "\"high\"") + &level(2, 2, "2") + &level(1, 3, "3"))).await;
    count(&app, 5).await;

    assert_eq!(app.value(ROWS).await.unwrap(), "1:1/1 2:2/2");
    assert_eq!(app.value(LETTERS).await.unwrap(), "1:2:1 1:3:0");
    let told = "select concat_ws('|', rule, error, payload, position > 0, lsn > '0/0')
         from projector.dead_letters order by id limit 1";
    assert_eq!(
        app.value(told).await.unwrap(),
        "projections/levels.toml:11|column `level`: expected integer, found the text 'high'|{\"level\": \"high\"}|t|t"
    );

    // the next process knows which rows wait
    assert_eq!(sidecar.terminate().await.code(), Some(0));
    let sidecar = app.run().await;
    app.cluster.batch(&(level(1, 4, "4") + &level(2, 3, "3"))).await;
    count(&app, 7).await;
    assert_eq!(app.value(ROWS).await.unwrap(), "1:1/1 2:3/3");
    assert_eq!(app.value(LETTERS).await.unwrap(), "1:2:1 1:3:0 1:4:0");

    // a rebuild sets the same aside, with payloads that no rule has looked at
    app.cluster.batch(&level(1, 5, "5").replace("'level'", "'tick'")).await;
    count(&app, 8).await;
    app.cluster.batch("select projector.rebuild('levels')").await;
    let done = "select string_agg(phase, ' ' order by id desc) from projector.rebuilds";
    app.becomes(done, "done done").await;
    assert_eq!(app.value(LETTERS).await.unwrap(), "1:2:1 1:3:0 1:4:0 1:5:0");
    let payloads = "select string_agg(payload::text, ' ' order by id) from projector.dead_letters";
    let payloads = app.value(payloads).await.unwrap();
    assert_eq!(payloads, r#"{"level": "high"} {"level": 3} {"level": 4} {"level": 5}"#);
    assert_eq!(app.value(ROWS).await.unwrap(), "1:1/1 2:3/3");

    // a definition that can take the event needs no letters
    assert_eq!(sidecar.terminate().await.code(), Some(0));
    app.define("levels", &LEVELS.replace("int check (level <= 100)", "text"));
    let _sidecar = app.run().await;
    assert_eq!(app.value(ROWS).await.unwrap(), "1:4/5 2:3/3");
    assert_eq!(app.value(LETTERS).await, None);
}

#[tokio::test]
async fn what_only_the_database_refuses_is_found_among_many_events() {
    let app = App::bare(&[]).await;
    app.define("levels", LEVELS);
    let sidecar = app.run().await;

    let mut events: String = (1..=40).map(|run| level(run, 1, "1")).collect();
    // the database sees rows: a value that is overwritten in the same batch is none of its business
    events += &(level(7, 2, "101") + &level(8, 2, "101"));
    events += &(8..=40).map(|run| level(run, 3, "3")).collect::<String>();
    app.cluster.batch(&events).await;
    count(&app, 75).await;
    app.cluster.batch(&(1..=7).map(|run| level(run, 3, "3")).collect::<String>()).await;
    count(&app, 82).await;

    assert_eq!(app.value(LETTERS).await.unwrap(), "7:2:1 7:3:0");
    let others = "select count(*) from levels where level = 3 and 2 <= seen";
    assert_eq!(app.value(others).await.unwrap(), "39");
    let parked = format!("select level || '/' || seen from levels where run_id = '{}'", id(7));
    assert_eq!(app.value(&parked).await.unwrap(), "1/1");
    let error = "select error from projector.dead_letters order by id limit 1";
    let error = app.value(error).await.unwrap();
    assert!(error.starts_with("the database refuses the row: new row for relation"), "{error}");
    assert!(error.ends_with("(23514)"), "{error}");

    // history knows how rows end: what was refused only on the way is no matter there
    app.cluster.batch(&(level(41, 1, "4") + &level(41, 2, "102"))).await;
    count(&app, 84).await;
    assert_eq!(app.value(LETTERS).await.unwrap(), "7:2:1 7:3:0 41:2:1");
    assert_eq!(sidecar.terminate().await.code(), Some(0));
    app.define("levels", &LEVELS.replace("bigint", "int"));
    let _sidecar = app.run().await;
    assert_eq!(app.value(LETTERS).await.unwrap(), "41:2:1");
    let rows = "select concat_ws(' ', count(*) filter (where level = 3),
         count(*) filter (where level = 4 and seen = 1)) from levels";
    assert_eq!(app.value(rows).await.unwrap(), "40 1");
}

/// Runs `projector dead-letters …` and gives its exit code and what it printed.
async fn dead_letters(app: &App, arguments: &[&str]) -> (i32, String) {
    let mut command = app.command("dead-letters");
    command.args(arguments);
    let output = app.output(command).await;
    let mut said = String::from_utf8(output.stdout).unwrap();
    said += &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[tokio::test]
async fn a_row_is_folded_again_once_the_cause_is_mended() {
    let app = App::bare(&[]).await;
    app.define("levels", LEVELS);
    let sidecar = app.run().await;
    app.cluster.batch(&(level(1, 1, "1") + &level(2, 1, "1"))).await;
    count(&app, 2).await;
    app.cluster.batch(&(level(1, 2, "101") + &level(2, 2, "\"high\""))).await;
    count(&app, 4).await;
    app.cluster.batch(&(level(1, 3, "102") + &level(2, 3, "3"))).await;
    count(&app, 6).await;
    assert_eq!(app.value(LETTERS).await.unwrap(), "1:2:1 2:2:1 1:3:0 2:3:0");

    let (code, said) = dead_letters(&app, &["list", "levels"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("levels  {\"run_id\": ") && said.contains("2 events, "), "{said}");
    assert!(said.contains("  column `level`: expected integer, found the text 'high'"), "{said}");
    let (code, said) = dead_letters(&app, &["show", "levels", &id(2)]).await;
    assert!(code == 0 && said.contains("payload  {\"level\": \"high\"}"), "{said}");
    let written = format!("run_id={}", id(2));
    assert_eq!(dead_letters(&app, &["show", "levels", &written]).await, (code, said));
    let (code, said) = dead_letters(&app, &["show", "levels", "{run_id"]).await;
    assert!(code == 2 && said.contains("the key is not JSON"), "{said}");
    let status = app.output(app.command("status")).await;
    let said = String::from_utf8(status.stdout).unwrap();
    assert!(said.contains("levels: 4 events of 2 rows set aside, the oldest "), "{said}");

    // nothing is mended: both are tried, and both stay where they were
    let (code, said) = dead_letters(&app, &["retry", "levels", "--all"]).await;
    assert!(code == 1 && said.contains("levels: 2 tried again, 2 still parked"), "{said}");
    let attempts = LETTERS.replace("order by id", "order by run_id, version");
    assert_eq!(app.value(&attempts).await.unwrap(), "1:2:2 1:3:0 2:2:2 2:3:0");
    assert_eq!(app.value(ROWS).await.unwrap(), "1:1/1 2:1/1");

    // one is
    app.cluster.batch("alter table levels drop constraint levels_level_check").await;
    let (code, said) = dead_letters(&app, &["retry", "levels", &id(1)]).await;
    assert!(code == 0 && said.contains("levels: 1 tried again, 0 still parked"), "{said}");
    assert_eq!(app.value(ROWS).await.unwrap(), "1:102/3 2:1/1");

    // of the other the events are given up
    let (code, said) = dead_letters(&app, &["discard", "levels", &id(2)]).await;
    assert!(code == 0 && said.contains("levels: 1 given up"), "{said}");
    app.cluster.batch(&(level(1, 4, "4") + &level(2, 4, "4"))).await;
    count(&app, 8).await;
    assert_eq!(app.value(ROWS).await.unwrap(), "1:4/4 2:4/2");
    assert_eq!(app.value(LETTERS).await, None);
    let audit = "select string_agg(verb, ' ' order by id) from projector.audit_log
         where subject = 'levels'";
    assert_eq!(
        app.value(audit).await.unwrap(),
        "retry_dead_letters retry_dead_letters discard_dead_letters"
    );
    let (code, said) = dead_letters(&app, &["retry", "levels", "--all"]).await;
    assert!(code == 2 && said.contains("has no dead letters to retry"), "{said}");
    drop(sidecar);
}

/// Rows gather events of many runs.
const SUMS: &str = r#"table = "sums"
key   = { type = "type" }

[columns]
type  = "text"
total = "int not null default 0 check (total < 100)"

[[on]]
event = "*"
add   = { total = "payload.n" }
"#;

fn number(kind: &str, n: &str) -> String {
    format!(
        "insert into events (project_id, run_id, version, type, payload)
         values (gen_random_uuid(), gen_random_uuid(), 1, '{kind}', '{{\"n\": {n}}}');"
    )
}

#[tokio::test]
async fn a_row_of_many_runs_takes_what_was_set_aside_of_it() {
    let app = App::bare(&[]).await;
    app.define("sums", SUMS);
    let sidecar = app.run().await;
    let counted = "select events from projector.checkpoints where projection = 'sums'";
    for (events, sql) in [
        (2, number("a", "60") + &number("b", "1")),
        (4, number("a", "70") + &number("b", "1")),
        (6, number("a", "1") + &number("b", "1")),
    ] {
        app.cluster.batch(&sql).await;
        app.becomes(counted, &events.to_string()).await;
    }
    let sums = "select string_agg(type || total, ' ' order by type) from sums";
    assert_eq!(app.value(sums).await.unwrap(), "a60 b3");
    eventually("a degraded projection in the status", async || {
        let (_, body) = sidecar.get("/api/projections").await;
        let status: Value = serde_json::from_str(&body).unwrap();
        let found = status["projections"][0].clone();
        let wanted = found["state"] == "degraded"
            && found["dead_letters"] == 2
            && found["parked_keys"] == 1
            && found["oldest_parked_seconds"].as_f64() > Some(0.0);
        if wanted { Ok(()) } else { Err(found) }
    })
    .await;
    assert_eq!(sidecar.get("/readyz").await.0, 200);

    app.cluster.batch("alter table sums drop constraint sums_total_check").await;
    app.cluster.batch("select projector.retry_dead_letters('sums')").await;
    app.becomes(sums, "a131 b3").await;
    app.becomes("select count(*) from projector.dead_letters", "0").await;
    app.cluster.batch(&number("a", "1")).await;
    app.becomes(sums, "a132 b3").await;
}

#[tokio::test]
async fn more_rows_than_may_be_parked_stop_the_projection() {
    let app = App::bare(&[]).await;
    app.define("levels", LEVELS);
    app.define("sums", SUMS);
    let mut command = app.command("run");
    command.env("PROJECTOR_LIMITS_PARKED_KEYS", "2");
    let sidecar = Sidecar::spawn(command);
    sidecar.says("\"ready\"").await;

    for run in 1..=3 {
        app.cluster.batch(&level(run, 1, "\"high\"")).await;
    }

    let state =
        "select state || ': ' || last_error from projector.projections where name = 'levels'";
    eventually("a projection that failed", async || match app.value(state).await {
        Some(it) if it.contains("more than 2 rows or events are set aside") => Ok(()),
        other => Err(other),
    })
    .await;
    app.becomes("select events from projector.checkpoints where projection = 'sums'", "3").await;
    assert_eq!(app.value(LETTERS).await.unwrap(), "1:1:1 2:1:1");
}

#[tokio::test]
async fn a_late_event_that_fails_parks_its_row_at_its_place() {
    let app = App::bare(&[]).await;
    app.define("levels", LEVELS);
    let _sidecar = app.run().await;
    app.cluster.batch(&level(1, 1, "1")).await;
    count(&app, 1).await;
    app.cluster.batch(&level(1, 3, "3")).await;
    count(&app, 2).await;

    app.cluster.batch(&level(1, 2, "\"high\"")).await;
    count(&app, 3).await;
    app.becomes(LETTERS, "1:2:1 1:3:0").await;
    assert_eq!(app.value(ROWS).await.unwrap(), "1:1/1");

    app.cluster.batch(&level(1, 4, "4")).await;
    count(&app, 4).await;
    assert_eq!(app.value(LETTERS).await.unwrap(), "1:2:1 1:3:0 1:4:0");
}

#[tokio::test]
async fn a_comparison_leaves_out_what_the_sidecar_has_set_aside_however_much_that_is() {
    let app = App::bare(&[]).await;
    app.define("levels", LEVELS);
    let _sidecar = app.run().await;
    let high = |run| level(run, 1, "1") + &level(run, 2, "\"high\"");
    app.cluster.batch(&(1..=4).map(high).collect::<String>()).await;
    count(&app, 8).await;

    let mut verify = app.command("verify");
    verify.args(["levels", "--output", "json"]).env("PROJECTOR_LIMITS_PARKED_KEYS", "1");
    let output = app.output(verify).await;

    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.to_string().contains("\"parked_keys\":4"), "{report}");
}
