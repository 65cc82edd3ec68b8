//! A file as it is written: TOML with the known keys sorted out and each text with its place.
//! What it means is decided in `check`.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::model::Op;
use super::problem::Source;
use super::upcast::draft::{self as upcast, DraftUpcast};
use crate::config::nearest;

/// A text and where it stands, quotes included.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) value: String,
    pub(super) span: Range<usize>,
}

/// Name and value of an entry.
pub(super) type Entry = (Text, Text);

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) table: Option<Text>,
    pub(super) key: Vec<Entry>,
    pub(super) tenant: Option<Text>,
    pub(super) lane: Option<Text>,
    pub(super) on_error: Option<Text>,
    pub(super) columns: Vec<Entry>,
    pub(super) indexes: Vec<Text>,
    pub(super) rules: Vec<DraftRule>,
    pub(super) lookups: Vec<DraftLookup>,
    pub(super) epoch: Option<DraftEpoch>,
    pub(super) upcasts: Vec<DraftUpcast>,
    /// Whether there is nothing in the file but upcasts.
    pub(super) has_upcasts_alone: bool,
    pub(super) handler: Option<DraftHandler>,
    pub(super) sql: Option<Text>,
    pub(super) events: Option<Vec<Text>>,
}

/// What `[handler]` says of the code.
#[derive(Debug)]
pub(super) struct DraftHandler {
    pub(super) span: Range<usize>,
    pub(super) name: Option<Text>,
    /// One for each operation that the code uses.
    pub(super) rules: Vec<DraftRule>,
}

#[derive(Debug, Default)]
pub(super) struct DraftRule {
    pub(super) span: Range<usize>,
    pub(super) events: Vec<Text>,
    pub(super) when: Option<Text>,
    pub(super) foreach: Option<Text>,
    pub(super) key: Option<(Range<usize>, Vec<Entry>)>,
    pub(super) operations: Vec<DraftOperation>,
    pub(super) delete: Option<Range<usize>>,
}

#[derive(Debug)]
pub(super) struct DraftOperation {
    pub(super) op: Op,
    pub(super) column: Text,
    pub(super) value: Text,
}

#[derive(Debug)]
pub(super) struct DraftLookup {
    pub(super) column: Text,
    pub(super) which: Text,
    pub(super) path: Text,
}

#[derive(Debug)]
pub(super) struct DraftEpoch {
    pub(super) column: Text,
    pub(super) value: Text,
    pub(super) keep: Vec<Text>,
}

const TOP_KEYS: &[&str] = &[
    "kind", "table", "key", "tenant", "lane", "on_error", "indexes", "columns", "on", "handler",
    "sql", "events", "lookup", "epoch", "upcast",
];
const RULE_KEYS: &[&str] = &[
    "event", "when", "foreach", "key", "set", "set_once", "add", "min", "max", "append", "merge",
    "delete",
];
const HANDLER_KEYS: &[&str] =
    &["name", "events", "set", "set_once", "add", "min", "max", "append", "merge", "delete"];
const OPERATIONS: &str = "set, set_once, add, min, max, append, merge, delete";

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Reads a file; what is wrong with its shape is noted in `source`.
pub(super) fn read(source: &mut Source<'_>) -> Draft {
    let text = source.text;
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or_default();
        source.problem(&span, format!("not TOML: {}", first_line(error.message())), "here", None);
    }
    let mut draft = Draft::default();
    if !errors.is_empty() {
        return draft;
    }
    let mut keys = root.get_ref().iter().map(|it| it.0.get_ref().as_ref());
    draft.has_upcasts_alone = !root.get_ref().is_empty() && keys.all(|it| it == "upcast");
    for (name, value) in root.get_ref() {
        match name.get_ref().as_ref() {
            "kind" => kind(source, value),
            "table" => draft.table = text_of(source, value),
            "tenant" => draft.tenant = text_of(source, value),
            "lane" => draft.lane = text_of(source, value),
            "on_error" => draft.on_error = text_of(source, value),
            "key" if value.get_ref().is_array() => draft.key = names(source, value),
            "key" => draft.key = entries(source, value, "{ column = \"expression\" }"),
            "columns" => draft.columns = entries(source, value, "a table of column = \"type\""),
            "indexes" => draft.indexes = texts(source, value),
            "on" => draft.rules = rules(source, value),
            "sql" => draft.sql = text_of(source, value),
            "events" => draft.events = Some(texts(source, value)),
            "handler" => draft.handler = handler(source, value),
            "lookup" => draft.lookups = lookups(source, value),
            "epoch" => draft.epoch = epoch(source, value),
            "upcast" => draft.upcasts = upcast::read(source, value),
            other => unknown_key(source, &name.span(), other, TOP_KEYS),
        }
    }
    draft
}

