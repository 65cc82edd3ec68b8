//! How one more operation changes a pending column.
//!
//! | operation | on nothing | on a delta | on a set value |
//! |---|---|---|---|
//! | `set` | set | set | set |
//! | `set_once` | delta, unless null | stays | set where null |
//! | `add`, `min`, `max`, `append`, `merge` | delta | combined | combined |
//!
//! A null is nothing to every operation but `set`.

use std::borrow::Cow;
use std::cmp::Ordering;

use bigdecimal::BigDecimal;
use serde_json::value::RawValue;

use crate::definition::ColumnType;
use crate::definition::Op;
use crate::definition::Value;
use crate::fold::cell::{Cell, Texts, TooMuchText};

/// Digits that a `numeric` has before its point …
const NUMERIC_WHOLE: i64 = 131_072;
/// … and behind it.
const NUMERIC_FRACTION: i64 = 16_383;

/// How a pending column is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The column stays as it is.
    Keep,
    /// The cell is combined with what is stored.
    Delta,
    /// The cell is what will be stored.
    Set,
}

/// Why a value cannot be combined.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ComposeError {
    /// The sum does not fit the column's type.
    #[error("the sum is out of range")]
    Overflow,
    /// A decimal of more digits than the type `numeric` has.
    #[error("`{0}` has more digits than a `numeric` can have")]
    Digits(String),
    /// `merge` needs JSON objects.
    #[error("only a JSON object can be merged, found {}", .0.chars().take(40).collect::<String>())]
    NotAnObject(String),
    /// A batch too large for its offsets.
    #[error(transparent)]
    TooMuchText(#[from] TooMuchText),
}

/// Applies `op` with `value` to a column that holds `cell` in the sense of `meaning`.
///
/// # Errors
/// When the values cannot be combined; nothing has changed then.
pub fn compose(
    texts: &mut Texts,
    (op, ty): (Op, &ColumnType),
    (meaning, cell): (Meaning, Cell),
    value: &Value<'_>,
) -> Result<(Meaning, Cell), ComposeError> {
    if op == Op::Set {
        return Ok((Meaning::Set, texts.store(value)?));
    }
    if matches!(value, Value::Null) {
        return Ok((meaning, cell));
    }
    let filled = if meaning == Meaning::Set { Meaning::Set } else { Meaning::Delta };
    if meaning == Meaning::Keep || cell == Cell::Null {
        let first = match (op, meaning) {
            // a set column is text through and through
            (Op::Append, Meaning::Set) => {
                let list = Cell::Text(texts.push(if is_array(ty) { "{}" } else { "[]" })?);
                append(texts, list, value, ty)?
            }
            (Op::Append, _) => {
                let bracket = if is_array(ty) { '{' } else { '[' };
                texts.open_list(bracket, &element(value, ty))?
            }
            _ => texts.store(value)?,
        };
        return Ok((filled, first));
    }
    let combined = match op {
        Op::Set | Op::SetOnce => cell,
        Op::Add => add(texts, cell, value, ty)?,
        Op::Min => pick(texts, cell, value, Ordering::Greater, ty)?,
        Op::Max => pick(texts, cell, value, Ordering::Less, ty)?,
        Op::Append => append(texts, cell, value, ty)?,
        Op::Merge => merge(texts, cell, value)?,
    };
    Ok((filled, combined))
}

fn add(
    texts: &mut Texts,
    cell: Cell,
    value: &Value<'_>,
    ty: &ColumnType,
) -> Result<Cell, ComposeError> {
    Ok(match (cell, value) {
        (Cell::Int(a), Value::Int(b)) => {
            let sum = a.checked_add(*b).filter(|it| ty.holds(*it));
            Cell::Int(sum.ok_or(ComposeError::Overflow)?)
        }
        (Cell::Float(a), Value::Float(b)) => Cell::Float(a + b),
        (Cell::Text(a), Value::Text(b)) => {
            let sum = decimal(texts.get(a))? + decimal(b)?;
            // without this a sum of thousands that comes to zero is written `0000`
            let sum = if sum.fractional_digit_count() < 0 { sum.with_scale(0) } else { sum };
            Cell::Text(texts.push(&sum.to_plain_string())?)
        }
        // types are checked with the definition, so that other pairs do not meet
        (cell, _) => cell,
    })
}

/// Keeps the cell, or takes the value if the cell compares to it as `worse` says. Texts compare by
/// their bytes, as `collate "C"` does in the statement that writes them.
fn pick(
    texts: &mut Texts,
    cell: Cell,
    value: &Value<'_>,
    worse: Ordering,
    ty: &ColumnType,
) -> Result<Cell, ComposeError> {
    let order = match (cell, value) {
        (Cell::Int(a), Value::Int(b)) => a.cmp(b),
        (Cell::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Cell::Time(a), Value::Time(b)) => a.cmp(b),
        (Cell::Uuid(a), Value::Uuid(b)) => texts.id(a).cmp(b),
        (Cell::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Cell::Text(a), Value::Text(b)) => {
            let a = texts.get(a);
            match ty {
                ColumnType::Numeric => decimal(a)?.cmp(&decimal(b)?),
                _ => a.cmp(b.as_ref()),
            }
        }
        _ => Ordering::Equal,
    };
    Ok(if order == worse { texts.store(value)? } else { cell })
}

fn append(
    texts: &mut Texts,
    cell: Cell,
    value: &Value<'_>,
    ty: &ColumnType,
) -> Result<Cell, TooMuchText> {
    let element = element(value, ty);
    Ok(match cell {
        Cell::List(list) => {
            texts.extend_list(list, &element);
            cell
        }
        Cell::Text(at) => {
            let stored = texts.get(at);
            let array = if is_array(ty) { Cow::Borrowed(stored) } else { as_array(stored) };
            let array = array.trim_end();
            let open = array.strip_suffix([']', '}']).unwrap_or(array);
            let comma = if open.trim_end().len() <= 1 { "" } else { "," };
            let close = if is_array(ty) { '}' } else { ']' };
            let whole = format!("{open}{comma}{element}{close}");
            Cell::Text(texts.push(&whole)?)
        }
        other => other,
    })
}

