//! Folding in memory, writing to Postgres and one plain pass come to the same rows, whatever the
//! definition, however the events are split and however runs are interleaved.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use projector::apply::generation::Tables;
use projector::apply::writer::{Part, Writer};
use projector::config::{self, Columns, Environment};
use projector::definition::{self, ColumnType, Definition, Problem, Scope, Scratch};
use projector::event::{Event, Timestamp};
use projector::fold::Fold;
use projector::fold::cases;
use projector::fold::letters::Letter;
use projector::fold::memory::MemoryTable;
use projector::history::anchor::Anchor;
use projector::history::fill::{Purpose, fill};
use projector::history::pace::Pace;
use projector::history::source::{Source, Target};
use projector::ident::{Ident, QualifiedName};
use projector::migrate;
use projector::redact::Redactor;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestCaseError, TestError, TestRunner};
use serde_json::{Map, Value as Json, json};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::pg::settings;
use crate::support::cluster::Cluster;

/// A column that made-up definitions choose from.
struct Choice {
    name: &'static str,
    /// What it may be declared as. Where that is `not null` it is not `set`, which may be to null.
    declared: &'static [&'static str],
    /// What is set.
    value: &'static str,
    /// Operations besides `set`, with what they take.
    others: &'static [(&'static str, &'static str)],
}

const CHOICES: &[Choice] = &[
    Choice {
        name: "n",
        declared: &["bigint", "bigint default 5", "bigint not null default 0"],
        value: "payload.n",
        others: &[("add", "payload.n"), ("min", "payload.n"), ("max", "payload.n")],
    },
    Choice {
        name: "i",
        declared: &["int", "int not null default 7"],
        value: "payload.n",
        others: &[("add", "payload.n"), ("max", "payload.n"), ("min", "version")],
    },
    Choice {
        name: "m",
        declared: &["numeric(20, 3)", "numeric not null default 0.5"],
        value: "payload.m",
        others: &[("add", "payload.m"), ("min", "payload.m"), ("max", "payload.m")],
    },
    Choice {
        name: "f",
        declared: &["double precision", "float8 not null default 1.5"],
        value: "payload.f",
        others: &[("add", "payload.f"), ("min", "payload.f"), ("max", "payload.f")],
    },
    Choice {
        name: "t",
        declared: &["text", "text default 'nothing'"],
        value: "payload.t",
        others: &[("set_once", "payload.t")],
    },
    Choice {
        name: "at",
        declared: &["timestamptz"],
        value: "payload.at",
        others: &[("set_once", "recorded_at"), ("min", "payload.at"), ("max", "recorded_at")],
    },
    Choice {
        name: "day",
        declared: &["date"],
        value: "payload.at",
        others: &[("set_once", "payload.at"), ("min", "payload.at"), ("max", "payload.at")],
    },
    Choice {
        name: "o",
        declared: &["jsonb", "jsonb default '{\"z\": 1}'"],
        value: "payload.o",
        others: &[("merge", "payload.o"), ("set_once", "payload.o")],
    },
    Choice {
        name: "l",
        declared: &["jsonb", "jsonb not null default '[]'"],
        value: "payload.items",
        others: &[("append", "payload.o"), ("append", "payload.t")],
    },
    Choice {
        name: "ta",
        declared: &["text[]"],
        value: "payload.items",
        others: &[("append", "payload.t")],
    },
    Choice { name: "b", declared: &["boolean"], value: "payload.b", others: &[] },
    Choice { name: "u", declared: &["uuid"], value: "event_id", others: &[("set_once", "run_id")] },
];

/// What the rows of a made-up table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Run,
    Step,
    Bucket,
    Event,
}

#[derive(Clone, Debug)]
struct Shape {
    kind: Kind,
    /// Per column of [`CHOICES`]: which declaration, which operation besides `set`.
    columns: Vec<(usize, usize)>,
    rules: Vec<RuleShape>,
    has_lookups: bool,
    has_epoch: bool,
}

#[derive(Clone, Debug)]
struct RuleShape {
    events: usize,
    has_when: bool,
    has_foreach: bool,
    deletes: bool,
    /// Per column: 0 left alone, 1 set, 2 the column's other operation.
    operations: Vec<u8>,
}

