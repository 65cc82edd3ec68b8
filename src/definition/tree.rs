//! JSON text to the tree that `JMESPath` in general works on.

use std::collections::BTreeMap;

use jmespath::{Rcvar, Variable};
use serde_json::Number;

use super::datum::Datum;
use super::expr::EvalError;
use super::json::{self, Walk};

/// Trees are dropped and compared by recursion; this keeps them within any thread's stack.
const DEEPEST: usize = 500;

/// The tree of valid JSON. Numbers become 64-bit integers where they are, else floats; a number
/// beyond a float's range becomes the greatest float.
pub(super) fn build(json: &str) -> Result<Variable, EvalError> {
    level(json, 0)
}

fn level(json: &str, depth: usize) -> Result<Variable, EvalError> {
    if DEEPEST < depth {
        let reason = format!("the JSON is nested more than {DEEPEST} levels deep");
        return Err(EvalError::new(reason));
    }
    let text = match json::datum(json) {
        Datum::Json(text) => text,
        scalar => return Ok(leaf(scalar)),
    };
    let at = |range| text.get(range).unwrap_or_default();
    if let Some(elements) = Walk::array(&text) {
        let mut array = Vec::new();
        for element in elements {
            array.push(Rcvar::new(level(at(element.value), depth + 1)?));
        }
        return Ok(Variable::Array(array));
    }
    let mut members = BTreeMap::new();
    for member in Walk::object(&text).into_iter().flatten() {
        let Datum::Text(key) = json::datum(at(member.key)) else { continue };
        members.insert(key.into_owned(), Rcvar::new(level(at(member.value), depth + 1)?));
    }
    Ok(Variable::Object(members))
}

fn leaf(scalar: Datum<'_>) -> Variable {
    match scalar {
        Datum::Bool(it) => Variable::Bool(it),
        Datum::Text(it) => Variable::String(it.into_owned()),
        Datum::Number(it) => number(&it).map_or(Variable::Null, Variable::Number),
        _ => Variable::Null,
    }
}

fn number(text: &str) -> Option<Number> {
    if let Ok(it) = text.parse::<i64>() {
        return Some(it.into());
    }
    if let Ok(it) = text.parse::<u64>() {
        return Some(it.into());
    }
    Number::from_f64(text.parse::<f64>().ok()?.clamp(f64::MIN, f64::MAX))
}
