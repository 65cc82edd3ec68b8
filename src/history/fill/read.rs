//! Rows of the events table in `COPY`'s binary format: only the columns that somebody reads.

use uuid::Uuid;

use crate::config::Columns;
use crate::definition::{Needs, Wanted};
use crate::event::{Event, Timestamp};
use crate::history::fill::split::Range;
use crate::history::source::Source;
use crate::ident::literal;

/// The statement that reads a range, run by run.
pub(super) fn statement(source: &Source, needs: &Needs, range: Range) -> String {
    let Columns {
        position,
        project_id,
        run_id,
        version,
        event_id,
        kind,
        payload,
        metadata,
        recorded_at,
    } = &source.columns;
    let event_id = if needs.event_id { event_id.to_string() } else { "null".to_owned() };
    let metadata = if needs.metadata { metadata.to_string() } else { "null".to_owned() };
    let payload = match &needs.payload {
        Wanted::All => payload.to_string(),
        Wanted::Of(types) if types.is_empty() => "null".to_owned(),
        Wanted::Of(types) => {
            let types: Vec<_> = types.iter().map(|it| literal(it)).collect();
            format!("case when {kind} in ({}) then {payload} end", types.join(", "))
        }
    };
    let (events, condition) = (&source.events, range.condition(run_id));
    format!(
        "copy (select {position}, {project_id}, {run_id}, {version}, {kind}, {recorded_at},
           {event_id}, {payload}, {metadata}
         from {events} where {condition} order by {run_id}, {version}) to stdout (format binary)"
    )
}

/// What a copy begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The server sent something else than the columns that were asked for.
#[derive(Debug, thiserror::Error)]
#[error("a row of the events table cannot be read")]
pub struct BadRow;

/// The event in a message of the copy; nothing at its end.
pub(super) fn event(message: &[u8]) -> Result<Option<Event<'_>>, BadRow> {
    let row = match message.strip_prefix(SIGNATURE) {
        // flags, and the length of what else there is: none of either
        Some(rest) => rest.get(8..).ok_or(BadRow)?,
        None => message,
    };
    let (count, row) = row.split_first_chunk().ok_or(BadRow)?;
    match i16::from_be_bytes(*count) {
        -1 => Ok(None),
        9 => read(row).map(Some).ok_or(BadRow),
        _ => Err(BadRow),
    }
}

fn read(mut row: &[u8]) -> Option<Event<'_>> {
    let row = &mut row;
    let position = i64::from_be_bytes(fixed(row)?);
    let project_id = Uuid::from_bytes(fixed(row)?);
    let run_id = Uuid::from_bytes(fixed(row)?);
    let version = i32::from_be_bytes(fixed(row)?);
    let kind = std::str::from_utf8(field(row)??).ok()?;
    let recorded_at = Timestamp::from_postgres(i64::from_be_bytes(fixed(row)?));
    let event_id = match field(row)? {
        Some(bytes) => Uuid::from_slice(bytes).ok()?,
        None => Uuid::nil(),
    };
    let (payload, metadata) = (json(row)?, json(row)?);
    Some(Event {
        position,
        project_id,
        run_id,
        version,
        event_id,
        kind,
        payload,
        metadata,
        recorded_at,
    })
}

/// The next field; `Some(None)` is null.
fn field<'a>(row: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, rest) = row.split_first_chunk()?;
    let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
        *row = rest;
        return Some(None);
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *row = rest;
    Some(Some(value))
}

fn fixed<const N: usize>(row: &mut &[u8]) -> Option<[u8; N]> {
    field(row)??.try_into().ok()
}

/// The text of a `jsonb`, or an empty object for one that was not asked for.
fn json<'a>(row: &mut &'a [u8]) -> Option<&'a str> {
    match field(row)? {
        None => Some("{}"),
        Some([1, text @ ..]) => std::str::from_utf8(text).ok(),
        Some(_) => None,
    }
}
