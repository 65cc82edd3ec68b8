//! Writing the rows of one projection where the database refuses some of them.
//!
//! What only the database sees (a column that must not be null, a check, a sum out of range) shows
//! when the rows of many events are written at once, and the statement does not say which event is to
//! blame. So it is searched for: the events are written in halves, and halves of halves, each after a
//! savepoint, until one stands alone. Its row is parked; all others are written.

use crate::apply::error::WriteError;
use crate::apply::writer::{Part, Writer};
use crate::definition::{Scope, Scratch};
use crate::event::Event;
use crate::fold::Fold;
use crate::fold::letters::key_of;
use crate::fold::rows::Changes;
use crate::lsn::Lsn;
use crate::redact::Redactor;

/// An event, and where its transaction ends.
pub type Located<'a> = (Event<'a>, Lsn);

/// Folds events and writes what they make of the rows of the writer's `target`-th projection, in its
/// open transaction. Nothing may be pending in the fold.
///
/// # Errors
/// When nothing can be set aside, or no more; see [`WriteError`].
pub async fn write(
    writer: &mut Writer,
    (target, fold): (usize, &mut Fold),
    events: &[Located<'_>],
    redactor: &Redactor,
) -> Result<(), WriteError> {
    let mut scratch = Scratch::default();
    if fold.definition().sql.is_some() {
        // a statement fails as a whole: there is no row to park
        for (event, _) in events {
            fold.event(&Scope::new(*event, &mut scratch, redactor))?;
        }
        let part = Part { target, changes: fold.take() };
        return writer.write_part(&[part]).await.map(drop);
    }
    let mut parts = if events.is_empty() { Vec::new() } else { vec![events] };
    while let Some(part) = parts.pop() {
        let mark = fold.mark();
        for (event, lsn) in part {
            fold.at(*lsn);
            fold.event(&Scope::new(*event, &mut scratch, redactor))?;
        }
        let changes = fold.take();
        let rows: Vec<_> = (0..changes.rows.len()).collect();
        match (writer.try_rows(target, &changes, &rows).await?, part) {
            (Ok(()), _) => writer.write_letters(target, &changes.letters).await?,
            (Err(_), [only]) => {
                row_by_row(writer, (target, fold), &changes, only, redactor).await?;
            }
            (Err(_), _) => {
                fold.rewind(mark);
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
        fold.recycle(changes);
    }
    Ok(())
}

/// Writes the rows of a single event, each for itself.
async fn row_by_row(
    writer: &mut Writer,
    (target, fold): (usize, &mut Fold),
    changes: &Changes,
    (event, _): &Located<'_>,
    redactor: &Redactor,
) -> Result<(), WriteError> {
    writer.write_letters(target, &changes.letters).await?;
    let definition = std::sync::Arc::clone(fold.definition());
    // a row may have a second change in a later pass
    let keys: Vec<_> =
        (0..changes.rows.len()).map(|row| key_of(&definition, changes, row)).collect();
    for row in changes.pass(0) {
        let same = |it: &usize| keys.get(*it) == keys.get(row);
        let rows: Vec<_> = (0..changes.rows.len()).filter(same).collect();
        if let Err(error) = writer.try_rows(target, changes, &rows).await? {
            fold.refused(event, (changes, row), (&said(&error), redactor))?;
        }
    }
    let letters = fold.take();
    writer.write_letters(target, &letters.letters).await
}

/// What the database said, in a line.
pub(super) fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(it) => format!("{} ({})", it.message(), it.code().code()),
        None => error.to_string(),
    }
}
