//! Rules in Rust: the same rows as rules in TOML, in memory and beside a database.

use std::path::Path;
use std::sync::Arc;

use projector::config::{self, Environment};
use projector::definition::{self, Datum, Definition, Handler, HandlerError, Rows};
use projector::engine::Engine;
use projector::event::Event;
use projector::fold::cases;
use projector::redact::Redactor;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::pg::settings;
use crate::support::app::App;

const COLUMNS: &str = r#"
key   = { run_id = "run_id", sku = "payload.sku" }
[columns]
run_id = "uuid"
sku    = "text"
status = "text not null default 'open'"
items  = "int not null default 0"
"#;

const CODE: &str = r#"
[handler]
name = "lines 1"
set  = ["status"]
add  = ["items"]
delete = true
"#;

const RULES: &str = r#"
[[on]]
event = "added"
add   = { items = "payload.n" }
[[on]]
event   = "moved"
foreach = "payload.skus"
key     = { run_id = "run_id", sku = "item" }
set     = { status = "'moved'" }
[[on]]
event  = "removed"
delete = true
"#;

#[derive(Debug)]
struct Lines;

impl Handler for Lines {
    fn event<'a>(&self, event: &Event<'a>, rows: &mut Rows<'a>) -> Result<(), HandlerError> {
        let payload: Value = serde_json::from_str(event.payload).unwrap();
        match event.kind {
            "added" => drop(rows.row().add("items", payload["n"].clone())),
            "moved" => {
                for sku in payload["skus"].as_array().into_iter().flatten() {
                    rows.row_of([("sku", Datum::from(sku.clone()))]).set("status", "moved");
                }
            }
            "removed" => drop(rows.row().delete()),
            "refused" => return Err(HandlerError::new("never")),
            "undeclared" => drop(rows.row().set("items", 1)),
            "elsewhere" => drop(rows.row_of([("run_id", Datum::from(event.event_id))])),
            _ => {}
        }
        Ok(())
    }
}

fn with_code() -> Definition {
    let text = format!("table = \"lines\"{COLUMNS}{CODE}");
    definition::parse(Path::new("lines.toml"), &text).unwrap().with_handler(Arc::new(Lines))
}

fn events(text: &str) -> projector::event::Batch {
    let text = format!("[[case]]\nname = \"x\"\nexpect = []\ngiven = [{text}]");
    definition::case::parse(Path::new("x.toml"), &text).unwrap().remove(0).given
}

#[test]
fn code_and_rules_make_the_same_rows_however_events_are_split() {
    let rules = format!("table = \"lines\"{COLUMNS}{RULES}");
    let rules = Arc::new(definition::parse(Path::new("lines.toml"), &rules).unwrap());
    let code = Arc::new(with_code());
    let batch = events(
        r#"{ type = "added", payload = { sku = "cup", n = 2 } },
        { type = "added", payload = { sku = "pot", n = 1 } },
        { type = "moved", payload = { skus = ["cup", "pan"] } },
        { type = "removed", payload = { sku = "pot" } },
        { type = "added", run_id = 2, payload = { sku = "cup", n = 5 } },
        { type = "added", payload = { sku = "pot", n = 7 } },"#,
    );
    let events: Vec<_> = batch.events().collect();

    let wanted = cases::rows(&rules, &events, 6, &Redactor::default()).unwrap();
    assert_eq!(wanted.len(), 4);
    for size in 1..=6 {
        assert_eq!(cases::rows(&code, &events, size, &Redactor::default()).unwrap(), wanted);
    }
}

#[test]
fn code_that_refuses_or_does_what_it_may_not_sets_the_event_aside() {
    let definition = Arc::new(with_code());
    for (kind, said) in [
        ("refused", "never"),
        ("undeclared", "`set items` is not declared under `[handler]`"),
        ("elsewhere", "`run_id` is a field of the event in the key, and cannot be another"),
    ] {
        let batch = events(&format!("{{ type = \"{kind}\", payload = {{ sku = \"cup\" }} }}"));
        let events: Vec<_> = batch.events().collect();
        let error = cases::rows(&definition, &events, 1, &Redactor::default()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_definition_whose_code_is_elsewhere_is_refused_and_another_name_is_another_hash() {
    let text = format!("table = \"lines\"{COLUMNS}{CODE}");
    let files = [("lines.toml".into(), text.clone())];
    let problems = definition::parse_all(&files).unwrap_err();
    assert_eq!(problems[0].message, "the code `lines 1` is not part of this program");

    let next = definition::parse(Path::new("lines.toml"), &text.replace("lines 1", "lines 2"));
    assert_ne!(next.unwrap().hash, with_code().hash);
}

#[tokio::test]
async fn an_engine_with_code_of_its_own_follows_the_log() {
    let app = App::bare(&[]).await;
    let append = |version: i32, kind: &str, payload: &str| {
        format!(
            "insert into events (project_id, run_id, version, type, payload) values
             (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', {version}, '{kind}', '{payload}');"
        )
    };
    app.cluster.batch(&append(1, "added", r#"{"sku": "cup", "n": 2}"#)).await;
    let config = config::load(None, &Environment::default(), &[]).unwrap().config;
    let engine = Engine::new(settings(app.cluster.url()), config, vec![with_code()]).unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { engine.run(shutdown).await }
    });

    // from history, then live
    let rows = "select string_agg(sku || items || status, ' ' order by sku) from lines";
    app.becomes("select to_regclass('lines') is not null", "t").await;
    app.becomes(rows, "cup2open").await;
    app.cluster
        .batch(
            &(append(2, "added", r#"{"sku": "cup", "n": 3}"#)
                + &append(3, "moved", r#"{"skus": ["pot"]}"#)),
        )
        .await;
    app.becomes(rows, "cup5open pot0moved").await;
    app.cluster.batch(&append(4, "refused", r#"{"sku": "pot"}"#)).await;
    app.becomes("select row_key->>'sku' || ' ' || error from projector.dead_letters", "pot never")
        .await;

    shutdown.cancel();
    running.await.unwrap().unwrap();
}