/// What a file defines; one that defines a broadcast is not read here.
fn kind(source: &mut Source<'_>, value: &Value<'_>) {
    const KINDS: [&str; 2] = ["projection", "broadcast"];
    let Some(text) = text_of(source, value) else { return };
    if text.value != KINDS[0] {
        let hint = nearest(&text.value, KINDS).map(|near| format!("did you mean `{near}`?"));
        let message = format!("unknown kind `{}`", text.value);
        source.problem(&text.span, message, format!("one of: {}", KINDS.join(", ")), hint);
    }
}

fn rules(source: &mut Source<'_>, value: &Value<'_>) -> Vec<DraftRule> {
    let DeValue::Array(tables) = value.get_ref() else {
        wrong_kind(source, value, "rules are written under `[[on]]`");
        return Vec::new();
    };
    let mut rules = Vec::new();
    for table in tables {
        match table.get_ref() {
            DeValue::Table(entries) => rules.push(rule(source, table.span(), entries)),
            _ => wrong_kind(source, table, "rules are written under `[[on]]`"),
        }
    }
    rules
}

fn rule(source: &mut Source<'_>, span: Range<usize>, table: &DeTable<'_>) -> DraftRule {
    let mut rule = DraftRule { span, ..DraftRule::default() };
    for (name, value) in table {
        let name_text = name.get_ref().as_ref();
        if let Some(op) = Op::ALL.into_iter().find(|it| it.name() == name_text) {
            let operations = entries(source, value, "{ column = \"expression\" }");
            let operation = |(column, value)| DraftOperation { op, column, value };
            rule.operations.extend(operations.into_iter().map(operation));
            continue;
        }
        match (name_text, value.get_ref()) {
            ("event", DeValue::Array(_)) => rule.events = texts(source, value),
            ("event", _) => rule.events = text_of(source, value).into_iter().collect(),
            ("when", _) => rule.when = text_of(source, value),
            ("foreach", _) => rule.foreach = text_of(source, value),
            ("key", _) => {
                let parts = entries(source, value, "{ column = \"expression\" }");
                rule.key = Some((name.span(), parts));
            }
            ("delete", DeValue::Boolean(true)) => rule.delete = Some(name.span()),
            ("delete", _) => wrong_kind(source, value, "`true`, or leave `delete` out"),
            (other, DeValue::Table(_)) => {
                let message = format!("unknown operation `{other}`");
                let hint = operation_hint(other);
                source.problem(&name.span(), message, format!("one of: {OPERATIONS}"), hint);
            }
            (other, _) => unknown_key(source, &name.span(), other, RULE_KEYS),
        }
    }
    rule
}

/// Code that is to be checked as rules are: a rule stands for each operation that it may use, of
/// values that nobody knows.
fn handler(source: &mut Source<'_>, value: &Value<'_>) -> Option<DraftHandler> {
    let DeValue::Table(table) = value.get_ref() else {
        wrong_kind(source, value, "a table with `name` and the operations that the code uses");
        return None;
    };
    let span = value.span();
    let mut handler = DraftHandler { span: span.clone(), name: None, rules: Vec::new() };
    let unknown = || Text { value: "payload".to_owned(), span: span.clone() };
    let rule = || DraftRule { span: span.clone(), when: Some(unknown()), ..DraftRule::default() };
    let mut events = Vec::new();
    for (name, value) in table {
        let name_text = name.get_ref().as_ref();
        if let Some(op) = Op::ALL.into_iter().find(|it| it.name() == name_text) {
            for column in texts(source, value) {
                let operations = vec![DraftOperation { op, column, value: unknown() }];
                handler.rules.push(DraftRule { operations, ..rule() });
            }
            continue;
        }
        match (name_text, value.get_ref()) {
            ("name", _) => handler.name = text_of(source, value),
            ("events", _) => events = texts(source, value),
            ("delete", DeValue::Boolean(true)) => {
                handler.rules.push(DraftRule { delete: Some(name.span()), ..rule() });
            }
            ("delete", _) => wrong_kind(source, value, "`true`, or leave `delete` out"),
            (other, _) => unknown_key(source, &name.span(), other, HANDLER_KEYS),
        }
    }
    if events.is_empty() {
        events.push(Text { value: "*".to_owned(), span: span.clone() });
    }
    for rule in &mut handler.rules {
        rule.events.clone_from(&events);
    }
    Some(handler)
}

