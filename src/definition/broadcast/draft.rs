//! A broadcast as it is written.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::definition::draft::{
    Entry, Text, Value, entries, text_of, texts, unknown_key, wrong_kind,
};
use crate::definition::problem::Source;
use crate::definition::upcast::draft::{self as upcast, DraftUpcast};

#[derive(Debug, Default)]
pub(super) struct DraftBroadcast {
    pub(super) topic: Option<Text>,
    pub(super) event: Option<Text>,
    pub(super) private: Option<bool>,
    pub(super) rules: Vec<DraftLine>,
    pub(super) upcasts: Vec<DraftUpcast>,
}

#[derive(Debug, Default)]
pub(super) struct DraftLine {
    pub(super) span: Range<usize>,
    pub(super) events: Vec<Text>,
    pub(super) when: Option<Text>,
    pub(super) payload: Vec<Entry>,
}

const TOP_KEYS: &[&str] = &["kind", "topic", "event", "private", "on", "upcast"];
const RULE_KEYS: &[&str] = &["event", "when", "payload"];

/// Reads a file; what is wrong with its shape is noted in `source`.
pub(super) fn read(source: &mut Source<'_>) -> DraftBroadcast {
    let mut draft = DraftBroadcast::default();
    // a file that is no TOML is no broadcast, and has been told of
    let Ok(root) = DeTable::parse(source.text) else { return draft };
    for (name, value) in root.get_ref() {
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("kind", _) => {}
            ("topic", _) => draft.topic = text_of(source, value),
            ("event", _) => draft.event = text_of(source, value),
            ("private", DeValue::Boolean(it)) => draft.private = Some(*it),
            ("private", _) => wrong_kind(source, value, "true or false"),
            ("on", _) => draft.rules = rules(source, value),
            ("upcast", _) => draft.upcasts = upcast::read(source, value),
            (other, _) => unknown_key(source, &name.span(), other, TOP_KEYS),
        }
    }
    draft
}

fn rules(source: &mut Source<'_>, value: &Value<'_>) -> Vec<DraftLine> {
    let expected = "rules are written under `[[on]]`";
    let DeValue::Array(tables) = value.get_ref() else {
        wrong_kind(source, value, expected);
        return Vec::new();
    };
    let mut rules = Vec::new();
    for table in tables {
        match table.get_ref() {
            DeValue::Table(entries) => rules.push(rule(source, table.span(), entries)),
            _ => wrong_kind(source, table, expected),
        }
    }
    rules
}

fn rule(source: &mut Source<'_>, span: Range<usize>, table: &DeTable<'_>) -> DraftLine {
    let mut rule = DraftLine { span, ..DraftLine::default() };
    for (name, value) in table {
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("event", DeValue::Array(_)) => rule.events = texts(source, value),
            ("event", _) => rule.events = text_of(source, value).into_iter().collect(),
            ("when", _) => rule.when = text_of(source, value),
            ("payload", _) => rule.payload = entries(source, value, "{ name = \"expression\" }"),
            (other, _) => unknown_key(source, &name.span(), other, RULE_KEYS),
        }
    }
    rule
}