const EVENTS: [&str; 4] = ["\"*\"", "\"a\"", "[\"a\", \"b\"]", "\"c\""];

fn shapes() -> impl Strategy<Value = Shape> {
    let kind =
        prop_oneof![Just(Kind::Run), Just(Kind::Step), Just(Kind::Bucket), Just(Kind::Event)];
    let columns = prop::collection::vec((0..3_usize, 0..3_usize), CHOICES.len());
    let operations = prop::collection::vec(0..3_u8, CHOICES.len());
    let rule = (0..EVENTS.len(), any::<bool>(), 0..4_u8, 0..8_u8, operations).prop_map(
        |(events, has_when, foreach, delete, operations)| RuleShape {
            events,
            has_when,
            has_foreach: foreach == 0,
            deletes: delete == 0,
            operations,
        },
    );
    let rules = prop::collection::vec(rule, 1..5);
    (kind, columns, rules, any::<bool>(), any::<bool>()).prop_map(
        |(kind, columns, rules, has_lookups, has_epoch)| Shape {
            kind,
            columns,
            rules,
            has_lookups,
            has_epoch,
        },
    )
}

impl Shape {
    /// The definition as a user would write it.
    fn text(&self, table: &str) -> String {
        let by_run = matches!(self.kind, Kind::Run | Kind::Step);
        let (has_epoch, has_lookups) = (self.has_epoch && by_run, self.has_lookups && by_run);
        let (key, own_columns) = match self.kind {
            Kind::Run => ("{ run_id = \"run_id\" }", "run_id = \"uuid\"\n"),
            Kind::Step => (
                "{ run_id = \"run_id\", step = \"payload.step\" }",
                "run_id = \"uuid\"\nstep = \"text\"\n",
            ),
            Kind::Bucket => ("{ bucket = \"payload.bucket || 'none'\" }", "bucket = \"text\"\n"),
            Kind::Event => (
                "{ run_id = \"run_id\", version = \"version\" }",
                "run_id = \"uuid\"\nversion = \"int\"\n",
            ),
        };
        let mut text = format!("table = \"{table}\"\nkey = {key}\n\n[columns]\n{own_columns}");
        let mut rules = String::new();
        for rule in &self.rules {
            self.rule(rule, by_run, &mut rules);
        }
        for (choice, &(declared, _)) in CHOICES.iter().zip(&self.columns) {
            // with a column of these types a table is built another way
            let is_used =
                [" ", "{"].iter().any(|it| rules.contains(&format!("{it}{} =", choice.name)));
            if !is_used && ["m", "day", "ta"].contains(&choice.name) {
                continue;
            }
            let declared = choice.declared[declared % choice.declared.len()];
            writeln!(text, "{} = \"{}\"", choice.name, declared.replace('"', "\\\"")).unwrap();
        }
        if has_epoch {
            text += "attempt = \"int\"\n";
        }
        if has_lookups {
            text += "first_t = \"text\"\nlast_n = \"text\"\n\n[lookup]\n";
            text += "first_t = { first = \"payload.t\" }\nlast_n = { last = \"payload.n\" }\n";
        }
        if has_epoch {
            text += "\n[epoch]\ncolumn = \"attempt\"\nvalue = \"payload.attempt\"\n";
            text += "keep = [\"n\", \"t\", \"l\"]\n";
        }
        text + &rules
    }

