//! How one more operation changes a pending column.
//!
//! | operation | on nothing | on a delta | on a set value |
//! |---|---|---|---|
//! | `set` | set | set | set |
//! | `set_once` | delta, unless null | stays | set where null |
//! | `add`, `min`, `max`, `append`, `merge` | delta | combined | combined |
//!
//! A null is nothing to every operation but `set`.

use std::cmp::Ordering;

use rust_decimal::Decimal;
use serde_json::value::RawValue;

use crate::definition::ColumnType;
use crate::definition::Op;
use crate::definition::Value;
use crate::fold::cell::{Cell, Texts, TooMuchText};

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
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The sum does not fit the widest type.
    #[error("the sum is out of range")]
    Overflow,
    /// A decimal of more digits than can be added up exactly.
    #[error("`{0}` has more digits than can be added up exactly (28)")]
    Digits(String),
    /// `merge` needs JSON objects.
    #[error("only a JSON object can be merged, found {0}")]
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
        Op::Add => add(texts, cell, value)?,
        Op::Min => pick(texts, cell, value, Ordering::Greater, ty)?,
        Op::Max => pick(texts, cell, value, Ordering::Less, ty)?,
        Op::Append => append(texts, cell, value, ty)?,
        Op::Merge => merge(texts, cell, value)?,
    };
    Ok((filled, combined))
}

fn add(texts: &mut Texts, cell: Cell, value: &Value<'_>) -> Result<Cell, ComposeError> {
    Ok(match (cell, value) {
        (Cell::Int(a), Value::Int(b)) => {
            Cell::Int(a.checked_add(*b).ok_or(ComposeError::Overflow)?)
        }
        (Cell::Float(a), Value::Float(b)) => Cell::Float(a + b),
        (Cell::Text(a), Value::Text(b)) => {
            let sum = decimal(texts.get(a))?
                .checked_add(decimal(b)?)
                .ok_or(ComposeError::Overflow)?
                .to_string();
            Cell::Text(texts.push(&sum)?)
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
) -> Result<Cell, TooMuchText> {
    let order = match (cell, value) {
        (Cell::Int(a), Value::Int(b)) => a.cmp(b),
        (Cell::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Cell::Time(a), Value::Time(b)) => a.cmp(b),
        (Cell::Uuid(a), Value::Uuid(b)) => texts.id(a).cmp(b),
        (Cell::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Cell::Text(a), Value::Text(b)) => {
            let a = texts.get(a);
            match (ty, decimal(a), decimal(b)) {
                (ColumnType::Numeric, Ok(a), Ok(b)) => a.cmp(&b),
                _ => a.cmp(b.as_ref()),
            }
        }
        _ => Ordering::Equal,
    };
    if order == worse { texts.store(value) } else { Ok(cell) }
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
            let array = texts.get(at).trim_end();
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

/// The shallow merge of two JSON objects, as `||` does it: the later key wins, in its place.
fn merge(texts: &mut Texts, cell: Cell, value: &Value<'_>) -> Result<Cell, ComposeError> {
    let (Cell::Text(at), Value::Text(patch)) = (cell, value) else { return Ok(cell) };
    let merged = merge_objects(texts.get(at), patch)?;
    Ok(Cell::Text(texts.push(&merged)?))
}

/// The shallow merge of two JSON objects given as text.
///
/// # Errors
/// When one of them is no object.
pub fn merge_objects(base: &str, patch: &str) -> Result<String, ComposeError> {
    type Object<'a> = std::collections::BTreeMap<String, &'a RawValue>;
    let object = |text| -> Result<Object<'_>, ComposeError> {
        serde_json::from_str(text)
            .map_err(|_| ComposeError::NotAnObject(text.chars().take(40).collect()))
    };
    let mut merged = object(base)?;
    merged.extend(object(patch)?);
    serde_json::to_string(&merged).map_err(|_| ComposeError::NotAnObject(base.to_owned()))
}

fn decimal(text: &str) -> Result<Decimal, ComposeError> {
    let exact = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text)
    } else {
        Decimal::from_str_exact(text)
    };
    exact.map_err(|_| ComposeError::Digits(text.chars().take(60).collect()))
}
