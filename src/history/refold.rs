//! The rows of single runs, made anew from history in the midst of the stream.
//!
//! Folding a run again gives the same rows however often it is done, so it is the answer to whatever
//! a single change cannot put right: events of a run that came in another order than their versions.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::apply::error::WriteError;
use crate::apply::letters::{self, condition};
use crate::apply::writer::{Part, Writer};
use crate::config::Columns;
use crate::definition::{Scope, Scratch};
use crate::fold::Fold;
use crate::fold::letters::Letter;
use crate::history::event::{queried, select_list};
use crate::ident::QualifiedName;
use crate::lsn::Lsn;
use crate::redact::Redactor;

/// A run to fold again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refold {
    /// Up to which version. What lies beyond comes through the stream.
    pub head: i32,
    /// Versions that must be there: those that came late.
    pub needed: Vec<i32>,
    /// Where the transaction of the last of them ends.
    pub lsn: Lsn,
}

/// Where history is.
#[derive(Clone, Debug)]
pub struct History {
    /// The events table.
    pub events: QualifiedName,
    /// What its columns are called.
    pub columns: Columns,
}

/// How often, and how long each time, to wait for an event that was received but is not visible yet:
/// a commit is in the log a moment before others can see it, and longer with synchronous standbys.
const PATIENCE: (u32, Duration) = (500, Duration::from_millis(20));

/// Replaces the rows of some runs in some of the writer's projections, in its open transaction.
///
/// Rows that are parked stay as they are: the late events of them are set aside like all others.
/// Says whether a row was parked that was not: then folds that go on must read what is.
///
/// # Errors
/// See [`WriteError`]; the connection must then be given up.
pub async fn refold(
    writer: &mut Writer,
    targets: &[usize],
    runs: &BTreeMap<Uuid, Refold>,
    history: &History,
    redactor: &Redactor,
) -> Result<bool, WriteError> {
    let rows = read(writer, runs, history).await?;
    let ids: Vec<Uuid> = runs.keys().copied().collect();
    let mut scratch = Scratch::default();
    let mut parts = Vec::with_capacity(targets.len());
    let mut parks = false;
    for &target in targets {
        let Some(definition) = writer.definition(target).cloned() else { continue };
        let owner = writer.letters_owner(target);
        let parked = letters::parked_of(writer.client(), owner, &ids).await;
        let parked = parked.map_err(WriteError::Transaction)?;
        let mut fold = Fold::new(Arc::clone(&definition));
        let mut stay = Vec::with_capacity(parked.len());
        for key in &parked {
            // a key of another definition belongs to none of these rows
            if let (Ok(()), Ok(it)) = (fold.park(Some(key)), condition(&definition, key)) {
                stay.push(it);
            }
        }
        let was_parked = fold.mark();
        for row in &rows {
            let event = queried(row).map_err(WriteError::Transaction)?;
            if let Some(run) = runs.get(&event.run_id)
                && event.version <= run.head
            {
                fold.at(run.lsn);
                fold.event(&Scope::new(event, &mut scratch, redactor))?;
            }
        }
        let mut changes = fold.take();
        let is_new =
            |it: &Letter| it.key.as_ref().is_some_and(|it| !fold.had_parked(&was_parked, it));
        let is_late =
            |it: &Letter| runs.get(&it.run_id).is_some_and(|run| run.needed.contains(&it.version));
        changes.letters.retain(|it| is_new(it) || is_late(it));
        parks |= changes.letters.iter().any(is_new);
        writer.delete_runs(target, &ids, &stay).await?;
        parts.push(Part { target, changes });
    }
    writer.write_part(&parts).await?;
    Ok(parks)
}

/// The events of the runs, in order.
async fn read(
    writer: &Writer,
    runs: &BTreeMap<Uuid, Refold>,
    history: &History,
) -> Result<Vec<Row>, WriteError> {
    let History { events, columns } = history;
    let list = select_list(columns);
    let Columns { run_id, version, .. } = columns;
    let sql = format!(
        "select {list} from {events} where {run_id} = any ($1) order by {run_id}, {version}"
    );
    let ids: Vec<Uuid> = runs.keys().copied().collect();
    let mut tries = 0;
    loop {
        let rows = writer.client().query(&sql, &[&ids]).await.map_err(WriteError::Transaction)?;
        let Some((run, version)) = missing(&rows, runs) else { return Ok(rows) };
        tries += 1;
        if PATIENCE.0 < tries {
            return Err(WriteError::NotVisible { run, version });
        }
        tokio::time::sleep(PATIENCE.1).await;
    }
}

/// An event that must be there and is not.
fn missing(rows: &[Row], runs: &BTreeMap<Uuid, Refold>) -> Option<(Uuid, i32)> {
    let there: HashSet<(Uuid, i32)> = rows
        .iter()
        .filter_map(|row| queried(row).ok())
        .map(|event| (event.run_id, event.version))
        .collect();
    let needed = runs.iter().flat_map(|(run, it)| it.needed.iter().map(|version| (*run, *version)));
    needed.into_iter().find(|it| !there.contains(it))
}
