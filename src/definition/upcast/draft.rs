//! `[[upcast]]` as it is written.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::definition::draft::{
    Entry, Text, Value, entries, text_of, texts, unknown_key, wrong_kind,
};
use crate::definition::problem::Source;

/// A whole number and where it stands.
pub(in crate::definition) type Number = (i64, Range<usize>);

#[derive(Debug, Default)]
pub(in crate::definition) struct DraftUpcast {
    pub(in crate::definition) span: Range<usize>,
    pub(in crate::definition) events: Vec<Text>,
    pub(in crate::definition) from: Option<Number>,
    pub(in crate::definition) before: Option<Number>,
    pub(in crate::definition) version: Option<Text>,
    pub(in crate::definition) rename: Vec<Entry>,
    pub(in crate::definition) set: Vec<Entry>,
    pub(in crate::definition) default: Vec<Entry>,
    pub(in crate::definition) remove: Vec<Text>,
}

const KEYS: &[&str] = &["event", "from", "before", "version", "rename", "set", "default", "remove"];

pub(in crate::definition) fn read(source: &mut Source<'_>, value: &Value<'_>) -> Vec<DraftUpcast> {
    let expected = "upcasts are written under `[[upcast]]`";
    let DeValue::Array(tables) = value.get_ref() else {
        wrong_kind(source, value, expected);
        return Vec::new();
    };
    let mut upcasts = Vec::new();
    for table in tables {
        match table.get_ref() {
            DeValue::Table(entries) => upcasts.push(upcast(source, table.span(), entries)),
            _ => {
                wrong_kind(source, table, expected);
                continue;
            }
        }
        // what is shared is put at the end of a definition's text, where brackets cannot go on
        if source.text.get(table.span()).is_none_or(|it| !it.starts_with("[[")) {
            let message = "an upcast in brackets";
            source.problem(&table.span(), message, "expected it under `[[upcast]]`", None);
        }
    }
    upcasts
}

fn upcast(source: &mut Source<'_>, span: Range<usize>, table: &DeTable<'_>) -> DraftUpcast {
    let mut upcast = DraftUpcast { span, ..DraftUpcast::default() };
    for (name, value) in table {
        let expected = "{ name = \"expression\" }";
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("event", DeValue::Array(_)) => upcast.events = texts(source, value),
            ("event", _) => upcast.events = text_of(source, value).into_iter().collect(),
            ("from", _) => upcast.from = number(source, value),
            ("before", _) => upcast.before = number(source, value),
            ("version", _) => upcast.version = text_of(source, value),
            ("rename", _) => upcast.rename = entries(source, value, "{ new = \"payload.old\" }"),
            ("set", _) => upcast.set = entries(source, value, expected),
            ("default", _) => upcast.default = entries(source, value, expected),
            ("remove", _) => upcast.remove = texts(source, value),
            (other, _) => unknown_key(source, &name.span(), other, KEYS),
        }
    }
    upcast
}

fn number(source: &mut Source<'_>, value: &Value<'_>) -> Option<Number> {
    let number = match value.get_ref() {
        DeValue::Integer(it) => i64::from_str_radix(it.as_str(), it.radix()).ok(),
        _ => None,
    };
    if number.is_none() {
        wrong_kind(source, value, "a schema version: a whole number");
    }
    Some((number?, value.span()))
}