    fn rule(&self, rule: &RuleShape, by_run: bool, text: &mut String) {
        write!(text, "\n[[on]]\nevent = {}\n", EVENTS[rule.events]).unwrap();
        match (self.kind, rule.has_when) {
            (Kind::Step, true) if !rule.has_foreach => {
                *text += "when = \"payload.step && payload.b\"\n";
            }
            (Kind::Step, false) if !rule.has_foreach => *text += "when = \"payload.step\"\n",
            (_, true) => *text += "when = \"payload.b\"\n",
            _ => {}
        }
        if rule.has_foreach {
            *text += "foreach = \"payload.items\"\n";
            match self.kind {
                Kind::Step => *text += "key = { run_id = \"run_id\", step = \"item\" }\n",
                Kind::Bucket => *text += "key = { bucket = \"item\" }\n",
                Kind::Run | Kind::Event => {}
            }
        }
        if rule.deletes && by_run {
            *text += "delete = true\n";
            return;
        }
        let mut operations: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((choice, &(declared, other)), &operation) in
            CHOICES.iter().zip(&self.columns).zip(&rule.operations)
        {
            let declared = choice.declared[declared % choice.declared.len()];
            let is_not_null = declared.contains("not null");
            let (op, value) = match choice.others {
                [] => ("set", choice.value),
                others => others[other % others.len()],
            };
            // rows of many runs know no append and no merge, and no two meanings of one column
            let mixes = by_run || self.kind == Kind::Event;
            let (op, value) = match operation {
                0 => continue,
                1 if !is_not_null && (mixes || matches!(op, "append" | "merge")) => {
                    ("set", choice.value)
                }
                _ if !mixes && matches!(op, "append" | "merge") => continue,
                _ => (op, value),
            };
            operations.entry(op).or_default().push(format!("{} = \"{value}\"", choice.name));
        }
        if operations.is_empty() {
            operations.entry("set").or_default().push("b = \"payload.b\"".to_owned());
        }
        for (op, assignments) in operations {
            writeln!(text, "{op} = {{ {} }}", assignments.join(", ")).unwrap();
        }
    }
}

fn parse(text: &str) -> Arc<Definition> {
    let definition = definition::parse(Path::new("made_up.toml"), text);
    Arc::new(definition.unwrap_or_else(|problems| {
        panic!("{}\n{text}", problems.iter().map(Problem::render).collect::<String>())
    }))
}

/// An event that owns its texts.
#[derive(Clone, Debug)]
struct MadeUp {
    position: i64,
    run: u8,
    version: i32,
    kind: &'static str,
    payload: String,
}

impl MadeUp {
    fn event(&self) -> Event<'_> {
        let position = u64::try_from(self.position).unwrap();
        Event {
            position: self.position,
            project_id: Uuid::from_u64_pair(7, 7),
            run_id: Uuid::from_u64_pair(0, u64::from(self.run)),
            version: self.version,
            event_id: Uuid::from_u64_pair(1, position),
            kind: self.kind,
            payload: &self.payload,
            metadata: "{}",
            recorded_at: Timestamp(1_767_225_600_000_000 + self.position * 3_600_000_000),
        }
    }
}

fn payloads() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just(json!(null)),
        Just(json!("a")),
        Just(json!("it's \"quoted\" \\ {x, y}")),
        Just(json!("🦀 مرحبا")),
        Just(json!("")),
    ];
    let items = prop::collection::vec(prop::sample::select(vec!["s1", "s2", "x,y"]), 0..3);
    let object = prop::option::of((0..3_u8, 0..9_u8));
    let numbers = (prop::option::of(-5..9_i64), prop::option::of(-9..9_i64), -9..9_i32);
    let choices = (prop::option::of(0..3_u8), prop::option::of(0..2_u8), prop::option::of(0..3_u8));
    (numbers, text, object, items, choices, any::<Option<bool>>(), 0..5_i64).prop_map(
        |((n, m, f), text, object, items, (step, bucket, attempt), b, at)| {
            let mut payload = json!({
                "n": n, "m": m.map(|it| it as f64 * 0.25), "f": f64::from(f) * 0.5,
                "items": items, "b": b,
                "at": format!("2026-03-{:02}T10:00:00.5+02:00", 10 + at),
            });
            let members = payload.as_object_mut().unwrap();
            if !text.is_null() || at == 0 {
                members.insert("t".to_owned(), text);
            }
            if let Some((key, value)) = object {
                members.insert("o".to_owned(), json!({ format!("k{key}"): value }));
            }
            if let Some(step) = step {
                members.insert("step".to_owned(), json!(format!("s{step}")));
            }
            if let Some(bucket) = bucket {
                members.insert("bucket".to_owned(), json!(format!("s{bucket}")));
            }
            if let Some(attempt) = attempt {
                members.insert("attempt".to_owned(), json!(attempt));
            }
            payload.to_string()
        },
    )
}