/// People come with other words for the same.
fn operation_hint(name: &str) -> Option<String> {
    let known = match name {
        "incr" | "increment" | "count" | "sum" | "inc" => Some("add"),
        "insert" | "upsert" | "update" | "replace" => Some("set"),
        "push" | "concat" => Some("append"),
        "remove" => Some("delete"),
        _ => nearest(name, RULE_KEYS.iter().copied()),
    };
    known.map(|it| format!("did you mean `{it}`?"))
}

fn lookups(source: &mut Source<'_>, value: &Value<'_>) -> Vec<DraftLookup> {
    let expected = "{ first = \"payload.…\" } or { last = \"payload.…\" }";
    let DeValue::Table(table) = value.get_ref() else {
        wrong_kind(source, value, "a table of column = { first = \"payload.…\" }");
        return Vec::new();
    };
    let mut lookups = Vec::new();
    for (name, value) in table {
        let parts = entries(source, value, expected);
        match <[Entry; 1]>::try_from(parts) {
            Ok([(which, path)]) => {
                lookups.push(DraftLookup { column: spanned_name(name), which, path });
            }
            Err(parts) if parts.is_empty() => {}
            Err(_) => source.problem(&value.span(), "a lookup is one path", expected, None),
        }
    }
    lookups
}

fn epoch(source: &mut Source<'_>, value: &Value<'_>) -> Option<DraftEpoch> {
    let DeValue::Table(table) = value.get_ref() else {
        wrong_kind(source, value, "a table with `column`, `value` and `keep`");
        return None;
    };
    let (mut column, mut rank, mut keep) = (None, None, Vec::new());
    for (name, value) in table {
        match name.get_ref().as_ref() {
            "column" => column = text_of(source, value),
            "value" => rank = text_of(source, value),
            "keep" => keep = texts(source, value),
            other => unknown_key(source, &name.span(), other, &["column", "value", "keep"]),
        }
    }
    let (Some(column), Some(rank)) = (column, rank) else {
        let hint = "column = \"attempt\", value = \"payload.attempt\"".to_owned();
        source.problem(&value.span(), "an epoch needs `column` and `value`", "", Some(hint));
        return None;
    };
    Some(DraftEpoch { column, value: rank, keep })
}

pub(super) fn entries(source: &mut Source<'_>, value: &Value<'_>, expected: &str) -> Vec<Entry> {
    let DeValue::Table(table) = value.get_ref() else {
        wrong_kind(source, value, expected);
        return Vec::new();
    };
    let mut entries = Vec::new();
    for (name, value) in table {
        if let Some(value) = text_of(source, value) {
            entries.push((spanned_name(name), value));
        }
    }
    entries
}

/// The key of a statement's table: which columns, and nothing to fill them with.
fn names(source: &mut Source<'_>, value: &Value<'_>) -> Vec<Entry> {
    let nothing = |name: Text| {
        let span = name.span.clone();
        (name, Text { value: "payload".to_owned(), span })
    };
    texts(source, value).into_iter().map(nothing).collect()
}

pub(super) fn texts(source: &mut Source<'_>, value: &Value<'_>) -> Vec<Text> {
    match value.get_ref() {
        DeValue::Array(values) => values.iter().filter_map(|it| text_of(source, it)).collect(),
        _ => {
            wrong_kind(source, value, "a list of texts in quotes");
            Vec::new()
        }
    }
}

pub(super) fn text_of(source: &mut Source<'_>, value: &Value<'_>) -> Option<Text> {
    match value.get_ref() {
        DeValue::String(text) => Some(Text { value: text.to_string(), span: value.span() }),
        DeValue::Integer(number) => {
            let hint = format!("an expression is a text; the number is \"`{number}`\"");
            source.problem(&value.span(), "expected a text, found an integer", "", Some(hint));
            None
        }
        _ => {
            wrong_kind(source, value, "a text in quotes");
            None
        }
    }
}

fn spanned_name(name: &Spanned<std::borrow::Cow<'_, str>>) -> Text {
    Text { value: name.get_ref().to_string(), span: name.span() }
}

pub(super) fn wrong_kind(source: &mut Source<'_>, value: &Value<'_>, expected: &str) {
    let found = match value.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    source.problem(&value.span(), format!("found {found}"), format!("expected {expected}"), None);
}

pub(super) fn unknown_key(
    source: &mut Source<'_>,
    span: &Range<usize>,
    name: &str,
    known: &[&str],
) {
    let hint = nearest(name, known.iter().copied());
    let hint = hint.map(|near| format!("did you mean `{near}`?"));
    let label = format!("one of: {}", known.join(", "));
    source.problem(span, format!("unknown key `{name}`"), label, hint);
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
