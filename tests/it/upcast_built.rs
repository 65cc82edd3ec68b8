//! Upcasts in what is stored: definitions that are kept and read again, builds from history, letters.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use projector::definition::{self, Definition, Problem, Scope, Scratch, case};
use projector::fold::Fold;
use projector::redact::Redactor;
use serde_json::json;

use crate::replay::append;
use crate::support::app::App;

const STEPS: &str = r#"
table = "steps"
key   = { run_id = "run_id", step_id = "payload.step_id" }

[columns]
run_id  = "uuid"
step_id = "text"
error   = "text"

[[on]]
event = "step_failed"
set   = { error = "payload.error.message" }
"#;

const COUNTED: &str = r#"
table  = "counted"
key    = ["run_id"]
sql    = "insert into counted select run_id, 1 from batch on conflict (run_id) do nothing"
events = ["step_failed"]

[columns]
run_id = "uuid"
n      = "int"
"#;

const UPCASTS: &str = r#"
[[upcast]]
event  = "step_failed"
from   = 1
rename = { step_id = "payload.node" }

[[upcast]]
event  = "step_failed"
from   = 2
rename = { "error.message" = "payload.error" }
"#;

/// Of events that no rule of `steps` takes.
const OTHERS: &str = r#"
[[upcast]]
event  = "run_started"
from   = 1
remove = ["payload.debug"]
"#;

fn load(files: &[(&str, &str)]) -> Result<Vec<Definition>, Vec<Problem>> {
    let file = |it: &(&str, &str)| (PathBuf::from(format!("projections/{}", it.0)), it.1.into());
    definition::parse_all(&files.iter().map(file).collect::<Vec<_>>())
}

fn one(files: &[(&str, &str)]) -> Definition {
    match load(files) {
        Ok(mut it) => it.remove(0),
        Err(problems) => panic!("{}", problems.iter().map(Problem::render).collect::<String>()),
    }
}

#[test]
fn upcasts_of_events_that_no_rule_takes_are_not_in_the_hash() {
    let plain = one(&[("steps.toml", STEPS)]).hash;
    assert_eq!(plain, one(&[("steps.toml", &format!("{STEPS}{OTHERS}"))]).hash);

    // the kept text has the whole shared file, and means no more than what was seen of it
    let both = format!("{UPCASTS}{OTHERS}");
    let kept = one(&[("steps.toml", STEPS), ("upcasts.toml", &both)]);
    assert_ne!(kept.hash, plain);
    let again = definition::parse(Path::new("steps.toml"), &kept.text).unwrap();
    assert_eq!(again.hash, kept.hash);
}

#[test]
fn upcasts_without_a_version_a_change_or_a_header_are_pointed_at() {
    let complaints = |text: &str| {
        let problems = load(&[("upcasts.toml", text)]).expect_err("bad upcasts");
        problems.iter().map(Problem::render).collect::<Vec<_>>().join("\n\n")
    };
    insta::assert_snapshot!(
        "upcasts_lack",
        complaints(
            r#"
[[upcast]]
event  = "a"
remove = ["payload.x"]

[[upcast]]
event = "b"
from  = 1

[[upcast]]
event  = "c"
from   = 9223372036854775807
remove = ["payload.x"]
"#
        )
    );
    insta::assert_snapshot!(
        "upcasts_in_brackets",
        complaints("upcast = [{ event = \"a\", from = 1, remove = [\"payload.x\"] }]\n")
    );
}

#[test]
fn a_statement_never_misses_an_event_whose_upcast_fails() {
    let case = r#"
        [[case]]
        name   = "a version that is none"
        given  = [
          { type = "run_started", metadata = { schema_version = "v2" } },
          { type = "step_failed", metadata = { schema_version = "v2" } },
        ]
        expect = []"#;
    let case = case::parse(Path::new("tests/counted.toml"), case).unwrap().remove(0);
    let any = UPCASTS.replace("\"step_failed\"", "\"*\"");
    let definition = one(&[("counted.toml", COUNTED), ("upcasts.toml", &any)]);
    let redactor = Redactor::default();
    let mut fold = Fold::new(Arc::new(definition));

    let results: Vec<_> = case
        .given
        .events()
        .map(|it| fold.event(&Scope::new(it, &mut Scratch::default(), &redactor)))
        .collect();

    assert!(results[0].is_ok(), "{results:?}");
    let error = results[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("the upcast at projections/upcasts.toml:2 failed"), "{error}");
}

#[tokio::test]
async fn a_rebuild_reads_old_events_as_the_stream_does_and_sets_the_same_aside() {
    let app = App::bare(&[]).await;
    app.define("steps", STEPS);
    app.define("upcasts", UPCASTS);
    let old = json!({"type": "step_failed", "payload": {"node": "a", "error": "boom"}});
    let bad = json!({"type": "step_failed", "metadata": {"schema_version": "v2"}});
    let next = json!({"type": "step_failed", "metadata": {"schema_version": 2},
        "payload": {"step_id": "b", "error": "bang"}});
    let new = json!({"type": "step_failed", "metadata": {"schema_version": 3},
        "payload": {"step_id": "c", "error": {"message": "new"}}});
    let _sidecar = app.run().await;
    for event in [&old, &bad, &next, &new] {
        append(&app, event).await;
    }
    app.caught_up().await;
    let rows =
        "select string_agg(concat_ws(' ', step_id, error), ', ' order by step_id) from steps";
    let letters = "select string_agg(concat_ws(' ', version, coalesce(row_key::text, 'no key'),
         error like 'the upcast at %upcasts.toml:2 failed: the schema version%'), ', ')
         from projector.dead_letters where projection = 'steps'";
    app.becomes(rows, "a boom, b bang, c new").await;
    app.becomes(letters, "2 no key t").await;

    let mut rebuild = app.command("rebuild");
    rebuild.arg("steps");
    let output = app.output(rebuild).await;

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(app.value(rows).await.unwrap(), "a boom, b bang, c new");
    assert_eq!(app.value(letters).await.unwrap(), "2 no key t");
    let mut verify = app.command("verify");
    verify.arg("steps");
    let output = app.output(verify).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
