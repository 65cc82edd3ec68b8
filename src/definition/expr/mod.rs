//! The right-hand sides: `JMESPath` over an event.
//!
//! An expression is compiled to [`Node`]s. Constants, fields of the envelope, plain paths, `||`,
//! `&&`, `!`, comparisons with a constant and our own functions are evaluated on slices of the
//! event; what is left is a [`Node::Tree`], interpreted by the `jmespath` crate over a tree that is
//! built once an event, on first use. Both ways mean the same: a property test holds them together.

mod compile;
mod evaluate;
mod function;

use std::fmt;

use jmespath::ast::{Ast, Comparator};

use super::datum::Datum;
use super::scope::Scope;
use super::time::Unit;
use crate::event::Timestamp;

/// A compiled expression.
#[derive(Clone)]
pub struct Expr {
    text: String,
    node: Node,
    uses_item: bool,
}

/// The text is not an expression over an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes from the start of the expression.
    pub offset: usize,
    /// How many bytes are wrong.
    pub length: usize,
    /// What to do.
    pub hint: Option<String>,
}

/// An expression could not be evaluated for an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct EvalError {
    reason: String,
}

impl EvalError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl Expr {
    /// Parses and checks `text`: fields are the envelope's, functions exist and have as many
    /// arguments as they take.
    ///
    /// # Errors
    /// The first mistake.
    pub fn compile(text: &str) -> Result<Self, ExprError> {
        compile::compile(text)
    }

    /// The value for one event. A path that leads nowhere is null.
    ///
    /// # Errors
    /// When a function gets an argument of a kind that it does not take.
    pub fn evaluate<'a>(&'a self, scope: &Scope<'a>) -> Result<Datum<'a>, EvalError> {
        self.node.evaluate(&self.text, scope)
    }

    /// Whether `when` takes the event: the value is true as `JMESPath` sees it.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn is_true(&self, scope: &Scope<'_>) -> Result<bool, EvalError> {
        Ok(self.node.evaluate(&self.text, scope)?.is_truthy())
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value, when it is the same for every event.
    pub fn as_constant(&self) -> Option<&Datum<'static>> {
        match &self.node {
            Node::Constant(it) => Some(it),
            _ => None,
        }
    }

    /// The envelope's field that it is, and nothing else: `run_id`.
    pub fn as_field(&self) -> Option<&'static str> {
        match &self.node {
            Node::Field(it) => Some(it.name()),
            _ => None,
        }
    }

    /// The unit, when it is the unit of time in which the event was recorded: `hour` of
    /// `date_trunc('hour', recorded_at)`.
    pub fn as_recorded_unit(&self) -> Option<&'static str> {
        match &self.node {
            Node::DateTrunc(unit, it) => {
                matches!(**it, Node::Field(Field::RecordedAt)).then(|| unit.name())
            }
            _ => None,
        }
    }

    /// The plain path within the payload that it is: `error`, `message` of `payload.error.message`.
    pub fn as_payload_path(&self) -> Option<&[String]> {
        match &self.node {
            Node::Path(Root::Payload, path) => Some(path),
            _ => None,
        }
    }

    /// Whether the rules of `[redact]` have a say in its value.
    pub fn redacts(&self) -> bool {
        self.node.redacts()
    }

    /// Whether it needs `item` or `index`, which only `foreach` brings.
    pub fn uses_item(&self) -> bool {
        self.uses_item
    }

    /// Whether events can be told apart without a tree.
    pub fn is_fast(&self) -> bool {
        self.node.is_fast()
    }

    /// What of an event it reads.
    pub(super) fn reads(&self) -> Reads {
        self.node.reads()
    }

    /// Some value it may have, where the kind is known without an event.
    pub(super) fn sample(&self) -> Option<Datum<'_>> {
        match &self.node {
            Node::Constant(it) => Some(it.as_borrowed()),
            Node::Field(it) => Some(it.sample()),
            Node::DateTrunc(..) => Some(Datum::Time(Timestamp(0))),
            Node::Not(_) => Some(Datum::Bool(true)),
            Node::Compare(Comparator::Equal | Comparator::NotEqual, ..) => Some(Datum::Bool(true)),
            _ => None,
        }
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What of an event an expression reads, besides what every event is read with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reads {
    pub(super) event_id: bool,
    pub(super) payload: bool,
    pub(super) metadata: bool,
}

