//! What is wrong with an event in the eyes of a rule.

use std::fmt;

use crate::definition::{Definition, EvalError, HandlerError, Misfit, UpcastError};
use crate::event::Event;
use crate::fold::cell::TooMuchText;
use crate::fold::compose::ComposeError;
use crate::redact::Redactor;

/// A rule could not be applied to an event. Nothing of the event has been folded.
#[derive(Debug)]
pub struct FoldError {
    /// The projection.
    pub projection: String,
    /// The line of the rule, or of the operation in it.
    pub line: usize,
    /// The column, where one was being written.
    pub column: Option<String>,
    /// The event, as `run/version`.
    pub event: String,
    /// Its type.
    pub kind: String,
    /// Its position.
    pub position: i64,
    /// The file of the definition.
    pub file: String,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with an event in the eyes of a rule.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Reason {
    /// The expression failed.
    #[error(transparent)]
    Expression(#[from] EvalError),
    /// The event could not be read in the newest schema.
    #[error(transparent)]
    Upcast(#[from] UpcastError),
    /// The value does not fit the column.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The value cannot be combined with any other.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The definition's code refuses the event, or does what it may not.
    #[error(transparent)]
    Handler(#[from] HandlerError),
    /// A part of the key is null.
    #[error("the key is null: the event does not say which row it means")]
    NullKey,
    /// The database refused what the event makes of its row.
    #[error("the database refuses the row: {0}")]
    Refused(String),
    /// More rows are parked than may be.
    #[error(
        "more than {limit} rows or events are set aside (limits.parked_keys); the last because {last}"
    )]
    TooManyParked {
        /// How many may be.
        limit: usize,
        /// What was wrong with the event that was one too many.
        last: String,
    },
}

impl Reason {
    /// The same, after the rules of `[redact]`, where it quotes the event or what others say of it.
    #[must_use]
    pub fn redacted(self, redactor: &Redactor) -> Self {
        let text = |it: &str| redactor.text(it).into_owned();
        match self {
            Self::Misfit(it) => Self::Misfit(it.redacted(redactor)),
            Self::Compose(ComposeError::NotAnObject(it)) => {
                Self::Compose(ComposeError::NotAnObject(text(&it)))
            }
            Self::Handler(it) => Self::Handler(HandlerError::new(text(&it.to_string()))),
            Self::Refused(it) => Self::Refused(text(&it)),
            other => other,
        }
    }
}

impl From<TooMuchText> for Reason {
    fn from(error: TooMuchText) -> Self {
        Self::Compose(error.into())
    }
}

impl fmt::Display for FoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, event, kind, position, reason, .. } = self;
        write!(f, "{file}:{line}: ")?;
        if let Some(column) = &self.column {
            write!(f, "column `{column}`: ")?;
        }
        write!(f, "{reason} (event {event}, type `{kind}`, position {position})")
    }
}

impl std::error::Error for FoldError {}

impl FoldError {
    pub(super) fn new(
        definition: &Definition,
        event: &Event<'_>,
        line: usize,
        column: Option<usize>,
        reason: Reason,
    ) -> Self {
        let column = column.and_then(|it| definition.columns.get(it));
        Self {
            projection: definition.name.clone(),
            line,
            column: column.map(|it| it.name.as_str().to_owned()),
            event: format!("{}/{}", event.run_id, event.version),
            kind: event.kind.to_owned(),
            position: event.position,
            file: definition.file.display().to_string(),
            reason,
        }
    }
}
