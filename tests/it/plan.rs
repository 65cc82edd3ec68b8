//! `projector plan` and `prune`: what definitions would change, and what is left of those that went.

use std::process::Output;

use serde_json::Value;

use crate::support::app::App;

const RUNS: &str = r#"
table = "runs"
key = { run_id = "run_id" }

[columns]
run_id = "uuid"
status = "text"

[[on]]
event = "a"
set = { status = "'seen'" }
"#;

async fn projector(app: &App, verb: &str, arguments: &[&str]) -> Output {
    let mut command = app.command(verb);
    command.args(arguments);
    app.output(command).await
}

async fn json(app: &App, verb: &str, arguments: &[&str]) -> Value {
    let output = projector(app, verb, &[arguments, &["--output", "json"]].concat()).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

/// Name, change and whether it is rebuilt.
fn changes(plan: &Value) -> Vec<(&str, &str, bool)> {
    let list = plan["projections"].as_array().unwrap().iter();
    list.map(|it| {
        let text = |key: &str| it[key].as_str().unwrap();
        (text("name"), text("change"), it["rebuild"].as_bool().unwrap())
    })
    .collect()
}

#[tokio::test]
async fn a_plan_tells_what_is_created_changed_and_removed_and_why() {
    let app = App::bare(&[]).await;
    app.define("runs", RUNS);
    app.define("other", &RUNS.replace("\"runs\"", "\"other\""));
    let before = json(&app, "plan", &[]).await;
    drop(app.run().await);
    let same = json(&app, "plan", &[]).await;
    app.define("runs", &format!("# a comment\n{}", RUNS.replace(" = \"text\"", "   =   \"text\"")));
    let reworded = json(&app, "plan", &[]).await;
    app.define(
        "runs",
        &RUNS
            .replace("status = \"text\"", "status = \"text\"\nseen_at = \"timestamptz\"")
            .replace("status = \"'seen'\"", "status = \"'seen'\", seen_at = \"recorded_at\""),
    );
    app.undefine("other");
    app.define("third", &RUNS.replace("\"runs\"", "\"third\""));
    let changed = json(&app, "plan", &[]).await;

    assert_eq!(changes(&before), [("other", "created", true), ("runs", "created", true)]);
    let unchanged = [("other", "unchanged", false), ("runs", "unchanged", false)];
    assert_eq!(changes(&same), unchanged);
    assert_eq!(changes(&reworded), unchanged);
    assert_eq!(
        changes(&changed),
        [("runs", "changed", true), ("third", "created", true), ("other", "removed", false)]
    );
    let why = &changed["projections"][0]["reasons"];
    assert_eq!(why[0], "column `seen_at` added: timestamptz");
    assert!(changed["seconds"].is_f64() && changed["rate"]["measured"] == false, "{changed}");
}

#[tokio::test]
async fn a_plan_for_people_fits_their_terminal() {
    let app = App::shipped().await;
    let first = text(&projector(&app, "plan", &[]).await);
    drop(app.run().await);
    let second = text(&projector(&app, "plan", &[]).await);

    assert!(
        first.contains("created  run_status") && first.contains("5 projections built"),
        "{first}"
    );
    assert!(second.contains("nothing is rebuilt"), "{second}");
    for line in first.lines().chain(second.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[tokio::test]
async fn a_broken_definition_ends_the_plan_with_its_place() {
    let app = App::bare(&[]).await;
    app.define("runs", &RUNS.replace("set =", "sett ="));

    let output = projector(&app, "plan", &[]).await;

    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("runs.toml:11:1"), "{}", text(&output));
}

#[tokio::test]
async fn pruning_drops_what_has_no_definition_any_more_and_nothing_else() {
    let app = App::bare(&[]).await;
    app.define("runs", RUNS);
    app.define("other", &RUNS.replace("\"runs\"", "\"other\""));
    drop(app.run().await);
    app.undefine("other");
    app.cluster.batch("create view v as select * from other").await;

    let defined = projector(&app, "prune", &["runs", "--yes"]).await;
    let preview = projector(&app, "prune", &[]).await;
    let held = projector(&app, "prune", &["--yes"]).await;
    let there = app.value("select concat_ws(' ', to_regclass('other'), (select count(*) from projector.projections))").await;
    app.cluster.batch("drop view v").await;
    let pruned = projector(&app, "prune", &["--yes"]).await;

    assert_eq!(defined.status.code(), Some(2), "{}", text(&defined));
    assert!(text(&preview).contains("would drop public.other"), "{}", text(&preview));
    assert_eq!(held.status.code(), Some(1));
    assert!(text(&held).contains("view v depends on table other"), "{}", text(&held));
    assert_eq!(there.as_deref(), Some("other 2"));
    assert!(text(&pruned).contains("dropped public.other"), "{}", text(&pruned));
    let left = "select concat_ws(' ', to_regclass('other'), to_regclass('projector.other_1'),
        to_regclass('runs'), (select string_agg(name, ' ') from projector.projections),
        (select string_agg(projection, ' ') from projector.checkpoints),
        (select verb || ' ' || subject from projector.audit_log))";
    assert_eq!(app.value(left).await.as_deref(), Some("runs runs runs prune other"));
}

#[tokio::test]
async fn pruning_leaves_a_table_alone_that_is_somebody_elses() {
    let app = App::bare(&[]).await;
    app.cluster
        .batch(
            "create table orders (id int);
             insert into projector.projections (name, table_name, definition_hash, state)
             values ('orders', 'orders', '', 'failed')",
        )
        .await;

    let output = projector(&app, "prune", &["orders", "--yes"]).await;

    assert!(output.status.success(), "{}", text(&output));
    let left = "select concat_ws(' ', to_regclass('orders'), count(*)) from projector.projections";
    assert_eq!(app.value(left).await.as_deref(), Some("orders 0"));
}

#[tokio::test]
async fn a_followed_projection_is_not_pruned() {
    let app = App::bare(&[]).await;
    app.define("runs", RUNS);
    let _sidecar = app.run().await;
    app.undefine("runs");

    let output = projector(&app, "prune", &["runs", "--yes"]).await;

    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(app.value("select to_regclass('runs')").await.is_some());
}
