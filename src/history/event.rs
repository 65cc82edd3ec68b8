//! Rows of the events table, read by SQL.

use postgres_types::Type;
use tokio_postgres::binary_copy::BinaryCopyOutRow;
use tokio_postgres::{Error as PgError, Row};

use crate::config::Columns;
use crate::event::Event;

/// The types of [`select_list`]'s columns.
pub const COLUMN_TYPES: [Type; 9] = [
    Type::INT8,
    Type::UUID,
    Type::UUID,
    Type::INT4,
    Type::UUID,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TIMESTAMPTZ,
];

/// The envelope's columns in its order, JSON as text.
pub fn select_list(columns: &Columns) -> String {
    let list = columns.pairs().map(|(name, column)| match name {
        "type" | "payload" | "metadata" => format!("{column}::text"),
        _ => column.to_string(),
    });
    list.join(", ")
}

/// The event in a row of `COPY`.
///
/// # Errors
/// When the row has other columns than [`select_list`].
pub fn copied(row: &BinaryCopyOutRow) -> Result<Event<'_>, PgError> {
    Ok(Event {
        position: row.try_get(0)?,
        project_id: row.try_get(1)?,
        run_id: row.try_get(2)?,
        version: row.try_get(3)?,
        event_id: row.try_get(4)?,
        kind: row.try_get(5)?,
        payload: row.try_get(6)?,
        metadata: row.try_get(7)?,
        recorded_at: row.try_get(8)?,
    })
}

/// The event in a row of a query.
///
/// # Errors
/// When the row has other columns than [`select_list`].
pub fn queried(row: &Row) -> Result<Event<'_>, PgError> {
    Ok(Event {
        position: row.try_get(0)?,
        project_id: row.try_get(1)?,
        run_id: row.try_get(2)?,
        version: row.try_get(3)?,
        event_id: row.try_get(4)?,
        kind: row.try_get(5)?,
        payload: row.try_get(6)?,
        metadata: row.try_get(7)?,
        recorded_at: row.try_get(8)?,
    })
}
