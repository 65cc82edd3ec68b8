//! Rules in Rust, where TOML does not say it.
//!
//! A definition with `[handler]` in the place of `[[on]]` says which table there is and which
//! operations its code uses; a [`Handler`] says what an event does. It emits the same operations as
//! rules do, so that everything else stays the same: batches are folded, rows are upserted, rebuilt,
//! verified and parked as always.
//!
//! ```
//! use projector::definition::{Handler, HandlerError, Rows};
//! use projector::event::Event;
//!
//! #[derive(Debug)]
//! struct Orders;
//!
//! impl Handler for Orders {
//!     fn event<'a>(&self, event: &Event<'a>, rows: &mut Rows<'a>) -> Result<(), HandlerError> {
//!         match event.kind {
//!             "item_added" => drop(rows.row().add("items", 1)),
//!             "order_shipped" => drop(rows.row().set("status", "shipped")),
//!             _ => {}
//!         }
//!         Ok(())
//!     }
//! }
//! ```

use std::fmt;
use std::sync::Arc;

use super::datum::Datum;
use super::model::{Definition, Op};
use crate::event::Event;

/// What events do to the rows of a read model, in Rust.
///
/// The same event must always do the same: a handler looks at nothing but the event (no clock, no
/// state, no other table), since rows are made again from history, and compared with it. When its
/// meaning changes, so must `name` under `[handler]`, which has the rows made anew.
pub trait Handler: fmt::Debug + Send + Sync {
    /// Says what an event does. It is called for the events that `[handler]` names, in the order of
    /// the log.
    ///
    /// # Errors
    /// When the event makes no sense. It is then set aside for all rows that it has named so far, or
    /// for the row of the definition's key where it has named none: see `on_error`.
    fn event<'a>(&self, event: &Event<'a>, rows: &mut Rows<'a>) -> Result<(), HandlerError>;
}

/// Why a handler cannot take an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(String);

impl HandlerError {
    /// For this reason, in a few words.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// What an event does, row by row: empty at first.
#[derive(Debug, Default)]
pub struct Rows<'a> {
    changes: Vec<RowChange<'a>>,
}

/// What an event does to one row. Operations apply in their order; those on columns that the
/// definition does not have, or that `[handler]` does not declare, are errors.
#[derive(Debug, Default)]
pub struct RowChange<'a> {
    /// The columns of the key that have values of their own.
    pub(crate) key: Vec<(&'static str, Datum<'a>)>,
    /// In the order in which they apply.
    pub(crate) operations: Vec<(Op, &'static str, Datum<'a>)>,
    /// Whether the row goes before they apply.
    pub(crate) deletes: bool,
}

impl<'a> Rows<'a> {
    /// The row of the definition's key.
    pub fn row(&mut self) -> &mut RowChange<'a> {
        self.row_of([])
    }

    /// The row of the definition's key with other values in some of its columns. A column whose
    /// expression is a field of the event (`run_id`, `position` …) cannot have another: that a row
    /// belongs to its run is what its order comes from.
    pub fn row_of<const N: usize>(
        &mut self,
        key: [(&'static str, Datum<'a>); N],
    ) -> &mut RowChange<'a> {
        let at = self.changes.len();
        self.changes.push(RowChange { key: key.into(), ..RowChange::default() });
        self.changes.get_mut(at).expect("it has just been put there")
    }

    /// Everything that was said, in its order.
    pub(crate) fn into_changes(self) -> Vec<RowChange<'a>> {
        self.changes
    }
}

impl<'a> RowChange<'a> {
    /// The column holds this value, of the latest event.
    pub fn set(&mut self, column: &'static str, value: impl Into<Datum<'a>>) -> &mut Self {
        self.operation(Op::Set, column, value)
    }

    /// The column holds the first event's value that is not null.
    pub fn set_once(&mut self, column: &'static str, value: impl Into<Datum<'a>>) -> &mut Self {
        self.operation(Op::SetOnce, column, value)
    }

    /// The column holds the sum.
    pub fn add(&mut self, column: &'static str, value: impl Into<Datum<'a>>) -> &mut Self {
        self.operation(Op::Add, column, value)
    }

    /// The column holds the least.
    pub fn min(&mut self, column: &'static str, value: impl Into<Datum<'a>>) -> &mut Self {
        self.operation(Op::Min, column, value)
    }

    /// The column holds the greatest.
    pub fn max(&mut self, column: &'static str, value: impl Into<Datum<'a>>) -> &mut Self {
        self.operation(Op::Max, column, value)
    }

    /// The value goes to the end of the column's array.
    pub fn append(&mut self, column: &'static str, value: impl Into<Datum<'a>>) -> &mut Self {
        self.operation(Op::Append, column, value)
    }

    /// The value's members go into the column's object.
    pub fn merge(&mut self, column: &'static str, value: impl Into<Datum<'a>>) -> &mut Self {
        self.operation(Op::Merge, column, value)
    }

    /// The row goes, with what was said of it before. A later change makes it anew.
    pub fn delete(&mut self) -> &mut Self {
        self.operations.clear();
        self.deletes = true;
        self
    }

    fn operation(
        &mut self,
        op: Op,
        column: &'static str,
        value: impl Into<Datum<'a>>,
    ) -> &mut Self {
        self.operations.push((op, column, value.into()));
        self
    }
}

/// The code of a definition.
#[derive(Clone, Debug)]
pub struct Code {
    /// What the definition calls it: another name for another meaning.
    pub name: String,
    /// The code itself, where the program has brought it.
    pub handler: Option<Arc<dyn Handler>>,
}

impl Definition {
    /// The same, with the code that its `[handler]` speaks of.
    #[must_use]
    pub fn with_handler(mut self, handler: Arc<dyn Handler>) -> Self {
        if let Some(code) = &mut self.code {
            code.handler = Some(handler);
        }
        self
    }

    /// Whether nothing is missing to follow it: the code, where it needs some.
    pub fn is_complete(&self) -> bool {
        self.code.as_ref().is_none_or(|it| it.handler.is_some())
    }
}
