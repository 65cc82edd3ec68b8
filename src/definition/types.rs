//! Column types, and which values fit them.

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

use super::datum::{Datum, Value};
use super::{decimal, json, time};
use crate::event::Timestamp;
use crate::redact::Redactor;

/// The type of a column, as far as values are checked before Postgres sees them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`
    Numeric,
    /// `text`
    Text,
    /// `uuid`
    Uuid,
    /// `timestamptz`
    Timestamptz,
    /// `date`
    Date,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// Anything else, by its SQL name: sent as text and cast by Postgres.
    Other(String),
}

/// A value that a column cannot hold.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("expected {expected}, found {}", shown(found))]
pub struct Misfit {
    /// What the column takes.
    pub expected: String,
    /// What came.
    pub found: Box<Datum<'static>>,
}

impl Misfit {
    /// The same, after the rules of `[redact]`: it quotes the value.
    #[must_use]
    pub fn redacted(self, redactor: &Redactor) -> Self {
        let found = Box::new(self.found.redacted(redactor));
        Self { found, ..self }
    }
}

fn shown(found: &Datum<'_>) -> String {
    if matches!(found, Datum::Text(it) if it.contains('\0')) {
        return "a text with the character U+0000, which Postgres cannot store".to_owned();
    }
    found.to_string()
}

impl ColumnType {
    /// The value as the column takes it. Null fits every column here; `not null` is Postgres' to
    /// refuse.
    ///
    /// # Errors
    /// When it is of another kind, out of range, or holds a NUL character.
    pub fn fit<'a>(&self, datum: Datum<'a>) -> Result<Value<'a>, Misfit> {
        if datum.is_null() {
            return Ok(Value::Null);
        }
        let fitted = match self {
            Self::Bool => boolean(&datum),
            Self::Int2 => integer(&datum, i16::MIN.into(), i16::MAX.into()),
            Self::Int4 => integer(&datum, i32::MIN.into(), i32::MAX.into()),
            Self::Int8 => integer(&datum, i64::MIN, i64::MAX),
            Self::Float4 => float(&datum, f32::MAX.into()),
            Self::Float8 => float(&datum, f64::MAX),
            Self::Numeric => return self.or_misfit(datum, numeric),
            Self::Uuid => uuid(&datum),
            Self::Timestamptz => moment(&datum).map(Value::Time),
            Self::Date => date(&datum),
            Self::Text => return self.or_misfit(datum, as_text),
            Self::Json | Self::Jsonb => return self.or_misfit(datum, as_json),
            Self::Other(_) if self.element().is_some() => array(&datum),
            Self::Other(_) => return self.or_misfit(datum, as_text),
        };
        fitted.ok_or_else(|| self.misfit(&datum))
    }

    /// The element's type, of an array type.
    pub fn element(&self) -> Option<Self> {
        let Self::Other(name) = self else { return None };
        Some(Self::named(name.strip_suffix("[]")?))
    }

    /// Whether `add` can sum its values.
    pub fn is_numeric(&self) -> bool {
        self.is_integer() || matches!(self, Self::Float4 | Self::Float8 | Self::Numeric)
    }

    /// Whether its sums round.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::Float4 | Self::Float8)
    }

    /// Whether an integer is in its range.
    pub fn holds(&self, number: i64) -> bool {
        match self {
            Self::Int2 => i16::try_from(number).is_ok(),
            Self::Int4 => i32::try_from(number).is_ok(),
            _ => true,
        }
    }

    /// Whether it is one of the three integer types.
    pub fn is_integer(&self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8)
    }

    /// Whether `min` and `max` can compare its values here as Postgres would.
    pub fn is_ordered(&self) -> bool {
        self.is_numeric() || matches!(self, Self::Timestamptz | Self::Date)
    }

    /// Whether no kind of value is refused here.
    pub(super) fn takes_all_kinds(&self) -> bool {
        matches!(self, Self::Text | Self::Json | Self::Jsonb | Self::Other(_))
    }

    /// Gives `datum` away to `fit`, which gives it back when it does not fit.
    fn or_misfit<'a>(
        &self,
        datum: Datum<'a>,
        fit: fn(Datum<'a>) -> Result<Value<'a>, Datum<'a>>,
    ) -> Result<Value<'a>, Misfit> {
        fit(datum).map_err(|datum| self.misfit(&datum))
    }

    fn misfit(&self, datum: &Datum<'_>) -> Misfit {
        Misfit { expected: self.to_string(), found: Box::new(datum.clone().into_owned()) }
    }
}

