//! History folded event by event and written by the statement that live changes are written by.
//!
//! The way that can do everything: defaults that only Postgres computes, columns of any type, events
//! that the database refuses. `fast` is the way for the rest.

use std::sync::Arc;
use std::time::Instant;

use futures_util::TryStreamExt;
use tokio_postgres::binary_copy::BinaryCopyOutStream;

use crate::apply::writer::{Part, Writer};
use crate::config::Columns;
use crate::definition::{Scope, Scratch};
use crate::fold::Fold;
use crate::history::anchor::Anchor;
use crate::history::error::BuildError;
use crate::history::event::{COLUMN_TYPES, copied, select_list};
use crate::history::fill::{Filled, Purpose, TELL, adopt, estimate, make_table};
use crate::history::held::Held;
use crate::history::source::{BuildProgress, Source, Target};
use crate::ident::literal;
use crate::pg;

/// How often others may have their turn, in events.
const LOOK: u64 = 256;

/// Fills the tables, which are made here.
pub(super) async fn fill(
    source: &Source,
    anchor: &Anchor,
    targets: &[Target],
    purpose: Purpose,
    tell: &mut (impl FnMut(BuildProgress) + Send),
) -> Result<Filled, BuildError> {
    let reader = pg::connect(&source.settings, "projector history").await?;
    let writer = pg::connect(&source.settings, "projector build").await?;
    let begin = "begin isolation level repeatable read read only; set transaction snapshot";
    reader.batch_execute(&format!("{begin} {}", literal(&anchor.snapshot))).await?;
    let total = estimate(&reader, source).await?;
    for target in targets {
        make_table(&writer, source, target, purpose).await?;
    }
    let copy = reader.copy_out(&copy_statement(source)).await?;
    let tables: Vec<_> =
        targets.iter().map(|it| (Arc::clone(&it.definition), it.table.clone())).collect();
    let mut writer = Writer::prepare(writer, &tables, (&source.events, &source.columns)).await?;
    writer.building();
    let mut folds: Vec<_> =
        targets.iter().map(|it| Fold::new(Arc::clone(&it.definition))).collect();
    for fold in &mut folds {
        fold.limit_parked(source.parked_limit);
    }
    let mut held = Held::default();
    let rows = BinaryCopyOutStream::new(copy, &COLUMN_TYPES);
    let mut rows = std::pin::pin!(rows);
    let mut scratch = Scratch::default();
    let mut done: u64 = 0;
    let mut turn = source.pace.turn().await;
    let mut told = Instant::now();
    tell(BuildProgress { done, total });
    while let Some(row) = rows.try_next().await? {
        if turn.is_over() && done.is_multiple_of(LOOK) {
            drop(turn);
            turn = source.pace.turn().await;
        }
        done += 1;
        if source.is_careful {
            held.push(copied(&row)?, anchor.lsn);
            if held.is_full() {
                drop(turn);
                source.pace.afford(held.bytes()).await;
                turn = source.pace.turn().await;
                held.write(&mut writer, &mut folds, &source.redactor).await?;
                // no slot lets go of log that an open transaction has written
                writer.write(&[], &[]).await?;
            }
        } else {
            let scope = Scope::new(copied(&row)?, &mut scratch, &source.redactor);
            for fold in &mut folds {
                fold.at(anchor.lsn);
                fold.event(&scope)?;
            }
        }
        let pending: usize = folds.iter().map(|it| it.changes().bytes()).sum();
        if source.memory <= pending {
            drop(turn);
            source.pace.afford(pending).await;
            turn = source.pace.turn().await;
            writer.write(&parts(&mut folds), &[]).await?;
        }
        if TELL <= told.elapsed() {
            told = Instant::now();
            tell(BuildProgress { done, total: total.max(done) });
        }
    }
    held.write(&mut writer, &mut folds, &source.redactor).await?;
    writer.write(&parts(&mut folds), &[]).await?;
    drop(turn);
    for target in targets.iter().filter(|_| purpose == Purpose::Serve) {
        adopt(writer.client(), source, target).await?;
    }
    tell(BuildProgress { done, total: done });
    Ok(Filled { events: done })
}

/// Run by run, so that all events of a row come together and the row is written once.
fn copy_statement(source: &Source) -> String {
    let Columns { run_id, version, .. } = &source.columns;
    let columns = select_list(&source.columns);
    let events = &source.events;
    format!(
        "copy (select {columns} from {events} order by {run_id}, {version}) to stdout (format binary)"
    )
}

fn parts(folds: &mut [Fold]) -> Vec<Part> {
    let part = |(target, fold): (usize, &mut Fold)| Part { target, changes: fold.take() };
    folds.iter_mut().enumerate().map(part).filter(|it| !it.changes.is_empty()).collect()
}