/// Events of three runs in the order of their commits: versions rise within a run, positions are in
/// any order.
fn histories() -> impl Strategy<Value = Vec<MadeUp>> {
    let event = (0..3_u8, prop::sample::select(vec!["a", "b", "c"]), payloads());
    prop::collection::vec(event, 0..24)
        .prop_flat_map(|events| {
            let positions: Vec<_> = (1..=i64::try_from(events.len()).unwrap()).collect();
            (Just(events), Just(positions).prop_shuffle())
        })
        .prop_map(|(events, positions)| {
            let mut versions = [0; 3];
            let made = events.into_iter().zip(positions).map(|((run, kind, payload), position)| {
                let version = &mut versions[usize::from(run)];
                *version += 1;
                MadeUp { position, run, version: *version, kind, payload }
            });
            made.collect()
        })
}

/// Where a history is cut: batches of 1 to 6 events, again and again.
fn splits() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..7_usize, 1..6)
}

fn split<'a, 'b>(
    mut events: &'b [Event<'a>],
    sizes: &'b [usize],
) -> impl Iterator<Item = &'b [Event<'a>]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let size = *sizes.next().unwrap();
        let (batch, rest) = events.split_at(size.min(events.len()));
        events = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

fn in_memory(
    definition: &Arc<Definition>,
    events: &[Event<'_>],
    sizes: &[usize],
) -> Vec<Map<String, Json>> {
    with_letters(definition, events, events, sizes).0
}

/// The rows that events make, and what is set aside of them; `history` is where lookups read.
fn with_letters(
    definition: &Arc<Definition>,
    events: &[Event<'_>],
    history: &[Event<'_>],
    sizes: &[usize],
) -> (Vec<Map<String, Json>>, Vec<Letter>) {
    let (mut scratch, redactor) = (Scratch::default(), Redactor::default());
    let mut table = MemoryTable::new(Arc::clone(definition));
    let mut fold = Fold::new(Arc::clone(definition));
    let mut letters = Vec::new();
    for batch in split(events, sizes) {
        for event in batch {
            fold.event(&Scope::new(*event, &mut scratch, &redactor)).unwrap();
        }
        let changes = fold.take();
        table.apply(&changes, history).unwrap();
        letters.extend(changes.letters);
    }
    (table.rows(), letters)
}

/// What makes an event one that some rules cannot apply.
const POISONS: [(&str, &str); 5] = [
    ("n", "\"many\""),
    ("items", "{\"not\": \"an array\"}"),
    ("at", "\"soon\""),
    ("o", "[1]"),
    ("attempt", "\"last\""),
];

/// Puts poison into some events.
fn strew(history: &mut [MadeUp], poison: &[(usize, usize)]) {
    for &(at, kind) in poison {
        let Some(event) = history.get_mut(at) else { continue };
        let (key, value) = POISONS[kind];
        let mut payload: Map<String, Json> = serde_json::from_str(&event.payload).unwrap();
        payload.insert(key.to_owned(), serde_json::from_str(value).unwrap());
        event.payload = Json::Object(payload).to_string();
    }
}

fn poisons() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0..24_usize, 0..POISONS.len()), 1..4)
}

/// Rows that can be compared: moments and numbers of one value are written in one way.
fn normal(definition: &Definition, rows: Vec<Map<String, Json>>) -> Vec<Map<String, Json>> {
    let mut rows: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let columns = definition.columns.iter().map(|column| {
                let value = row.get(column.name.as_str()).cloned().unwrap_or_default();
                let value = match (&column.ty, &value) {
                    (_, Json::Null) => Json::Null,
                    (ColumnType::Timestamptz, Json::String(text)) => {
                        let at: jiff::Timestamp = text.parse().unwrap();
                        at.as_microsecond().into()
                    }
                    (ColumnType::Numeric | ColumnType::Float8, number) => {
                        number.as_f64().map_or_else(|| number.clone(), Json::from)
                    }
                    _ => value,
                };
                (column.name.as_str().to_owned(), value)
            });
            columns.collect::<Map<_, _>>()
        })
        .collect();
    rows.sort_by_key(|row| {
        let key = definition.key_columns().map(|it| definition.columns[it].name.as_str());
        key.map(|it| row[it].to_string()).collect::<Vec<_>>()
    });
    rows
}

