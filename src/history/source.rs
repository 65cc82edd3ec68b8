//! Where history is, and what is made of it.

use std::sync::Arc;

use crate::config::Columns;
use crate::definition::Definition;
use crate::history::pace::Pace;
use crate::ident::{Ident, QualifiedName};
use crate::pg::Settings;
use crate::pgoutput::ColumnNames;
use crate::redact::Redactor;

/// Where history is and how to read it.
#[derive(Clone, Debug)]
pub struct Source {
    /// How to reach the database.
    pub settings: Settings,
    /// The events table.
    pub events: QualifiedName,
    /// What its columns are called.
    pub columns: Columns,
    /// The publication that a slot is read through.
    pub publication: Ident,
    /// The schema of the read models.
    pub schema: Ident,
    /// What `redact()` hides.
    pub redactor: Arc<Redactor>,
    /// Bytes of pending rows at which they are written out, over all projections.
    pub memory: usize,
    /// How many rows of a projection may be parked.
    pub parked_limit: usize,
    /// Whether events are written with care, to find those whose rows the database refuses.
    pub is_careful: bool,
    /// How it gives way to those who are served meanwhile.
    pub pace: Pace,
}

/// A table to be made of history.
#[derive(Clone, Debug)]
pub struct Target {
    /// By whose rules.
    pub definition: Arc<Definition>,
    /// The table. It stands alone; what is there by that name goes first.
    pub table: QualifiedName,
}

/// How far a fill is.
#[derive(Clone, Copy, Debug)]
pub struct BuildProgress {
    /// Events folded.
    pub done: u64,
    /// About how many there are.
    pub total: u64,
}

/// The columns as the log's relations are asked for them.
pub fn column_names(columns: &Columns) -> ColumnNames {
    let name = |it: &Ident| it.as_str().to_owned();
    ColumnNames {
        position: name(&columns.position),
        project_id: name(&columns.project_id),
        run_id: name(&columns.run_id),
        version: name(&columns.version),
        event_id: name(&columns.event_id),
        kind: name(&columns.kind),
        payload: name(&columns.payload),
        metadata: name(&columns.metadata),
        recorded_at: name(&columns.recorded_at),
    }
}
