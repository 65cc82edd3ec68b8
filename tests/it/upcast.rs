//! Upcasts: events of older schemas read as if they were of the newest.

use std::path::{Path, PathBuf};

use projector::definition::{self, Definition, Problem, Scope, Scratch, case};
use projector::fold::cases;
use projector::redact::Redactor;
use serde_json::{Value, json};

use crate::replay::{RUN, append};
use crate::support::app::App;

/// `steps` by `step_id`; older producers called it `node`, and the error was a text.
const STEPS: &str = r#"
table = "steps"
key   = { run_id = "run_id", step_id = "payload.step_id" }

[columns]
run_id   = "uuid"
step_id  = "text"
error    = "text"
attempt  = "int"
big      = "numeric"

[[on]]
event = "step_failed"
set   = { error = "payload.error.message", attempt = "payload.attempt", big = "payload.big" }
"#;

const SHARED: &str = r#"
# what became of schema 1 and 2
[[upcast]]
event  = "step_failed"
from   = 1
rename = { step_id = "payload.node" }
default = { attempt = "`1`" }

[[upcast]]
event  = ["step_failed", "run_failed"]
before = 3
rename = { "error.message" = "payload.error" }
set    = { "error.code" = "length(payload.error)" }
remove = ["payload.debug"]
"#;

fn load(files: &[(&str, &str)]) -> Result<Vec<Definition>, Vec<Problem>> {
    let file = |it: &(&str, &str)| (PathBuf::from(format!("projections/{}", it.0)), it.1.into());
    definition::parse_all(&files.iter().map(file).collect::<Vec<_>>())
}

fn complaints(upcasts: &str) -> String {
    let problems = load(&[("upcasts.toml", upcasts)]).expect_err("bad upcasts");
    problems.iter().map(Problem::render).collect::<Vec<_>>().join("\n\n")
}

fn one(files: &[(&str, &str)]) -> Definition {
    match load(files) {
        Ok(mut it) => it.remove(0),
        Err(problems) => panic!("{}", problems.iter().map(Problem::render).collect::<String>()),
    }
}

#[test]
fn old_events_are_read_in_the_newest_schema_version_by_version() {
    let cases = r#"
        [[case]]
        name  = "a chain, a step of it, none, and numbers of any size"
        given = [
          { type = "step_failed", payload = '{"node": "a", "error": "boom", "debug": 1, "big": 12345678901234567890.123}' },
          { type = "step_failed", payload = { step_id = "b", error = "bang", attempt = 4 }, metadata = { schema_version = 2 } },
          { type = "step_failed", payload = { step_id = "c", error = { message = "new" } }, metadata = { schema_version = 3 } },
          { type = "step_failed", payload = { step_id = "d", node = "no", error = { message = "newer" } }, metadata = { schema_version = "4" } },
        ]
        expect = [
          { step_id = "a", error = "boom", attempt = 1, big = "12345678901234567890.123" },
          { step_id = "b", error = "bang", attempt = 4 },
          { step_id = "c", error = "new", null = ["attempt"] },
          { step_id = "d", error = "newer" },
        ]"#;
    let cases = case::parse(Path::new("tests/steps.toml"), cases).unwrap();
    let redactor = Redactor::default();
    let definition = one(&[("steps.toml", STEPS), ("upcasts.toml", SHARED)]);

    assert_eq!(cases::run(&definition, &cases[0], &redactor).unwrap(), []);

    let event = cases[0].given.events().next().unwrap();
    let mut scratch = Scratch::default();
    let upcast = definition.upcast(&Scope::new(event, &mut scratch, &redactor)).unwrap().unwrap();
    assert_eq!(upcast.by, [0, 1]);
    assert_eq!(
        upcast.payload,
        r#"{"big":12345678901234567890.123,"step_id":"a","attempt":1,"error":{"message":"boom","code":4}}"#
    );
}