proptest! {
    #[test]
    fn any_split_and_any_interleaving_of_runs_folds_to_the_same_rows(
        shape in shapes(),
        history in histories(),
        sizes in splits(),
    ) {
        let definition = parse(&shape.text("made_up"));
        let events: Vec<_> = history.iter().map(MadeUp::event).collect();
        let mut by_run = events.clone();
        by_run.sort_by_key(|it| (it.run_id, it.version));

        let whole = cases::rows(&definition, &by_run, by_run.len().max(1), &Redactor::default());
        let parts = in_memory(&definition, &events, &sizes);

        prop_assert_eq!(parts, whole.unwrap(), "{}", shape.text("made_up"));
    }
}

proptest! {
    #[test]
    fn any_split_sets_the_same_events_aside(
        shape in shapes(),
        mut history in histories(),
        poison in poisons(),
        sizes in splits(),
    ) {
        let definition = parse(&shape.text("made_up"));
        strew(&mut history, &poison);
        let events: Vec<_> = history.iter().map(MadeUp::event).collect();

        let (rows, letters) = with_letters(&definition, &events, &events, &[events.len().max(1)]);
        let parts = with_letters(&definition, &events, &events, &sizes);
        prop_assert_eq!(&parts, &(rows.clone(), letters.clone()), "{}", shape.text("made_up"));

        // where an event has one row, an event set aside leaves nothing
        if shape.rules.iter().all(|it| !it.has_foreach) {
            let aside = |it: &Event<'_>| {
                letters.iter().any(|letter| (letter.run_id, letter.version) == (it.run_id, it.version))
            };
            let mut rest = events.clone();
            rest.retain(|it| !aside(it));
            let without = with_letters(&definition, &rest, &events, &sizes);
            prop_assert_eq!(without, (rows, Vec::new()), "{}", shape.text("made_up"));
        }
    }
}

const SUMS: &str = r#"
table = "sums"
key   = { run_id = "run_id" }
[columns]
run_id = "uuid"
total  = "int not null default 0"
seen   = "int not null default 0"
labels = "jsonb"
[[on]]
event = "*"
add   = { seen = "`1`" }
[[on]]
event = "a"
add   = { total = "payload.n" }
[[on]]
event   = "b"
foreach = "payload.runs"
key     = { run_id = "item.run" }
add     = { total = "item.n" }
"#;

fn of_run(run: u8, version: i32, kind: &'static str, payload: &str) -> MadeUp {
    let position = i64::from(run) * 100 + i64::from(version);
    MadeUp { position, run, version, kind, payload: payload.to_owned() }
}