impl Reads {
    const ALL: Self = Self { event_id: true, payload: true, metadata: true };

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            event_id: self.event_id || other.event_id,
            payload: self.payload || other.payload,
            metadata: self.metadata || other.metadata,
        }
    }
}

/// A step of evaluation.
#[derive(Clone, Debug)]
enum Node {
    Constant(Datum<'static>),
    Field(Field),
    Path(Root, Vec<String>),
    Or(Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Not(Box<Node>),
    /// One side is a constant that is no array or object.
    Compare(Comparator, Box<Node>, Box<Node>),
    DateTrunc(Unit, Box<Node>),
    Redact(Box<Node>),
    Left(Box<Node>, usize),
    Tree(Box<Ast>),
}

impl Node {
    fn reads(&self) -> Reads {
        let none = Reads::default();
        match self {
            Self::Field(Field::EventId) => Reads { event_id: true, ..none },
            Self::Path(Root::Payload, _) => Reads { payload: true, ..none },
            Self::Path(Root::Metadata, _) => Reads { metadata: true, ..none },
            // an element is of what `foreach` reads
            Self::Constant(_) | Self::Field(_) | Self::Path(Root::Item, _) => none,
            Self::Or(a, b) | Self::And(a, b) | Self::Compare(_, a, b) => a.reads().and(b.reads()),
            Self::Not(it) | Self::DateTrunc(_, it) | Self::Redact(it) | Self::Left(it, _) => {
                it.reads()
            }
            Self::Tree(_) => Reads::ALL,
        }
    }

    fn redacts(&self) -> bool {
        match self {
            Self::Redact(_) => true,
            Self::Or(a, b) | Self::And(a, b) | Self::Compare(_, a, b) => a.redacts() || b.redacts(),
            Self::Not(it) | Self::DateTrunc(_, it) | Self::Left(it, _) => it.redacts(),
            // there is none inside of a tree
            Self::Constant(_) | Self::Field(_) | Self::Path(..) | Self::Tree(_) => false,
        }
    }

    fn is_fast(&self) -> bool {
        match self {
            Self::Constant(_) | Self::Field(_) | Self::Path(..) => true,
            Self::Or(a, b) | Self::And(a, b) | Self::Compare(_, a, b) => a.is_fast() && b.is_fast(),
            Self::Not(it) | Self::DateTrunc(_, it) | Self::Redact(it) | Self::Left(it, _) => {
                it.is_fast()
            }
            Self::Tree(_) => false,
        }
    }
}

/// JSON that plain paths start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Payload,
    Metadata,
    Item,
}

impl Root {
    /// The name it has in a path; an element has none of its own.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Payload => Some("payload"),
            Self::Metadata => Some("metadata"),
            Self::Item => None,
        }
    }
}

/// A field of the envelope that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Position,
    ProjectId,
    RunId,
    Version,
    EventId,
    Type,
    RecordedAt,
    Index,
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "position" => Self::Position,
            "project_id" => Self::ProjectId,
            "run_id" => Self::RunId,
            "version" => Self::Version,
            "event_id" => Self::EventId,
            "type" => Self::Type,
            "recorded_at" => Self::RecordedAt,
            "index" => Self::Index,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::ProjectId => "project_id",
            Self::RunId => "run_id",
            Self::Version => "version",
            Self::EventId => "event_id",
            Self::Type => "type",
            Self::RecordedAt => "recorded_at",
            Self::Index => "index",
        }
    }

    fn sample(self) -> Datum<'static> {
        match self {
            Self::Position | Self::Version | Self::Index => Datum::Int(1),
            Self::ProjectId | Self::RunId | Self::EventId => Datum::Uuid(uuid::Uuid::nil()),
            Self::Type => Datum::Text("run_started".into()),
            Self::RecordedAt => Datum::Time(Timestamp(0)),
        }
    }
}

#[cfg(test)]
mod tests;
