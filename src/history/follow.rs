//! Tables brought from an anchor to exactly any later position.
//!
//! ```text
//! snapshot            limit                     what was received
//! ────────●─────────────┊──────────────────────────▶
//!         └── applied ──┘└── kept in memory ──┘
//! ```
//!
//! A transaction is applied when its commit record starts before the limit, which is what
//! [`Transaction::is_covered_by`] says of a checkpoint there. What came beyond the limit waits on the
//! tape, and as long as some of it waits nothing more is read.
//!
//! The tables are seen by nobody, so that commits need not end with a source transaction.
//!
//! [`Transaction::is_covered_by`]: crate::event::Transaction::is_covered_by

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::apply::letters;
use crate::apply::writer::{Part, Writer};
use crate::definition::{Order, Scope, Scratch};
use crate::event::Batch;
use crate::fold::Fold;
use crate::history::error::BuildError;
use crate::history::heads::Heads;
use crate::history::held::Held;
use crate::history::refold::{History, Refold, refold};
use crate::history::source::{Source, Target};
use crate::history::tape::Tape;
use crate::lsn::Lsn;
use crate::pg;

/// Runs whose order is watched, at least.
const WATCHED_RUNS: usize = 50_000;
/// How long to wait before the server is asked how far it is, at first …
const ASK_FIRST: Duration = Duration::from_millis(5);
/// … and at most; each time twice as long.
const ASK_LAST: Duration = Duration::from_millis(200);
/// How long the server may bring nothing new while something is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Keeps tables in step with the log, up to where it is told.
pub struct Follower {
    tape: Tape,
    writer: Writer,
    folds: Vec<Fold>,
    /// What is to be written with care.
    held: Held,
    /// How many transactions of the first batch that waits have been applied.
    applied_of_first: usize,
    events: u64,
    heads: Heads,
    late: BTreeMap<Uuid, Refold>,
    source: Source,
}

impl Follower {
    /// Takes up a tape for tables that hold what the snapshot at its beginning saw.
    ///
    /// # Errors
    /// When a table is not what its definition says, or a connection is gone.
    pub async fn start(
        source: &Source,
        mut tape: Tape,
        targets: &[Target],
    ) -> Result<Self, BuildError> {
        tape.play()?;
        let client = pg::connect(&source.settings, "projector build").await?;
        let tables: Vec<_> =
            targets.iter().map(|it| (Arc::clone(&it.definition), it.table.clone())).collect();
        let mut writer =
            Writer::prepare(client, &tables, (&source.events, &source.columns)).await?;
        writer.building();
        let folds = folds(&writer, source, targets).await?;
        Ok(Self {
            tape,
            writer,
            folds,
            held: Held::default(),
            applied_of_first: 0,
            events: 0,
            heads: Heads::new(WATCHED_RUNS),
            late: BTreeMap::new(),
            source: source.clone(),
        })
    }

    /// Applies everything up to `limit` and nothing beyond, and commits it. `limit` is a position
    /// that the server has flushed; one that has been passed changes nothing.
    ///
    /// Not to be given up in the midst: the tables are then to be dropped.
    ///
    /// # Errors
    /// See [`BuildError`]; the tables are then to be dropped.
    pub async fn to(&mut self, limit: Lsn) -> Result<(), BuildError> {
        let mut pause = ASK_FIRST;
        let mut heard = (Instant::now(), self.tape.received, self.events);
        loop {
            let beyond = self.apply(limit).await?;
            if beyond || limit <= self.tape.received {
                break;
            }
            if !self.tape.hear(pause).await? {
                self.tape.report(true).await?;
                pause = (pause * 2).min(ASK_LAST);
            }
            let received = self.tape.received;
            if (heard.1, heard.2) != (received, self.events) {
                heard = (Instant::now(), received, self.events);
            } else if PATIENCE <= heard.0.elapsed() {
                return Err(BuildError::Silent { limit, received, waited: PATIENCE });
            }
        }
        self.write().await?;
        self.tape.report(false).await
    }

