//! Evaluation on slices of the event, and the door to the tree.

use std::borrow::Cow;

use jmespath::ast::{Ast, Comparator};
use jmespath::{Context, Variable};

use super::function::RUNTIME;
use super::{EvalError, Field, Node, Root};
use crate::definition::datum::Datum;
use crate::definition::json;
use crate::definition::scope::Scope;
use crate::definition::time::{self, Unit};

impl Node {
    pub(super) fn evaluate<'a>(
        &'a self,
        text: &'a str,
        scope: &Scope<'a>,
    ) -> Result<Datum<'a>, EvalError> {
        match self {
            Self::Constant(it) => Ok(it.as_borrowed()),
            Self::Field(it) => Ok(it.of(scope)),
            Self::Path(root, path) => Ok(follow(*root, path, scope)),
            Self::Or(left, right) => {
                let left = left.evaluate(text, scope)?;
                if left.is_truthy() { Ok(left) } else { right.evaluate(text, scope) }
            }
            Self::And(left, right) => {
                let left = left.evaluate(text, scope)?;
                if left.is_truthy() { right.evaluate(text, scope) } else { Ok(left) }
            }
            Self::Not(it) => Ok(Datum::Bool(!it.evaluate(text, scope)?.is_truthy())),
            Self::Compare(comparator, left, right) => {
                let left = left.evaluate(text, scope)?;
                let right = right.evaluate(text, scope)?;
                Ok(compare(comparator, &left, &right).map_or(Datum::Null, Datum::Bool))
            }
            Self::DateTrunc(unit, it) => date_trunc(*unit, it.evaluate(text, scope)?, scope),
            Self::Redact(it) => it.redacted(text, scope),
            Self::Left(it, most) => Ok(left(it.evaluate(text, scope)?, *most)),
            Self::Tree(ast) => search(ast, text, scope),
        }
    }
}

impl Node {
    /// The value after the rules of `[redact]`. A path tells them where the value stood.
    fn redacted<'a>(&'a self, text: &'a str, scope: &Scope<'a>) -> Result<Datum<'a>, EvalError> {
        match self {
            Self::Or(left, right) => {
                if left.evaluate(text, scope)?.is_truthy() {
                    left.redacted(text, scope)
                } else {
                    right.redacted(text, scope)
                }
            }
            Self::Path(root, path) => {
                let datum = follow(*root, path, scope);
                let start = root.name().into_iter();
                if datum.is_null()
                    || !scope.redactor().hides(start.chain(path.iter().map(String::as_str)))
                {
                    return Ok(datum.redacted(scope.redactor()));
                }
                let secret = match datum {
                    Datum::Text(it) => scope.redactor().mark(&it),
                    other => scope.redactor().mark(&other.to_string()),
                };
                Ok(Datum::Text(secret))
            }
            other => Ok(other.evaluate(text, scope)?.redacted(scope.redactor())),
        }
    }
}

impl Field {
    fn of<'a>(self, scope: &Scope<'a>) -> Datum<'a> {
        let event = scope.event();
        match self {
            Self::Position => Datum::Int(event.position),
            Self::ProjectId => Datum::Uuid(event.project_id),
            Self::RunId => Datum::Uuid(event.run_id),
            Self::Version => Datum::Int(event.version.into()),
            Self::EventId => Datum::Uuid(event.event_id),
            Self::Type => Datum::Text(Cow::Borrowed(event.kind)),
            Self::RecordedAt => Datum::Time(event.recorded_at),
            Self::Index => scope.index().map_or(Datum::Null, Datum::Int),
        }
    }
}

fn follow<'a>(root: Root, path: &[String], scope: &Scope<'a>) -> Datum<'a> {
    let (start, path) = match (root, path) {
        (Root::Payload, [first, rest @ ..]) => (scope.payload_member(first), rest),
        (Root::Payload, []) => (Some(scope.event().payload), path),
        (Root::Metadata, _) => (Some(scope.event().metadata), path),
        (Root::Item, _) => (scope.item(), path),
    };
    let end = path.iter().try_fold(start, |json, key| Some(json::member(json?, key)));
    end.flatten().map_or(Datum::Null, json::datum)
}