/// A value as an element of a JSON array, or of a Postgres array where the column is one. A JSON
/// column's values are JSON text already.
fn element(value: &Value<'_>, ty: &ColumnType) -> String {
    let plain = match value {
        Value::Text(text) => text.as_ref().to_owned(),
        Value::Bool(it) => it.to_string(),
        Value::Int(it) => it.to_string(),
        Value::Float(it) => it.to_string(),
        Value::Uuid(it) => it.to_string(),
        Value::Time(it) => crate::definition::time_text(*it),
        Value::Null => return "null".to_owned(),
    };
    if !is_array(ty) {
        return plain;
    }
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

fn is_array(ty: &ColumnType) -> bool {
    ty.element().is_some()
}

/// A JSON text that is no array, as an array of it: that is what `||` makes of it.
fn as_array(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if text.starts_with('[') { Cow::Borrowed(text) } else { Cow::Owned(format!("[{text}]")) }
}

/// The shallow merge of two JSON objects, as `||` does it: the later key wins, in its place. What is
/// stored and is no object becomes an array with the other at its end.
fn merge(texts: &mut Texts, cell: Cell, value: &Value<'_>) -> Result<Cell, ComposeError> {
    let (Cell::Text(at), Value::Text(patch)) = (cell, value) else { return Ok(cell) };
    let stored = texts.get(at);
    if !stored.trim_start().starts_with('{') {
        return append(texts, cell, value, &ColumnType::Jsonb).map_err(Into::into);
    }
    let merged = merge_objects(stored, patch)?;
    Ok(Cell::Text(texts.push(&merged)?))
}

/// The shallow merge of two JSON objects given as text.
///
/// # Errors
/// When one of them is no object.
pub fn merge_objects(base: &str, patch: &str) -> Result<String, ComposeError> {
    type Object<'a> = std::collections::BTreeMap<String, &'a RawValue>;
    let object = |text| -> Result<Object<'_>, ComposeError> {
        serde_json::from_str(text).map_err(|_| ComposeError::NotAnObject(str::to_owned(text)))
    };
    let mut merged = object(base)?;
    merged.extend(object(patch)?);
    serde_json::to_string(&merged).map_err(|_| ComposeError::NotAnObject(base.to_owned()))
}

/// A number that Postgres can store: one with an exponent may stand for more than memory holds.
fn decimal(text: &str) -> Result<BigDecimal, ComposeError> {
    let number = text.parse::<BigDecimal>().ok().filter(|it| {
        let scale = it.fractional_digit_count();
        let whole = i64::try_from(it.digits()).unwrap_or(i64::MAX).saturating_sub(scale);
        scale <= NUMERIC_FRACTION && whole <= NUMERIC_WHOLE
    });
    number.ok_or_else(|| ComposeError::Digits(text.chars().take(60).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a column that was set to `stored` holds after `op`.
    fn after(stored: &str, op: Op, value: &str) -> String {
        let mut texts = Texts::default();
        let cell = texts.store(&Value::Text(stored.into())).unwrap();
        let value = Value::Text(value.into());
        let column = (Meaning::Set, cell);
        let (_, cell) = compose(&mut texts, (op, &ColumnType::Jsonb), column, &value).unwrap();
        let Cell::Text(at) = cell else { panic!("{cell:?}") };
        texts.get(at).to_owned()
    }

    #[test]
    fn decimals_add_up_to_what_the_database_has() {
        let sum = |a: &str, b: &str| {
            let mut texts = Texts::default();
            let column = (Meaning::Set, texts.store(&Value::Text(a.into())).unwrap());
            let value = Value::Text(b.into());
            let added = compose(&mut texts, (Op::Add, &ColumnType::Numeric), column, &value);
            added.map(|(_, cell)| match cell {
                Cell::Text(at) => texts.get(at).to_owned(),
                other => panic!("{other:?}"),
            })
        };
        for (a, b, wanted) in [
            ("1.10", "2.2", "3.30"),
            ("1e3", "1", "1001"),
            ("1e3", "-1e3", "0"),
            (
                "99999999999999999999999999999999999999.99",
                "0.01",
                "100000000000000000000000000000000000000.00",
            ),
        ] {
            assert_eq!(sum(a, b).unwrap(), wanted, "{a} + {b}");
        }
        assert!(sum("1e131071", "1").is_ok());
        assert!(sum("1e999999999", "1").is_err());
        assert!(sum("1", "1e-20000").is_err());
    }

    #[test]
    fn json_of_another_kind_comes_to_what_the_database_makes_of_it() {
        assert_eq!(after("[1]", Op::Append, "2"), "[1,2]");
        assert_eq!(after(" [ ] ", Op::Append, "2"), "[ 2]");
        assert_eq!(after(r#"{"x":1}"#, Op::Append, "2"), r#"[{"x":1},2]"#);
        assert_eq!(after(r#""]""#, Op::Append, "2"), r#"["]",2]"#);
        assert_eq!(after(r#"{"x":1}"#, Op::Merge, r#"{"y":2}"#), r#"{"x":1,"y":2}"#);
        assert_eq!(after("[1]", Op::Merge, r#"{"y":2}"#), r#"[1,{"y":2}]"#);
        assert_eq!(after("7", Op::Merge, r#"{"y":2}"#), r#"[7,{"y":2}]"#);
    }
}