    /// Tells the server that somebody is there: it hangs up on a stream that says nothing for a
    /// minute. To be called from time to time while nothing is to be applied.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn keep_alive(&mut self) -> Result<(), BuildError> {
        self.tape.report(false).await
    }

    /// Up to where the server is known to have sent everything.
    pub fn received(&self) -> Lsn {
        self.tape.received
    }

    /// Events applied since the anchor.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Ends the stream; the slot goes with it.
    ///
    /// # Errors
    /// When the connection breaks before the server has heard of it.
    pub async fn finish(self) -> Result<(), BuildError> {
        self.tape.finish().await
    }

    /// Folds what waits and is not beyond `limit`; says whether something waits that is.
    async fn apply(&mut self, limit: Lsn) -> Result<bool, BuildError> {
        while let Some(batch) = self.tape.waiting.pop_front() {
            loop {
                let Some(transaction) = batch.transactions().get(self.applied_of_first) else {
                    self.applied_of_first = 0;
                    break;
                };
                if !transaction.is_covered_by(limit) {
                    self.tape.waiting.push_front(batch);
                    return Ok(true);
                }
                self.fold(&batch, self.applied_of_first)?;
                self.applied_of_first += 1;
            }
            if self.held.is_full()
                || self.source.memory <= self.folds.iter().map(|it| it.changes().bytes()).sum()
            {
                self.write().await?;
                self.tape.report(false).await?;
            }
        }
        Ok(false)
    }

    fn fold(&mut self, batch: &Batch, transaction: usize) -> Result<(), BuildError> {
        let Some(transaction) = batch.transactions().get(transaction) else { return Ok(()) };
        let mut scratch = Scratch::default();
        let lsn = transaction.end_lsn.unwrap_or(transaction.commit_lsn);
        for event in batch.events_of(transaction) {
            let head = self.heads.see(event.run_id, event.version);
            if let Some(head) = head {
                let late = self.late.entry(event.run_id).or_default();
                late.head = late.head.max(head);
                late.needed.push(event.version);
                late.lsn = lsn;
            } else if let Some(late) = self.late.get_mut(&event.run_id) {
                late.head = late.head.max(event.version);
            }
            self.events += 1;
            if self.source.is_careful {
                self.held.keep(event, lsn, head.is_some());
                continue;
            }
            let scope = Scope::new(event, &mut scratch, &self.source.redactor);
            for fold in &mut self.folds {
                // its run is folded again as a whole
                if head.is_none() || fold.definition().order != Order::Version {
                    fold.at(lsn);
                    fold.event(&scope)?;
                }
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), BuildError> {
        let Self { writer, folds, held, source, .. } = self;
        held.write(writer, folds, &source.redactor).await?;
        let part = |(target, fold): (usize, &mut Fold)| Part { target, changes: fold.take() };
        let parts: Vec<_> = self.folds.iter_mut().enumerate().map(part).collect();
        let parts: Vec<_> = parts.into_iter().filter(|it| !it.changes.is_empty()).collect();
        let late = std::mem::take(&mut self.late);
        if late.is_empty() {
            self.writer.write(&parts, &[]).await?;
            return Ok(());
        }
        self.writer.write_part(&parts).await?;
        let by_version = |it: &Fold| it.definition().order == Order::Version;
        let targets = self.folds.iter().enumerate().filter(|(_, it)| by_version(it));
        let targets: Vec<_> = targets.map(|(at, _)| at).collect();
        let Source { events, columns, redactor, .. } = &self.source;
        let history = History { events: events.clone(), columns: columns.clone() };
        let parks = refold(&mut self.writer, &targets, &late, &history, redactor).await?;
        self.writer.write(&[], &[]).await?;
        if parks {
            for (target, fold) in self.folds.iter_mut().enumerate() {
                park(&self.writer, target, fold).await?;
            }
        }
        Ok(())
    }
}

/// Folds that know which rows the fill has parked.
async fn folds(
    writer: &Writer,
    source: &Source,
    targets: &[Target],
) -> Result<Vec<Fold>, BuildError> {
    let mut folds = Vec::with_capacity(targets.len());
    for (target, it) in targets.iter().enumerate() {
        let mut fold = Fold::new(Arc::clone(&it.definition));
        fold.limit_parked(source.parked_limit);
        park(writer, target, &mut fold).await?;
        folds.push(fold);
    }
    Ok(folds)
}

async fn park(writer: &Writer, target: usize, fold: &mut Fold) -> Result<(), BuildError> {
    fold.free();
    let parked = letters::parked(writer.client(), writer.letters_owner(target), usize::MAX).await?;
    for key in parked {
        // the fold has written it itself
        if let Err(error) = fold.park(key.as_deref()) {
            tracing::warn!(%error, "a dead letter is of no row");
        }
    }
    Ok(())
}
