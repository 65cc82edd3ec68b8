//! The rows of single runs, made anew from history in the midst of the stream.
//!
//! Folding a run again gives the same rows however often it is done, so it is the answer to whatever
//! a single change cannot put right: events of a run that came in another order than their versions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::apply::writer::{Part, WriteError, Writer};
use crate::config::Columns;
use crate::definition::{Scope, Scratch};
use crate::fold::Fold;
use crate::history::event::{queried, select_list};
use crate::ident::QualifiedName;
use crate::redact::Redactor;

/// A run to fold again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refold {
    /// Up to which version. What lies beyond comes through the stream.
    pub head: i32,
    /// Versions that must be there.
    pub needed: Vec<i32>,
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
/// # Errors
/// See [`WriteError`]; the connection must then be given up.
pub async fn refold(
    writer: &mut Writer,
    targets: &[usize],
    runs: &BTreeMap<Uuid, Refold>,
    history: &History,
    redactor: &Redactor,
) -> Result<(), WriteError> {
    let rows = read(writer, runs, history).await?;
    let ids: Vec<Uuid> = runs.keys().copied().collect();
    let mut scratch = Scratch::default();
    let mut parts = Vec::with_capacity(targets.len());
    for &target in targets {
        let Some(definition) = writer.definition(target) else { continue };
        let mut fold = Fold::new(Arc::clone(definition));
        for row in &rows {
            let event = queried(row).map_err(WriteError::Transaction)?;
            if runs.get(&event.run_id).is_some_and(|run| event.version <= run.head) {
                fold.event(&Scope::new(event, &mut scratch, redactor))?;
            }
        }
        writer.delete_runs(target, &ids).await?;
        parts.push(Part { target, changes: fold.take() });
    }
    writer.write_part(&parts).await?;
    Ok(())
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
    let there = |run: Uuid, version: i32| {
        rows.iter()
            .filter_map(|row| queried(row).ok())
            .any(|it| it.run_id == run && it.version == version)
    };
    let needed = runs.iter().flat_map(|(run, it)| it.needed.iter().map(|version| (*run, *version)));
    needed.into_iter().find(|(run, version)| !there(*run, *version))
}
