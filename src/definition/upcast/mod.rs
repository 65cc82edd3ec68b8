//! Upcasts: events of an older schema, read as if they were of the newer one.
//!
//! History does not change, but what producers write does. An [`Upcast`] says how the payload of an
//! older event looks in the next schema version; rules then know the newest form only. Which version
//! an event has stands in its metadata. Versions only rise, so that a chain ends: 1 → 2 → 3.
//!
//! What upcasts do not change: the event's type, its metadata, and what `[lookup]` reads, which is
//! history as it was written.
//!
//! * this file: which upcasts take an event, and in which order
//! * `edit`: members of JSON text put in and taken out
//! * `draft`: `[[upcast]]` as it is written

pub(super) mod draft;
mod edit;

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

use super::datum::Datum;
use super::expr::{EvalError, Expr};
use super::model::{Definition, EventMatch};
use super::scope::{Scope, Scratch};

/// An `[[upcast]]` table.
#[derive(Clone, Debug)]
pub struct Upcast {
    /// The events it takes.
    pub events: EventMatch,
    /// The schema versions it takes.
    pub takes: Takes,
    /// Gives an event's schema version; null is version 1.
    pub version: Expr,
    /// What becomes of the payload.
    pub edits: Vec<Edit>,
    /// Where it was read.
    pub file: PathBuf,
    /// The line of its `[[upcast]]`, from 1.
    pub line: usize,
    /// The same in bytes, for problems that are found later.
    pub(super) span: Range<usize>,
}

/// The schema versions that an upcast takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// This one; the event then counts as one of the next.
    From(i64),
    /// All before this one, which the event then counts as.
    Before(i64),
}

/// One change to a payload. Paths are within the payload.
#[derive(Clone, Debug)]
pub enum Edit {
    /// What stood at a path stands at another.
    Rename {
        /// Where it stood.
        from: Vec<String>,
        /// Where it goes.
        to: Vec<String>,
    },
    /// What stood at the path is gone.
    Remove(Vec<String>),
    /// The value of an expression over the old event.
    Set {
        /// Where it goes.
        to: Vec<String>,
        /// The value.
        value: Expr,
    },
    /// The same, where nothing stands, or null.
    Default {
        /// Where it goes.
        to: Vec<String>,
        /// The value.
        value: Expr,
    },
}

/// A payload after upcasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upcasted {
    /// JSON text.
    pub payload: String,
    /// Which of the definition's upcasts made it, in order.
    pub by: Vec<usize>,
}

/// An upcast could not be applied to an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upcast at {file}:{line} failed: {reason}")]
pub struct UpcastError {
    file: String,
    line: usize,
    reason: EvalError,
}

impl Takes {
    /// The version that the event counts as afterwards.
    pub fn leads_to(self) -> i64 {
        match self {
            Self::From(version) => version.saturating_add(1),
            Self::Before(version) => version,
        }
    }

    fn matches(self, version: i64) -> bool {
        match self {
            Self::From(it) => version == it,
            Self::Before(it) => version < it,
        }
    }
}

impl Definition {
    /// Whether one of its rules, or its statement, may take an event that the upcast takes.
    pub(super) fn sees(&self, upcast: &Upcast) -> bool {
        let mut taken =
            self.rules.iter().map(|it| &it.events).chain(self.sql.iter().map(|it| &it.events));
        taken.any(|it| meet(it, &upcast.events))
    }

    /// The payload of an event of an older schema in the form of the newest; `None` for an event
    /// that no upcast takes.
    ///
    /// # Errors
    /// When the schema version is no whole number, or an expression fails.
    pub fn upcast(&self, scope: &Scope<'_>) -> Result<Option<Upcasted>, UpcastError> {
        newest(&self.upcasts, scope)
    }
}

/// The payload of an event in the form that the last of `upcasts` gives it; `None` for an event that
/// none of them takes.
pub(super) fn newest(
    upcasts: &[Upcast],
    scope: &Scope<'_>,
) -> Result<Option<Upcasted>, UpcastError> {
    let kind = scope.event().kind;
    let mut ours = upcasts.iter().enumerate().filter(|(_, it)| it.events.matches(kind));
    let Some((_, first)) = ours.clone().next() else { return Ok(None) };
    // all upcasts of an event read its version from the same place
    let mut version = first.version_of(scope)?;
    let next = |version: i64| {
        let taking = upcasts
            .iter()
            .enumerate()
            .filter(|(_, it)| it.events.matches(kind) && it.takes.matches(version));
        // the shortest step, so that none of a chain is left out
        taking.min_by_key(|(_, it)| it.takes.leads_to())
    };
    if !ours.any(|(_, it)| it.takes.matches(version)) {
        return Ok(None);
    }
    let mut payload = Cow::Borrowed(scope.event().payload);
    let mut by = Vec::new();
    while let Some((at, upcast)) = next(version) {
        let mut scratch = Scratch::default();
        let now = scope.with_payload(&payload, &mut scratch);
        payload = Cow::Owned(upcast.apply(&now)?);
        by.push(at);
        version = upcast.takes.leads_to();
    }
    Ok(Some(Upcasted { payload: payload.into_owned(), by }))
}

impl Upcast {
    /// The place in its file: `file:line`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    fn version_of(&self, scope: &Scope<'_>) -> Result<i64, UpcastError> {
        let datum = self.version.evaluate(scope).map_err(|it| self.failed(it))?;
        let number = match &datum {
            Datum::Null => Some(1),
            Datum::Int(it) => Some(*it),
            Datum::Number(it) | Datum::Text(it) => it.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| {
            let text = self.version.text();
            let datum = datum.redacted(scope.redactor());
            self.failed(EvalError::new(format!(
                "the schema version `{text}` is a whole number, found {datum}"
            )))
        })
    }

    /// The new payload. All expressions see the old one.
    fn apply(&self, scope: &Scope<'_>) -> Result<String, UpcastError> {
        let old = scope.event().payload;
        let mut values = Vec::new();
        for it in &self.edits {
            if let Edit::Set { value, .. } | Edit::Default { value, .. } = it {
                let datum = value.evaluate(scope).map_err(|it| self.failed(it))?;
                values.push(datum.to_json());
            }
        }
        let mut values = values.into_iter();
        let mut payload = old.to_owned();
        // room is made before anything is put in: a value may go to where another stood
        for it in &self.edits {
            if let Edit::Rename { from, .. } | Edit::Remove(from) = it {
                payload = edit::without(&payload, from);
            }
        }
        for it in &self.edits {
            match it {
                Edit::Remove(_) => {}
                Edit::Rename { from, to } => {
                    if let Some(value) = edit::at(old, from) {
                        payload = edit::with(&payload, to, value);
                    }
                }
                Edit::Set { to, .. } => {
                    payload = edit::with(&payload, to, &values.next().unwrap_or_default());
                }
                Edit::Default { to, .. } => {
                    let value = values.next().unwrap_or_default();
                    if edit::at(&payload, to).is_none_or(|it| it.trim() == "null") {
                        payload = edit::with(&payload, to, &value);
                    }
                }
            }
        }
        Ok(payload)
    }

    fn failed(&self, reason: EvalError) -> UpcastError {
        UpcastError { file: self.file.display().to_string(), line: self.line, reason }
    }
}

/// Whether some event is of both.
pub(super) fn meet(one: &EventMatch, other: &EventMatch) -> bool {
    match (one, other) {
        (EventMatch::Any, _) | (_, EventMatch::Any) => true,
        (EventMatch::Types(one), EventMatch::Types(other)) => {
            one.iter().any(|it| other.contains(it))
        }
    }
}