impl fmt::Display for ColumnType {
    /// The name Postgres gives the type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Float4 => "real",
            Self::Float8 => "double precision",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Uuid => "uuid",
            Self::Timestamptz => "timestamptz",
            Self::Date => "date",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Other(name) => name,
        })
    }
}

impl ColumnType {
    /// The type by a name that Postgres knows it by, in any case and with its modifiers.
    pub fn named(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        let words: Vec<_> = lower.split_whitespace().collect();
        let plain = words.join(" ");
        let (base, rest) = match (plain.find('('), plain.rfind(')')) {
            (Some(open), Some(close)) if open < close => {
                (plain.get(..open), plain.get(close + 1..).unwrap_or_default())
            }
            _ => (Some(plain.as_str()), ""),
        };
        let bare = format!("{}{rest}", base.unwrap_or_default().trim_end());
        match bare.as_str() {
            "bool" | "boolean" => Self::Bool,
            "int2" | "smallint" => Self::Int2,
            "int" | "int4" | "integer" => Self::Int4,
            "int8" | "bigint" => Self::Int8,
            "float4" | "real" => Self::Float4,
            "float8" | "double precision" => Self::Float8,
            "numeric" | "decimal" => Self::Numeric,
            "text" | "varchar" | "character varying" => Self::Text,
            "uuid" => Self::Uuid,
            "timestamptz" | "timestamp with time zone" => Self::Timestamptz,
            "date" => Self::Date,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            _ => Self::Other(plain),
        }
    }
}

fn boolean<'a>(datum: &Datum<'a>) -> Option<Value<'a>> {
    match datum {
        Datum::Bool(it) => Some(Value::Bool(*it)),
        _ => None,
    }
}

fn integer<'a>(datum: &Datum<'a>, least: i64, most: i64) -> Option<Value<'a>> {
    let number = match datum {
        Datum::Int(it) => *it,
        Datum::Number(text) => decimal::to_i64(text)?,
        _ => return None,
    };
    (least..=most).contains(&number).then_some(Value::Int(number))
}

fn float<'a>(datum: &Datum<'a>, most: f64) -> Option<Value<'a>> {
    let number = match datum {
        // above 2^53 a float column rounds, as in Postgres
        Datum::Int(it) => *it as f64,
        Datum::Number(text) => text.parse::<f64>().ok()?,
        _ => return None,
    };
    (number.abs() <= most).then_some(Value::Float(number))
}

fn uuid<'a>(datum: &Datum<'a>) -> Option<Value<'a>> {
    match datum {
        Datum::Uuid(it) => Some(Value::Uuid(*it)),
        Datum::Text(text) => Uuid::try_parse(text.trim()).ok().map(Value::Uuid),
        _ => None,
    }
}

fn moment(datum: &Datum<'_>) -> Option<Timestamp> {
    match datum {
        Datum::Time(it) => Some(*it),
        Datum::Text(text) => time::parse(text),
        _ => None,
    }
}

fn date<'a>(datum: &Datum<'a>) -> Option<Value<'a>> {
    let date = match datum {
        Datum::Time(it) => time::date(*it),
        Datum::Text(text) => time::parse_date(text),
        _ => None,
    };
    date.map(|it| Value::Text(Cow::Owned(it.to_string())))
}

fn numeric(datum: Datum<'_>) -> Result<Value<'_>, Datum<'_>> {
    match datum {
        Datum::Int(it) => Ok(Value::Text(Cow::Owned(it.to_string()))),
        Datum::Number(it) => Ok(Value::Text(it)),
        other => Err(other),
    }
}

/// A text column takes everything: scalars as people read them, arrays and objects as JSON.
fn as_text(datum: Datum<'_>) -> Result<Value<'_>, Datum<'_>> {
    Ok(Value::Text(match datum {
        Datum::Text(it) if it.contains('\0') => return Err(Datum::Text(it)),
        Datum::Number(it) | Datum::Text(it) | Datum::Json(it) => it,
        Datum::Bool(true) => Cow::Borrowed("true"),
        Datum::Bool(false) => Cow::Borrowed("false"),
        Datum::Int(it) => Cow::Owned(it.to_string()),
        Datum::Uuid(it) => Cow::Owned(it.to_string()),
        Datum::Time(it) => Cow::Owned(time::text(it)),
        Datum::Null => return Ok(Value::Null),
    }))
}

