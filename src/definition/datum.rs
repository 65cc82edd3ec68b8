//! What an expression gives, and what a column takes.

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

use crate::event::Timestamp;
use crate::redact::Redactor;

/// The result of an expression. Texts borrow from the event or the expression where they can.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum<'a> {
    /// JSON null, or a path that leads nowhere.
    Null,
    /// A JSON boolean.
    Bool(bool),
    /// An integer of the envelope.
    Int(i64),
    /// A JSON number, as its text: of any size and precision.
    Number(Cow<'a, str>),
    /// A JSON string, without quotes and escapes.
    Text(Cow<'a, str>),
    /// A JSON array or object, as its text.
    Json(Cow<'a, str>),
    /// An id of the envelope.
    Uuid(Uuid),
    /// A moment of the envelope.
    Time(Timestamp),
}

/// What a column takes: a [`Datum`] after [`ColumnType::fit`](super::ColumnType::fit).
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL null.
    Null,
    /// `boolean`.
    Bool(bool),
    /// `smallint`, `integer` and `bigint`, within the column's range.
    Int(i64),
    /// `real` and `double precision`, finite.
    Float(f64),
    /// `text`, and the text form of `json`, `jsonb`, `numeric`, `date` and of types known only by
    /// name.
    Text(Cow<'a, str>),
    /// `uuid`.
    Uuid(Uuid),
    /// `timestamptz`.
    Time(Timestamp),
}

impl<'a> From<&'a str> for Datum<'a> {
    fn from(it: &'a str) -> Self {
        Self::Text(Cow::Borrowed(it))
    }
}

impl From<String> for Datum<'_> {
    fn from(it: String) -> Self {
        Self::Text(Cow::Owned(it))
    }
}

impl From<bool> for Datum<'_> {
    fn from(it: bool) -> Self {
        Self::Bool(it)
    }
}

impl From<i32> for Datum<'_> {
    fn from(it: i32) -> Self {
        Self::Int(it.into())
    }
}

impl From<i64> for Datum<'_> {
    fn from(it: i64) -> Self {
        Self::Int(it)
    }
}

impl From<f64> for Datum<'_> {
    fn from(it: f64) -> Self {
        Self::Number(Cow::Owned(it.to_string()))
    }
}

impl From<Uuid> for Datum<'_> {
    fn from(it: Uuid) -> Self {
        Self::Uuid(it)
    }
}

impl From<Timestamp> for Datum<'_> {
    fn from(it: Timestamp) -> Self {
        Self::Time(it)
    }
}

impl From<serde_json::Value> for Datum<'_> {
    fn from(it: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match it {
            Json::Null => Self::Null,
            Json::Bool(it) => Self::Bool(it),
            Json::Number(it) => Self::Number(Cow::Owned(it.to_string())),
            Json::String(it) => Self::Text(Cow::Owned(it)),
            it @ (Json::Array(_) | Json::Object(_)) => Self::Json(Cow::Owned(it.to_string())),
        }
    }
}

impl<'a, T: Into<Datum<'a>>> From<Option<T>> for Datum<'a> {
    fn from(it: Option<T>) -> Self {
        it.map_or(Self::Null, Into::into)
    }
}

impl Value<'_> {
    /// The same, independent of what it was borrowed from.
    pub fn to_static(&self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(it) => Value::Bool(*it),
            Self::Int(it) => Value::Int(*it),
            Self::Float(it) => Value::Float(*it),
            Self::Text(it) => Value::Text(Cow::Owned(it.as_ref().to_owned())),
            Self::Uuid(it) => Value::Uuid(*it),
            Self::Time(it) => Value::Time(*it),
        }
    }
}

impl<'a> Datum<'a> {
    /// The datum of a JSON value.
    pub fn of(json: &'a serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(it) => Self::Bool(*it),
            Json::Number(it) => Self::Number(it.to_string().into()),
            Json::String(it) => Self::Text(it.as_str().into()),
            it => Self::Json(it.to_string().into()),
        }
    }
}