/// `JMESPath`'s comparison where at most one side is an array or object: `==` and `!=` for all,
/// the others for numbers.
fn compare(comparator: &Comparator, left: &Datum<'_>, right: &Datum<'_>) -> Option<bool> {
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return Some(match comparator {
            Comparator::Equal => is_equal(left, right),
            Comparator::NotEqual => !is_equal(left, right),
            Comparator::LessThan => left < right,
            Comparator::LessThanEqual => left <= right,
            Comparator::GreaterThan => right < left,
            Comparator::GreaterThanEqual => right <= left,
        });
    }
    let is_same = match (left, right) {
        (Datum::Null, Datum::Null) => true,
        (Datum::Bool(left), Datum::Bool(right)) => left == right,
        (Datum::Text(left), Datum::Text(right)) => left == right,
        (Datum::Uuid(id), Datum::Text(text)) | (Datum::Text(text), Datum::Uuid(id)) => {
            id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()) == text
        }
        (Datum::Time(it), Datum::Text(text)) | (Datum::Text(text), Datum::Time(it)) => {
            time::text(*it) == text.as_ref()
        }
        _ => false,
    };
    match comparator {
        Comparator::Equal => Some(is_same),
        Comparator::NotEqual => Some(!is_same),
        _ => None,
    }
}

fn number(datum: &Datum<'_>) -> Option<f64> {
    match datum {
        Datum::Int(it) => Some(*it as f64),
        Datum::Number(it) => Some(it.parse::<f64>().ok()?.clamp(f64::MIN, f64::MAX)),
        _ => None,
    }
}

/// Equal up to rounding, as the `jmespath` crate has it.
fn is_equal(left: f64, right: f64) -> bool {
    let difference = (left - right).abs();
    if left == right {
        true
    } else if !left.is_normal() || !right.is_normal() {
        difference < f64::EPSILON * f64::MIN_POSITIVE
    } else {
        difference / (left.abs() + right.abs()) < f64::EPSILON
    }
}

fn date_trunc<'a>(unit: Unit, datum: Datum<'a>, scope: &Scope<'a>) -> Result<Datum<'a>, EvalError> {
    let time = match &datum {
        Datum::Null => return Ok(Datum::Null),
        Datum::Time(it) => Some(*it),
        Datum::Text(it) => time::parse(it),
        _ => None,
    };
    match time {
        Some(it) => Ok(Datum::Time(unit.truncate(it))),
        None => {
            let found = datum.redacted(scope.redactor());
            Err(EvalError::new(format!("`date_trunc` needs a time, found {found}")))
        }
    }
}

/// The first `most` characters of a text; other values as they are.
fn left(datum: Datum<'_>, most: usize) -> Datum<'_> {
    let text = match datum {
        Datum::Text(it) => it,
        Datum::Uuid(it) => Cow::Owned(it.to_string()),
        Datum::Time(it) => Cow::Owned(time::text(it)),
        other => return other,
    };
    let Some((end, _)) = text.char_indices().nth(most) else { return Datum::Text(text) };
    Datum::Text(match text {
        Cow::Borrowed(it) => Cow::Borrowed(it.get(..end).unwrap_or(it)),
        Cow::Owned(mut it) => {
            it.truncate(end);
            Cow::Owned(it)
        }
    })
}

fn search<'a>(ast: &Ast, text: &str, scope: &Scope<'_>) -> Result<Datum<'a>, EvalError> {
    let mut context = Context::new(text, &RUNTIME);
    let found = jmespath::interpret(&scope.tree()?, ast, &mut context);
    let found = found.map_err(|error| EvalError::new(format!("`{text}`: {}", error.reason)))?;
    from_tree(&found)
}

fn from_tree<'a>(found: &Variable) -> Result<Datum<'a>, EvalError> {
    Ok(match found {
        Variable::Null => Datum::Null,
        Variable::Bool(it) => Datum::Bool(*it),
        Variable::Number(it) => Datum::Number(Cow::Owned(it.to_string())),
        Variable::String(it) => Datum::Text(Cow::Owned(it.clone())),
        Variable::Array(_) | Variable::Object(_) => Datum::Json(Cow::Owned(found.to_string())),
        Variable::Expref(_) => return Err(EvalError::new("an expression is not a value")),
    })
}