fn as_json(datum: Datum<'_>) -> Result<Value<'_>, Datum<'_>> {
    let quoted = |it: &str| Cow::Owned(serde_json::Value::from(it).to_string());
    Ok(Value::Text(match datum {
        Datum::Text(it) if it.contains('\0') => return Err(Datum::Text(it)),
        Datum::Text(it) => quoted(&it),
        Datum::Uuid(it) => quoted(&it.to_string()),
        Datum::Time(it) => quoted(&time::text(it)),
        other => return as_text(other),
    }))
}

/// A JSON array of scalars in the form of a Postgres array literal: `{"a","b",NULL}`.
fn array<'a>(datum: &Datum<'a>) -> Option<Value<'a>> {
    let Datum::Json(text) = datum else { return None };
    let mut literal = String::from("{");
    for element in json::elements(text)? {
        if 1 < literal.len() {
            literal.push(',');
        }
        match as_text(json::datum(element)).ok()? {
            Value::Text(it) => quote_element(&it, &mut literal),
            _ => literal.push_str("NULL"),
        }
    }
    literal.push('}');
    Some(Value::Text(Cow::Owned(literal)))
}

fn quote_element(element: &str, literal: &mut String) {
    literal.push('"');
    for c in element.chars() {
        if matches!(c, '"' | '\\') {
            literal.push('\\');
        }
        literal.push(c);
    }
    literal.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit<'a>(ty: &str, json: &'a str) -> Result<Value<'a>, String> {
        let datum = crate::definition::json::datum(json);
        ColumnType::named(ty).fit(datum).map_err(|it| it.to_string())
    }

    fn text(it: &str) -> Result<Value<'_>, String> {
        Ok(Value::Text(it.into()))
    }

    #[test]
    fn values_fit_the_columns_that_postgres_users_expect() {
        assert_eq!(fit("int", "12.0"), Ok(Value::Int(12)));
        assert_eq!(fit("bigint", "1e3"), Ok(Value::Int(1_000)));
        assert_eq!(fit("double precision", "1.5"), Ok(Value::Float(1.5)));
        assert_eq!(
            fit("numeric(40, 2)", "123456789012345678901234567890.12"),
            text("123456789012345678901234567890.12")
        );
        assert_eq!(fit("text", "1.50"), text("1.50"));
        assert_eq!(fit("text", "true"), text("true"));
        assert_eq!(fit("text", r#"{"a": 1}"#), text(r#"{"a": 1}"#));
        assert_eq!(fit("jsonb", r#""say \"hi\"""#), text(r#""say \"hi\"""#));
        assert_eq!(fit("jsonb", "[1]"), text("[1]"));
        assert_eq!(fit("date", r#""2026-03-29T23:30:00-02:00""#), text("2026-03-30"));
        assert_eq!(fit("text[]", r#"["a", "b\"c", null, 1]"#), text(r#"{"a","b\"c",NULL,"1"}"#));
        assert_eq!(fit("run_state", r#""running""#), text("running"));
        assert_eq!(fit("boolean", "false"), Ok(Value::Bool(false)));
        for ty in ["int", "text", "jsonb", "uuid", "text[]", "run_state"] {
            assert_eq!(fit(ty, "null"), Ok(Value::Null), "{ty}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_type_and_value() {
        for (ty, json, complaint) in [
            ("int", "1.5", "expected integer, found the number 1.5"),
            ("int", "2147483648", "expected integer, found the number 2147483648"),
            ("smallint", "-32769", "expected smallint, found the number -32769"),
            ("int", r#""12""#, "expected integer, found the text '12'"),
            ("real", "1e39", "expected real, found the number 1e39"),
            ("float8", "1e400", "expected double precision, found the number 1e400"),
            ("uuid", r#""x""#, "expected uuid, found the text 'x'"),
            ("timestamptz", r#""soon""#, "expected timestamptz, found the text 'soon'"),
            ("bool", r#""true""#, "expected boolean, found the text 'true'"),
            ("text[]", r#"{"a": 1}"#, r#"expected text[], found the object {"a": 1}"#),
            (
                "text",
                r#""a\u0000""#,
                "expected text, found a text with the character U+0000, which Postgres cannot store",
            ),
            (
                "jsonb",
                r#""a\u0000""#,
                "expected jsonb, found a text with the character U+0000, which Postgres cannot store",
            ),
        ] {
            assert_eq!(fit(ty, json), Err(complaint.to_owned()), "{ty} {json}");
        }
    }
}