impl Datum<'_> {
    /// Whether it is [`Datum::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// `JMESPath`'s truth: null, false and whatever is empty are false, all else is true.
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(it) => *it,
            Self::Text(it) => !it.is_empty(),
            Self::Json(it) => !is_hollow(it),
            Self::Int(_) | Self::Number(_) | Self::Uuid(_) | Self::Time(_) => true,
        }
    }

    /// As JSON text.
    pub fn to_json(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(it) => it.to_string(),
            Self::Int(it) => it.to_string(),
            Self::Number(it) | Self::Json(it) => it.as_ref().to_owned(),
            Self::Text(it) => quoted(it),
            Self::Uuid(it) => quoted(&it.to_string()),
            Self::Time(it) => quoted(&super::time::text(*it)),
        }
    }

    /// The kind in the words of an error: `text`, `a number` …
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Number(_) => "the number",
            Self::Text(_) => "the text",
            Self::Json(it) if it.starts_with('[') => "the array",
            Self::Json(_) => "the object",
            Self::Uuid(_) => "the id",
            Self::Time(_) => "the time",
        }
    }

    /// The value after the rules of `[redact]`.
    #[must_use]
    pub fn redacted(self, redactor: &Redactor) -> Self {
        match self {
            Self::Json(Cow::Borrowed(json)) => Self::Json(redactor.apply(json)),
            Self::Json(Cow::Owned(json)) => {
                Self::Json(Cow::Owned(redactor.apply(&json).into_owned()))
            }
            Self::Text(Cow::Borrowed(text)) => Self::Text(redactor.text(text)),
            Self::Text(Cow::Owned(text)) => {
                Self::Text(Cow::Owned(redactor.text(&text).into_owned()))
            }
            other => other,
        }
    }

    /// The same, independent of what it was borrowed from.
    pub fn into_owned(self) -> Datum<'static> {
        match self {
            Self::Null => Datum::Null,
            Self::Bool(it) => Datum::Bool(it),
            Self::Int(it) => Datum::Int(it),
            Self::Number(it) => Datum::Number(Cow::Owned(it.into_owned())),
            Self::Text(it) => Datum::Text(Cow::Owned(it.into_owned())),
            Self::Json(it) => Datum::Json(Cow::Owned(it.into_owned())),
            Self::Uuid(it) => Datum::Uuid(it),
            Self::Time(it) => Datum::Time(it),
        }
    }

    /// The same, borrowed.
    pub fn as_borrowed(&self) -> Datum<'_> {
        match self {
            Self::Null => Datum::Null,
            Self::Bool(it) => Datum::Bool(*it),
            Self::Int(it) => Datum::Int(*it),
            Self::Number(it) => Datum::Number(Cow::Borrowed(it)),
            Self::Text(it) => Datum::Text(Cow::Borrowed(it)),
            Self::Json(it) => Datum::Json(Cow::Borrowed(it)),
            Self::Uuid(it) => Datum::Uuid(*it),
            Self::Time(it) => Datum::Time(*it),
        }
    }
}

/// Whether an array's or object's text holds nothing but its brackets and blanks.
fn is_hollow(json: &str) -> bool {
    json.bytes().all(|it| matches!(it, b'[' | b']' | b'{' | b'}') || it.is_ascii_whitespace())
        && json.bytes().filter(|it| matches!(it, b'[' | b'{')).count() == 1
}

/// Text forms longer than this are cut in messages.
const LONGEST_SHOWN: usize = 60;

impl fmt::Display for Datum<'_> {
    /// For messages: the kind and the value, shortened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(it) => write!(f, "{it}"),
            Self::Int(it) => write!(f, "the number {it}"),
            Self::Number(it) | Self::Json(it) => write!(f, "{} {}", self.kind(), Short(it)),
            Self::Text(it) => write!(f, "{} '{}'", self.kind(), Short(it)),
            Self::Uuid(it) => write!(f, "the id {it}"),
            Self::Time(it) => write!(f, "the time {}", super::time::text(*it)),
        }
    }
}

/// A text cut to what a message can carry.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(LONGEST_SHOWN) {
            Some((cut, _)) => write!(f, "{}…", self.0.get(..cut).unwrap_or_default()),
            None => f.write_str(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_false_and_what_holds_something_is_true() {
        for empty in ["[]", "{}", "[ ]", "{\n}"] {
            assert!(!Datum::Json(empty.into()).is_truthy(), "{empty}");
        }
        for full in ["[0]", "[[]]", "{\"\": {}}", "[\"\"]"] {
            assert!(Datum::Json(full.into()).is_truthy(), "{full}");
        }
        assert!(Datum::Number("0".into()).is_truthy());
        assert!(!Datum::Text("".into()).is_truthy());
    }
}