#[test]
fn the_hash_knows_upcasts_that_rules_can_see_wherever_they_stand() {
    let hash = |files: &[(&str, &str)]| one(files).hash;
    let plain = hash(&[("steps.toml", STEPS)]);
    let shared = hash(&[("steps.toml", STEPS), ("upcasts.toml", SHARED)]);

    assert_ne!(plain, shared);
    // own, shared, or in another order: it means the same
    assert_eq!(shared, hash(&[("steps.toml", &format!("{STEPS}{SHARED}"))]));
    let (first, second) = SHARED.split_at(SHARED.rfind("[[upcast]]").unwrap());
    assert_eq!(shared, hash(&[("a.toml", second), ("steps.toml", STEPS), ("z.toml", first)]));
    let other = "[[upcast]]\nevent = \"run_started\"\nfrom = 1\nremove = [\"payload.x\"]\n";
    assert_eq!(plain, hash(&[("steps.toml", STEPS), ("upcasts.toml", other)]));
    assert_ne!(shared, hash(&[("steps.toml", STEPS), ("u.toml", &SHARED.replace("`1`", "`2`"))]));

    // a definition's text says all that it means, so that it can be kept and read again alone
    let kept = one(&[("steps.toml", STEPS), ("upcasts.toml", SHARED)]);
    let again = definition::parse(Path::new("steps.toml"), &kept.text).unwrap();
    assert_eq!(again.hash, shared);
}

#[test]
fn bad_upcasts_are_pointed_at() {
    insta::assert_snapshot!(complaints(
        r#"
[[upcast]]
event  = "a"
rename = { "x y" = "payload.a || payload.b", ok = "metadata.a" }

[[upcast]]
event  = "b"
from   = 1
before = 2
set    = { x = "payload.[", y = "item" }
default = { x = "`1`" }

[[upcast]]
event   = "c"
from    = "1"
renames = { x = "payload.y" }

[[upcast]]
from = 1
"#
    ));
    insta::assert_snapshot!(
        "upcasts_clash",
        complaints(&format!(
            "{SHARED}\n[[upcast]]\nevent = \"run_failed\"\nfrom = 2\nremove = [\"payload.x\"]\n\n\
             [[upcast]]\nevent = \"run_failed\"\nfrom = 7\nversion = \"metadata.v\"\nremove = [\"payload.x\"]\n"
        ))
    );
    let own = "[[upcast]]\nevent = \"step_failed\"\nfrom = 2\nremove = [\"payload.x\"]\n";
    let files = [("steps.toml", &*format!("{STEPS}{own}")), ("upcasts.toml", SHARED)];
    let problems = load(&files).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (problems[0].file.to_str().unwrap(), problems[0].line),
        ("projections/upcasts.toml", 9)
    );
    assert!(problems[0].message.contains("lead to schema version 3"), "{}", problems[0].message);
}

#[tokio::test]
async fn the_live_rows_replay_and_explain_read_old_events_alike() {
    let app = App::bare(&[]).await;
    app.define("steps", STEPS);
    app.define("upcasts", SHARED);
    let old = json!({"type": "step_failed",
        "payload": {"node": "charge", "error": "boom", "password": "hunter2"}});
    let bad = json!({"type": "step_failed", "metadata": {"schema_version": "v2"}});
    let new = json!({"type": "step_failed", "metadata": {"schema_version": 3},
        "payload": {"step_id": "charge", "attempt": 2, "error": {"message": "again"}}});
    for (number, mut event) in [old, bad, new].into_iter().enumerate() {
        event["recorded_at"] = format!("2026-11-23T09:00:0{number}Z").into();
        append(&app, &event).await;
    }
    let _sidecar = app.run().await;
    app.caught_up().await;

    let row = "select concat_ws(' ', step_id, error, attempt) from steps";
    app.becomes(row, "charge again 2").await;
    let mut command = app.command("replay");
    command.args([RUN, "--diff"]);
    let output = app.output(command).await;
    let text = String::from_utf8(output.stdout).unwrap();
    insta::assert_snapshot!("replay_of_upcasts", text);
    let mut command = app.command("explain");
    command.args(["steps", &format!("run_id={RUN},step_id=charge"), "--output", "json"]);
    let output = app.output(command).await;
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["touched"], 2);
    assert_eq!(found["events"][0]["columns"][2]["after"], "boom");
    assert_eq!(found["events"][0]["columns"][2]["by"], json!(["projections/steps.toml:14"]));
    assert_eq!(found["live"], json!({"state": "agrees"}));
}
