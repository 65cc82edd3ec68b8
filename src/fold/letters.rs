//! Events that could not be applied, and the rows that wait for them.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::definition::{Column, Definition, Value, parse_time, time_text};
use crate::event::{Event, Timestamp};
use crate::fold::cell::Kind;
use crate::fold::rows::Changes;
use crate::lsn::Lsn;
use crate::redact::Redactor;

/// An event that was not applied to a row: a rule failed on it, or one of the row's events before it
/// had failed. A row of `projector.dead_letters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The row's key as a JSON object; `None` where no rule could tell which row it is.
    pub key: Option<String>,
    /// Where the event's transaction ends in the log, or what comes next to that.
    pub lsn: Lsn,
    /// The event's position.
    pub position: i64,
    /// Its run.
    pub run_id: Uuid,
    /// Its version.
    pub version: i32,
    /// Its type.
    pub kind: String,
    /// `file:line` of the rule.
    pub rule: String,
    /// What was wrong.
    pub error: String,
    /// Whether it was tried, and not only kept back for an event before it.
    pub is_tried: bool,
    /// Its payload as JSON text, redacted.
    pub payload: String,
}

/// The error of an event that was not tried.
pub const WAITS: &str = "not tried: an earlier event of this row is set aside";

impl Letter {
    /// An event that is set aside. Its payload is kept to be looked at, and without its secrets: to be
    /// tried again, it is read from history.
    pub fn new(event: &Event<'_>, key: Option<String>, lsn: Lsn, redactor: &Redactor) -> Self {
        Self {
            key,
            lsn,
            position: event.position,
            run_id: event.run_id,
            version: event.version,
            kind: event.kind.to_owned(),
            rule: String::new(),
            error: WAITS.to_owned(),
            is_tried: false,
            payload: redactor.apply(event.payload).into_owned(),
        }
    }

    /// The same, tried in vain by the rule at `line`.
    #[must_use]
    pub fn failed(self, definition: &Definition, line: usize, error: String) -> Self {
        let rule = format!("{}:{line}", definition.file.display());
        Self { rule, error, is_tried: true, ..self }
    }

    /// About how much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, String::len);
        let texts = self.kind.len() + self.rule.len() + self.error.len() + self.payload.len();
        size_of::<Self>() + key + texts
    }
}

/// A row's key as a JSON object: how letters name their rows. Numbers and booleans are themselves,
/// all else is text.
pub fn key_json(definition: &Definition, key: &[Value<'_>]) -> String {
    let columns = definition.key_columns().filter_map(|it| definition.columns.get(it));
    let member = |(column, value): (&Column, &Value<'_>)| {
        let value = match value {
            Value::Null => Json::Null,
            Value::Bool(it) => Json::from(*it),
            Value::Int(it) => Json::from(*it),
            Value::Float(it) => Json::from(*it),
            Value::Text(it) => Json::from(it.as_ref()),
            Value::Uuid(it) => Json::from(it.to_string()),
            Value::Time(it) => Json::from(time_text(*it)),
        };
        (column.name.as_str().to_owned(), value)
    };
    Json::Object(columns.zip(key).map(member).collect()).to_string()
}

/// The key of a pending row as a JSON object.
pub fn key_of(definition: &Definition, changes: &Changes, row: usize) -> String {
    let columns = definition.key_columns();
    let key: Vec<_> = columns.map(|it| changes.texts.value(changes.cell(row, it))).collect();
    key_json(definition, &key)
}

/// A key that was kept as JSON does not belong to this definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is not a key of `{projection}`: expected an object with {expected}")]
pub struct BadKey {
    /// The key.
    pub key: String,
    /// The projection.
    pub projection: String,
    /// The columns of its key.
    pub expected: String,
}

/// Reads a key as a letter has it: the values of the key columns.
///
/// # Errors
/// When it is not a key of this definition.
pub fn parse_key(definition: &Definition, json: &str) -> Result<Box<[Value<'static>]>, BadKey> {
    let object: Map<String, Json> = serde_json::from_str(json).unwrap_or_default();
    let columns: Vec<_> =
        definition.key_columns().filter_map(|it| definition.columns.get(it)).collect();
    let value = |column: &&Column| {
        let value = object.get(column.name.as_str())?;
        Some(match Kind::of(&column.ty) {
            Kind::Bool => Value::Bool(value.as_bool()?),
            Kind::Int => Value::Int(value.as_i64()?),
            Kind::Float => Value::Float(value.as_f64()?),
            Kind::Uuid => Value::Uuid(value.as_str()?.parse().ok()?),
            Kind::Time => Value::Time(moment(value.as_str()?)?),
            Kind::Text => Value::Text(Cow::Owned(value.as_str()?.to_owned())),
        })
    };
    let key: Option<Box<[_]>> = columns.iter().map(value).collect();
    match key {
        Some(key) if object.len() == columns.len() => Ok(key),
        _ => Err(BadKey {
            key: json.to_owned(),
            projection: definition.name.clone(),
            expected: columns.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// Reads what [`time_text`] wrote.
fn moment(text: &str) -> Option<Timestamp> {
    match text.strip_suffix(" µs") {
        Some(micros) => micros.parse().ok().map(Timestamp),
        None => parse_time(text),
    }
}
