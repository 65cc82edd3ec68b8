//! Read models made by a statement of one's own: the same checkpoint, builds, checks.

use std::path::Path;

use projector::definition;

use crate::support::app::App;
use crate::support::cluster::Cluster;
use crate::support::workload;

const BUSY: &str = r#"
table  = "busy"
key    = ["project_id", "type"]
tenant = "project_id"
sql    = """
with kinds as (
  select project_id, type, count(*) as events, max(position) as last
  from batch group by project_id, type
)
insert into busy as b (project_id, type, events, last)
select project_id, type, events, last from kinds
on conflict (project_id, type) do update
set events = b.events + excluded.events, last = greatest(b.last, excluded.last);
"""

[columns]
project_id = "uuid"
type       = "text"
events     = "bigint not null"
last       = "bigint not null"
"#;

const DIFFERENCES: &str = "with wanted as (
     select project_id, type, count(*) as events, max(position) as last
     from events group by project_id, type)
   select count(*) from (
     (table wanted except all table busy) union all (table busy except all table wanted)) it";

async fn assert_equal_history(app: &App) {
    app.caught_up().await;
    assert_eq!(app.value(DIFFERENCES).await.unwrap(), "0");
    assert_ne!(app.value("select count(*) from busy").await.unwrap(), "0");
}

#[tokio::test]
async fn a_statement_makes_rows_from_history_live_and_after_a_crash() {
    let app = App::shipped().await;
    app.define("busy", BUSY);
    workload::load(&app, 70, 3, 100).await;

    let sidecar = app.run().await;
    assert_equal_history(&app).await;
    workload::load(&app, 71, 3, 100).await;
    assert_equal_history(&app).await;

    sidecar.kill9();
    workload::load(&app, 72, 3, 100).await;
    let _sidecar = app.run().await;
    assert_equal_history(&app).await;

    let mut rebuild = app.command("rebuild");
    rebuild.arg("busy");
    let output = app.output(rebuild).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    workload::load(&app, 73, 3, 100).await;
    assert_equal_history(&app).await;

    let mut verify = app.command("verify");
    verify.arg("busy");
    let output = app.output(verify).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_statement_that_fails_stops_its_projection_and_no_other() {
    let app = App::shipped().await;
    let picky = BUSY
        .replace("max(position)", "max((payload->>'n')::bigint)")
        .replace("[columns]", "events = [\"picky\"]\n[columns]")
        .replace("\"\"\"\n\nevents", "\"\"\"\nevents");
    app.define("busy", &picky);
    let _sidecar = app.run().await;
    let event = |n: &str| {
        format!(
            "insert into events (project_id, run_id, version, type, payload)
             values ('7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801', gen_random_uuid(), 1, 'picky', '{{\"n\": {n}}}')"
        )
    };

    workload::load(&app, 74, 2, 50).await;
    app.cluster.batch(&event("5")).await;
    app.becomes("select type || last from busy", "picky5").await;
    app.cluster.batch(&event("\"six\"")).await;

    let state = "select state from projector.projections where name = 'busy'";
    app.becomes(state, "failed").await;
    let error = "select last_error from projector.projections where name = 'busy'";
    let error = app.value(error).await.unwrap();
    assert!(error.contains("invalid input syntax for type bigint"), "{error}");
    workload::load(&app, 75, 2, 50).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
}

#[test]
fn what_a_statement_cannot_have_is_refused() {
    let problems = |text: &str| -> Vec<String> {
        let found = definition::parse(Path::new("busy.toml"), text).err().unwrap_or_default();
        found.into_iter().map(|it| it.message).collect()
    };

    assert_eq!(problems(BUSY), [""; 0]);
    let named = BUSY.replace("insert into busy", "insert into public.busy");
    assert_eq!(problems(&named), ["the statement names its table with a schema: `public.busy`"]);
    let parked = format!("on_error = \"park\"\n{BUSY}");
    assert_eq!(problems(&parked), ["no rows can be parked for a statement"]);
    let both = format!("{BUSY}\n[[on]]\nevent = \"*\"\nadd = {{ events = \"`1`\" }}");
    assert_eq!(problems(&both), ["a statement makes the rows, or rules do"]);
    let spaced = BUSY.replace("  select project_id", "  select   project_id");
    let hash = |text: &str| definition::parse(Path::new("busy.toml"), text).unwrap().hash;
    assert_eq!(hash(BUSY), hash(&spaced));
}

const CASES: &str = r#"
[[case]]
name   = "two runs take turns"
given  = [
  { type = "a", run_id = 1 },
  { type = "a", run_id = 2 },
  { type = "b", run_id = 1, payload = { n = 7 } },
  { type = "a", run_id = 1 },
]
expect = [{ type = "a", events = 3, last = 4 }, { type = "b", events = 1, last = 3 }]
"#;

#[tokio::test]
async fn a_statements_cases_are_run_in_a_database_and_leave_nothing_there() {
    let app = App::unmigrated(Cluster::start().await);
    app.define("busy", BUSY);
    std::fs::create_dir(app.projections().join("tests")).unwrap();
    std::fs::write(app.projections().join("tests/busy.toml"), CASES).unwrap();
    let test = async |arguments: &[&str]| {
        let mut command = app.command("test");
        command.args(arguments);
        let output = app.output(command).await;
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    };

    let (code, said) = test(&[]).await;
    assert!(code == 0 && said.contains("1 case of SQL projections skipped"), "{said}");
    let (code, said) = test(&["--sql"]).await;
    assert!(code == 0 && said.contains("ok      busy  two runs take turns"), "{said}");

    // what depends on how events are cut into batches is found
    app.define("busy", &BUSY.replace("greatest(b.last, excluded.last)", "excluded.last"));
    let (code, said) = test(&["--sql"]).await;
    assert!(code == 1 && said.contains("run by run"), "{said}");
    assert!(said.contains("row 1, `last`: expected 4, found 2"), "{said}");
    app.define("busy", &BUSY.replace("b.events + excluded.events", "excluded.events"));
    let (code, said) = test(&["--sql"]).await;
    assert!(code == 1 && said.contains("when its events come one by one:"), "{said}");

    // and so is what the database refuses
    app.define("busy", &BUSY.replace("max(position)", "max((payload->>'m')::bigint)"));
    let (code, said) = test(&["--sql"]).await;
    assert!(code == 1 && said.contains("null value in column \"last\""), "{said}");
    app.define("busy", &BUSY.replace("from batch", "from bunch"));
    let (code, said) = test(&["--sql"]).await;
    assert!(code == 1 && said.contains("relation \"bunch\" does not exist (42P01)"), "{said}");

    assert_eq!(app.value("select to_regclass('busy')").await, None);
    assert_eq!(
        app.value("select count(*) from pg_class where relname = 'busy'").await.unwrap(),
        "0"
    );
}
