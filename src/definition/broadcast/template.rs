//! Topics: text with expressions in it, `run:{run_id}`.

use crate::definition::datum::Datum;
use crate::definition::expr::{EvalError, Expr, ExprError};
use crate::definition::scope::Scope;

/// A topic of each event.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value(Expr),
}

impl Template {
    /// Reads `run:{run_id}`.
    ///
    /// # Errors
    /// A brace without the other, or what is between them is no expression.
    pub fn compile(text: &str) -> Result<Self, ExprError> {
        let wrong = |message: &str, offset: usize| ExprError {
            message: message.to_owned(),
            offset,
            length: 1,
            hint: Some("a value of the event stands in braces: \"run:{run_id}\"".to_owned()),
        };
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|it| !it.is_empty()) {
            let open = rest.find(['{', '}']).unwrap_or(rest.len());
            let (plain, rest) = rest.split_at(open);
            if !plain.is_empty() {
                parts.push(Part::Text(plain.to_owned()));
            }
            if rest.starts_with('}') {
                return Err(wrong("`}` without `{` before it", at + open));
            }
            let Some(rest) = rest.strip_prefix('{') else { break };
            let start = at + open + 1;
            let Some(end) = rest.find('}') else {
                return Err(wrong("`{` without `}` after it", at + open));
            };
            let inner = rest.get(..end).unwrap_or_default();
            let expr = Expr::compile(inner)
                .map_err(|error| ExprError { offset: start + error.offset, ..error })?;
            if expr.uses_item() {
                return Err(wrong("`item` and `index` mean nothing in a topic", start));
            }
            parts.push(Part::Value(expr));
            at = start + end + 1;
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The expressions in it that are a field of the envelope and nothing else.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.parts.iter().filter_map(|it| match it {
            Part::Value(expr) => expr.as_field(),
            Part::Text(_) => None,
        })
    }

    /// Whether each of its expressions is the same for all events of a run: all that is in it is the
    /// run and its project.
    pub fn is_of_a_run(&self) -> bool {
        let is_of_a_run = |it: &Part| match it {
            Part::Value(expr) => matches!(expr.as_field(), Some("run_id" | "project_id")),
            Part::Text(_) => true,
        };
        self.parts.iter().all(is_of_a_run)
    }

    /// How long its text is without the values, in bytes.
    pub(super) fn fixed_length(&self) -> usize {
        let length = |it: &Part| if let Part::Text(text) = it { text.len() } else { 0 };
        self.parts.iter().map(length).sum()
    }

    /// Writes the topic of an event to the end of `out`.
    ///
    /// # Errors
    /// When a value is null, an array or an object.
    pub fn write(&self, scope: &Scope<'_>, out: &mut String) -> Result<(), EvalError> {
        for part in &self.parts {
            let expr = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Value(expr) => expr,
            };
            match expr.evaluate(scope)? {
                Datum::Text(it) | Datum::Number(it) if !it.is_empty() => out.push_str(&it),
                Datum::Uuid(it) => {
                    out.push_str(it.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
                }
                Datum::Int(it) => out.push_str(&it.to_string()),
                Datum::Bool(it) => out.push_str(if it { "true" } else { "false" }),
                other => {
                    let reason = format!("`{{{}}}` of the topic is {other}", expr.text());
                    return Err(EvalError::new(reason));
                }
            }
        }
        Ok(())
    }
}
