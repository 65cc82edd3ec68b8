//! One row of the events table as an event, in one pass over its values.

use uuid::Uuid;

use crate::event::Event;
use crate::event::Timestamp;
use crate::pgoutput::Column;
use crate::pgoutput::EventColumns;
use crate::pgoutput::Field;
use crate::pgoutput::Tuple;

use super::value::{self, NotA};

/// Why a row is not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowProblem {
    /// The row has another number of values than its table has columns.
    #[error("a row of {found} values in a table of {expected} columns")]
    Width {
        /// What the table has.
        expected: usize,
        /// What the row has.
        found: usize,
    },
    /// Null where an event needs a value.
    #[error("the column of {0:?} is null")]
    Null(Field),
    /// A value was not sent; only an update may leave one out.
    #[error("the column of {0:?} was not sent")]
    NotSent(Field),
    /// A value of another type.
    #[error("the column of {0:?} is {1}")]
    Value(Field, NotA),
}

/// A row that is not an event.
pub(super) struct Unreadable {
    pub(super) position: Option<i64>,
    pub(super) problem: RowProblem,
}

/// Reads the envelope out of `row`.
pub(super) fn read<'a>(row: &Tuple<'a>, columns: &EventColumns) -> Result<Event<'a>, Unreadable> {
    let mut event = Event {
        position: 0,
        project_id: Uuid::nil(),
        run_id: Uuid::nil(),
        version: 0,
        event_id: Uuid::nil(),
        kind: "",
        payload: "",
        metadata: "",
        recorded_at: Timestamp(0),
    };
    let fields = columns.fields();
    if fields.len() != row.len() {
        let problem = RowProblem::Width { expected: fields.len(), found: row.len() };
        return Err(Unreadable { position: None, problem });
    }
    // EventColumns has each field exactly once, so that no default above survives.
    let mut position = None;
    for (column, field) in row.columns().zip(fields) {
        let Some(field) = *field else { continue };
        if let Err(problem) = put(&mut event, field, column) {
            return Err(Unreadable { position, problem });
        }
        if field == Field::Position {
            position = Some(event.position);
        }
    }
    Ok(event)
}

fn put<'a>(event: &mut Event<'a>, field: Field, column: Column<'a>) -> Result<(), RowProblem> {
    match column {
        Column::Null => return Err(RowProblem::Null(field)),
        Column::Unchanged => return Err(RowProblem::NotSent(field)),
        Column::Text(_) | Column::Binary(_) => {}
    }
    let value = match field {
        Field::Position => value::integer(column).map(|it| event.position = it),
        Field::Version => value::integer(column)
            .and_then(|it| i32::try_from(it).map_err(|_| NotA::Integer))
            .map(|it| event.version = it),
        Field::ProjectId => value::uuid(column).map(|it| event.project_id = it),
        Field::RunId => value::uuid(column).map(|it| event.run_id = it),
        Field::EventId => value::uuid(column).map(|it| event.event_id = it),
        Field::Kind => value::text(column).map(|it| event.kind = it),
        Field::Payload => value::json(column).map(|it| event.payload = it),
        Field::Metadata => value::json(column).map(|it| event.metadata = it),
        Field::RecordedAt => value::time(column).map(|it| event.recorded_at = it),
    };
    value.map_err(|not_a| RowProblem::Value(field, not_a))
}