#[test]
fn an_event_that_fails_leaves_its_row_untouched_and_the_others_go_on() {
    let definition = parse(SUMS);
    let (one, two) = (Uuid::from_u64_pair(0, 1), Uuid::from_u64_pair(0, 2));
    let shared = json!({"runs": [
        {"run": one, "n": 10}, {"run": one, "n": 1.5}, {"run": two, "n": 20}
    ]});
    let made = [
        of_run(1, 1, "a", r#"{"n": 1}"#),
        of_run(3, 1, "b", &shared.to_string()),
        of_run(1, 2, "a", r#"{"n": 2}"#),
        of_run(2, 1, "a", r#"{"n": 3}"#),
        of_run(3, 2, "b", r#"{"runs": [{"n": 1}]}"#),
    ];
    let events: Vec<_> = made.iter().map(MadeUp::event).collect();

    let (rows, letters) = with_letters(&definition, &events, &events, &[5]);

    let total = |run: Uuid| {
        let row = rows.iter().find(|it| it["run_id"] == run.to_string()).unwrap();
        (row["total"].as_i64().unwrap(), row["seen"].as_i64().unwrap())
    };
    // the first element would have fitted; the row takes all of an event or nothing
    assert_eq!(total(one), (1, 1));
    assert_eq!(total(two), (23, 1));
    // the event's own row
    assert_eq!(total(Uuid::from_u64_pair(0, 3)), (0, 2));
    let told: Vec<_> = letters
        .iter()
        .map(|it| (it.key.as_deref(), it.position, it.is_tried, it.rule.as_str()))
        .collect();
    let key = format!(r#"{{"run_id":"{one}"}}"#);
    assert_eq!(
        told,
        [
            (Some(key.as_str()), 301, true, "made_up.toml:19"),
            (Some(key.as_str()), 102, false, ""),
            (None, 302, true, "made_up.toml:15"),
        ]
    );
    assert_eq!(letters[0].error, "column `total`: expected integer, found the number 1.5");
    assert_eq!(
        letters[2].error,
        "column `run_id`: the key is null: the event does not say which row it means"
    );
}

#[test]
fn a_sum_that_only_a_batch_makes_too_large_is_no_failure() {
    let definition = parse(SUMS);
    let made = [2_000_000_000, 2_000_000_000, -1_900_000_000, -1_900_000_000];
    let made: Vec<_> = (1..)
        .zip(made)
        .map(|(version, n)| of_run(1, version, "a", &json!({ "n": n }).to_string()))
        .collect();
    let events: Vec<_> = made.iter().map(MadeUp::event).collect();
    let mut fold = Fold::new(Arc::clone(&definition));
    let mut scratch = Scratch::default();

    for event in &events {
        fold.event(&Scope::new(*event, &mut scratch, &Redactor::default())).unwrap();
    }

    // 2e9, then as much again, which the database may take or not; the rest is put together
    let changes = fold.take();
    assert_eq!((changes.passes, changes.letters.len()), (2, 0));
}

#[test]
fn parked_rows_are_known_by_what_was_written_down_and_have_a_limit() {
    let definition = parse(SUMS);
    let (mut scratch, redactor) = (Scratch::default(), Redactor::default());
    let event = |it: &MadeUp, fold: &mut Fold, scratch: &mut Scratch| {
        fold.event(&Scope::new(it.event(), scratch, &redactor)).map_err(|it| it.to_string())
    };
    let (bad, good) = (of_run(1, 1, "a", r#"{"n": "x"}"#), of_run(1, 2, "a", r#"{"n": 1}"#));
    let mut before = Fold::new(Arc::clone(&definition));
    event(&bad, &mut before, &mut scratch).unwrap();
    let key = before.take().letters.remove(0).key.unwrap();

    let mut fold = Fold::new(Arc::clone(&definition));
    fold.limit_parked(1);
    fold.park(Some(&key)).unwrap();
    event(&good, &mut fold, &mut scratch).unwrap();
    assert!(fold.changes().rows.is_empty() && !fold.changes().is_empty());
    let full = event(&of_run(2, 1, "a", r#"{"n": "x"}"#), &mut fold, &mut scratch).unwrap_err();
    assert!(full.contains("more than 1 rows or events are set aside"), "{full}");

    fold.unpark(&key).unwrap();
    assert_eq!(fold.parked(), 1);
    assert!(fold.park(Some(r#"{"run": 1}"#)).is_err());

    let paused =
        definition::parse(Path::new("made_up.toml"), &format!("on_error = \"pause\"{SUMS}"));
    let paused = paused.unwrap();
    assert_eq!(paused.hash, definition.hash);
    let mut fold = Fold::new(Arc::new(paused));
    assert!(event(&bad, &mut fold, &mut scratch).is_err());
    assert!(fold.changes().is_empty());
}

/// Writes made-up tables to a real database.
struct Database {
    cluster: Cluster,
    admin: Client,
    columns: Columns,
}

impl Database {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let mut admin = cluster.client().await;
        migrate::apply(&mut admin, &Ident::new("public").unwrap()).await.unwrap();
        let loaded = config::load(None, &Environment::default(), &[]).unwrap();
        let columns = loaded.config.source.columns;
        Self { cluster, admin, columns }
    }

    /// The rows of a table that was written batch by batch.
    async fn rows(
        &self,
        definition: &Arc<Definition>,
        events: &[Event<'_>],
        sizes: &[usize],
    ) -> Vec<Map<String, Json>> {
        let schema = Ident::new("public").unwrap();
        let tables = Tables::new(definition, &schema);
        let table = tables.generation(1).unwrap();
        let source = QualifiedName { schema: schema.clone(), name: Ident::new("made_up").unwrap() };
        self.admin
            .batch_execute(&format!(
                "set client_min_messages = warning;
                 drop table if exists {table}; drop table if exists {source};
                 create table {source} (like events including defaults);
                 create index on {source} (run_id, version);
                 {}",
                tables.create_generation(&table)
            ))
            .await
            .unwrap();
        for event in events {
            let insert = format!(
                "insert into {source} (position, project_id, run_id, version, event_id, type, payload, recorded_at)
                 values ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8)"
            );
            let Event {
                position,
                project_id,
                run_id,
                version,
                event_id,
                kind,
                payload,
                recorded_at,
                ..
            } = event;
            let values = [
                position as &(dyn tokio_postgres::types::ToSql + Sync),
                project_id,
                run_id,
                version,
                event_id,
                kind,
                payload,
                recorded_at,
            ];
            self.admin.execute(&insert, &values).await.unwrap();
        }
        let targets = [(Arc::clone(definition), table.clone())];
        let client = self.cluster.client().await;
        let mut writer = Writer::prepare(client, &targets, (&source, &self.columns)).await.unwrap();
        let (mut scratch, redactor) = (Scratch::default(), Redactor::default());
        let mut fold = Fold::new(Arc::clone(definition));
        for batch in split(events, sizes) {
            for event in batch {
                fold.event(&Scope::new(*event, &mut scratch, &redactor)).unwrap();
            }
            let part = Part { target: 0, changes: fold.take() };
            writer.write(&[part], &[]).await.unwrap_or_else(|error| panic!("{error:?}"));
        }
        self.all(&table).await
    }

    async fn all(&self, table: &QualifiedName) -> Vec<Map<String, Json>> {
        let sql = format!("select to_jsonb(stored) from {table} stored");
        let rows = self.admin.query(&sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, Json>(0).as_object().unwrap().clone()).collect()
    }

    /// The rows of a table that was built from the events that [`rows`](Self::rows) has left.
    async fn built(&self, definition: &Arc<Definition>) -> Vec<Map<String, Json>> {
        let config = config::load(None, &Environment::default(), &[]).unwrap().config;
        let schema = config.schema.clone();
        let source = Source {
            settings: settings(self.cluster.url()),
            events: QualifiedName { schema: schema.clone(), name: Ident::new("made_up").unwrap() },
            columns: self.columns.clone(),
            publication: config.source.publication,
            schema: schema.clone(),
            redactor: Arc::new(Redactor::default()),
            memory: 1,
            parked_limit: 1000,
            is_careful: false,
            pace: Pace::full(),
        };
        let slot = Ident::new(format!("built_{}", fastrand::u64(..))).unwrap();
        let (anchor, tape) = Anchor::take(&source, &slot).await.unwrap();
        let table = Tables::new(definition, &schema).generation(2).unwrap();
        let target = Target { definition: Arc::clone(definition), table: table.clone() };
        let cancel = CancellationToken::new();
        fill(&source, &anchor, &[target], Purpose::Serve, |_| {}, &cancel).await.unwrap();
        tape.finish().await.unwrap();
        self.all(&table).await
    }
}

#[test]
fn postgres_comes_to_the_same_rows_as_memory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(Database::start());
    let usual = Runs::default();
    // a case takes a hundred times what one in memory takes
    let runs = Runs { cases: usual.cases / 4, failure_persistence: None, ..usual };
    let mut runner = TestRunner::new(runs);

    let result = runner.run(&(shapes(), histories(), splits()), |(shape, history, sizes)| {
        let text = shape.text("made_up_rows");
        let definition = parse(&text);
        let events: Vec<_> = history.iter().map(MadeUp::event).collect();

        let memory = in_memory(&definition, &events, &sizes);
        let stored = runtime.block_on(database.rows(&definition, &events, &sizes));

        let built = runtime.block_on(database.built(&definition));

        let (stored, memory) = (normal(&definition, stored), normal(&definition, memory));
        let built = normal(&definition, built);
        if stored == memory && built == memory {
            return Ok(());
        }
        let difference =
            format!("{text}\nPostgres {stored:#?}\nmemory {memory:#?}\nbuilt {built:#?}");
        Err(TestCaseError::fail(difference))
    });

    if let Err(TestError::Fail(reason, (_, history, sizes))) = result {
        panic!("{reason}\n{history:#?}\n{sizes:?}");
    }
}
