//! A lane: the projections that commit together, in one task, over one connection.
//!
//! ```text
//! queue ──▶ fold (while the last transaction is being written) ──▶ write ──▶ committed
//! ```
//!
//! A lane takes whatever waits. When it is quiet that is one event, written at once; when it is busy
//! batches gather in the fold for as long as the transaction before them takes, so that the busier
//! it is the more events share a row change and a commit.
//!
//! A source transaction too large to be held is written in parts, inside one target transaction that
//! ends with it. A projection that a rule fails on leaves the lane; what it had folded is dropped,
//! and its checkpoint stays where it is.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::apply::writer::{Advance, Part, WriteError, Writer, Written};
use crate::definition::Order;
use crate::definition::Scope;
use crate::definition::Scratch;
use crate::engine::heads::Heads;
use crate::engine::progress::{LaneProgress, Progress};
use crate::event::Batch;
use crate::event::Timestamp;
use crate::fold::Fold;
use crate::fold::FoldError;
use crate::history::refold::{History, Refold, refold};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::redact::Redactor;

/// What the reader gives to a lane.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Events of committed transactions.
    Batch(Arc<Batch>),
    /// Nothing up to here: the checkpoint may advance.
    Idle(Lsn),
}

/// A projection left its lane.
#[derive(Debug)]
pub struct Departure {
    /// The projection.
    pub projection: String,
    /// Why.
    pub error: FoldError,
}

/// Why a lane ended before its queue did.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The rows could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A projection left in the midst of a transaction that is written in parts: its rows must go
    /// with the transaction.
    #[error("projection `{0}` failed inside a large transaction")]
    Torn(String),
}

/// What all lanes of a session share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where positions are kept.
    pub progress: Arc<Progress>,
    /// Counted per batch.
    pub metrics: Arc<Metrics>,
    /// What `redact()` hides.
    pub redactor: Arc<Redactor>,
    /// Who is told of failures.
    pub departures: mpsc::Sender<Departure>,
    /// Bytes of pending rows at which a lane stops to take more.
    pub pending_limit: usize,
    /// Where runs are folded again from.
    pub history: Arc<History>,
}

/// A lane at work.
#[derive(Debug)]
pub struct Lane {
    number: usize,
    shared: Shared,
    members: Vec<Member>,
    queue: mpsc::Receiver<Delivery>,
    pending: Pending,
    heads: Heads,
}

/// A projection in its lane.
#[derive(Debug)]
struct Member {
    /// Which of the writer's targets.
    target: usize,
    fold: Fold,
    /// Up to where its rows are committed, or will be when what is being written is.
    checkpoint: Lsn,
    /// Events folded since.
    events: u64,
    failed: bool,
    /// Whether its rows depend on the order of a run's versions.
    follows_versions: bool,
    /// Whether each event has rows of its own, so that waiting gathers nothing.
    grows: bool,
}

/// What has been taken from the queue and is not being written.
#[derive(Debug, Default)]
struct Pending {
    /// The end of the last complete transaction.
    covered: Option<Lsn>,
    committed_at: Option<Timestamp>,
    /// Whether a transaction has begun and not ended.
    is_open: bool,
    /// Whether a part of it has been written.
    is_partly_written: bool,
    /// When the first of it was taken.
    since: Option<Instant>,
    /// Runs with events that came late.
    late: BTreeMap<Uuid, Refold>,
}

/// A lane that is behind gathers for this part of its lag …
const GATHER_PART: u32 = 4;
/// … but no longer than this.
const GATHER_LONGEST: Duration = Duration::from_secs(2);

/// Rows that nothing will be gathered into are sent ahead of their commit at this size.
const EARLY_BYTES: usize = 1024 * 1024;

/// Runs whose order is watched, at least: about 4 MiB.
const WATCHED_RUNS: usize = 50_000;

type Writing = Pin<Box<dyn Future<Output = (Writer, Vec<Part>, Result<Done, WriteError>)> + Send>>;

/// A write that succeeded.
enum Done {
    Part(Duration),
    Whole { written: Written, checkpoint: Checkpoint },
}

/// What a transaction makes durable.
#[derive(Clone, Debug)]
struct Checkpoint {
    covered: Lsn,
    committed_at: Option<Timestamp>,
    /// Per member, the events that it moved over; `None` for one that had left.
    events: Vec<Option<u64>>,
}

impl Lane {
    /// The `number`-th lane: its projections with their checkpoints, in the order of the writer's
    /// targets.
    pub fn new(
        number: usize,
        projections: Vec<(Fold, Lsn)>,
        queue: mpsc::Receiver<Delivery>,
        shared: Shared,
    ) -> Self {
        let member = |(target, (fold, checkpoint)): (usize, (Fold, Lsn))| Member {
            target,
            checkpoint,
            events: 0,
            failed: false,
            follows_versions: fold.definition().order == Order::Version,
            grows: fold.definition().is_unique_per_event(),
            fold,
        };
        let members = projections.into_iter().enumerate().map(member).collect();
        Self {
            number,
            shared,
            members,
            queue,
            pending: Pending::default(),
            heads: Heads::new(WATCHED_RUNS),
        }
    }

    /// Works until the queue is closed and everything in it is written.
    ///
    /// # Errors
    /// When rows cannot be written. What was not committed is lost and will come again.
    pub async fn run(mut self, writer: Writer) -> Result<(), LaneError> {
        let mut writer = Some(writer);
        let mut writing: Option<Writing> = None;
        let mut closed = false;
        loop {
            if writing.is_none()
                && let Some(idle) = writer.take()
            {
                match self.begin_writing(idle) {
                    Ok(begun) => writing = Some(begun),
                    Err(idle) if closed => {
                        drop(idle);
                        return Ok(());
                    }
                    Err(idle) => writer = Some(idle),
                }
            }
            let takes_more = !closed && self.pending_bytes() < self.shared.pending_limit;
            // both branches may be dropped at any await: the write goes on where it is kept, and a
            // receive that was not completed has taken nothing
            tokio::select! {
                biased;
                (idle, parts, result) = finish(&mut writing) => {
                    writing = None;
                    self.written(result?);
                    self.recycle(parts);
                    writer = Some(idle);
                }
                delivery = self.queue.recv(), if takes_more => match delivery {
                    Some(Delivery::Batch(batch)) => self.fold(&batch)?,
                    Some(Delivery::Idle(lsn)) => self.pending.idle(lsn),
                    None => closed = true,
                },
            }
        }
    }

    fn pending_bytes(&self) -> usize {
        self.members.iter().map(|it| it.fold.changes().bytes()).sum()
    }

    /// Starts to write what is pending, if it is time: at the end of a transaction, or in the midst
    /// of one when memory is used up. Rows that only grow in number go ahead. Gives the writer back
    /// when there is nothing to do.
    fn begin_writing(&mut self, mut writer: Writer) -> Result<Writing, Writer> {
        let is_due = self.is_due();
        let early = |it: &Member| it.grows && EARLY_BYTES <= it.fold.changes().bytes();
        if !is_due && !self.members.iter().any(early) {
            return Err(writer);
        }
        let mut parts = Vec::with_capacity(self.members.len());
        for member in self.members.iter_mut().filter(|it| !it.failed && (is_due || early(it))) {
            let changes = member.fold.take();
            if !changes.is_empty() {
                parts.push(Part { target: member.target, changes });
            }
        }
        self.pending.is_partly_written = !is_due || self.pending.is_open;
        if self.pending.is_partly_written {
            return Ok(Box::pin(async move {
                let result = writer.write_part(&parts).await;
                (writer, parts, result.map(Done::Part))
            }));
        }
        let covered = self.pending.covered.take().unwrap_or_default();
        self.pending.since = None;
        let committed_at = self.pending.committed_at.take();
        let advances = self.advances(covered, committed_at);
        let moved = |it: &mut Member| (!it.failed).then(|| std::mem::take(&mut it.events));
        let events = self.members.iter_mut().map(moved).collect();
        let checkpoint = Checkpoint { covered, committed_at, events };
        for member in self.members.iter_mut().filter(|it| !it.failed) {
            member.checkpoint = member.checkpoint.max(covered);
        }
        let refolding = self.refolding();
        Ok(Box::pin(async move {
            let result = write(&mut writer, &parts, &advances, refolding).await;
            (writer, parts, result.map(|written| Done::Whole { written, checkpoint }))
        }))
    }

    /// The checkpoints to move: one group for all projections that moved over as many events.
    fn advances(&self, next: Lsn, committed_at: Option<Timestamp>) -> Vec<Advance> {
        let mut groups: Vec<Advance> = Vec::with_capacity(1);
        for member in self.members.iter().filter(|it| !it.failed && it.checkpoint < next) {
            let events = i64::try_from(member.events).unwrap_or(i64::MAX);
            let name = member.fold.definition().name.clone();
            match groups.iter_mut().find(|it| it.events == events) {
                Some(group) => {
                    group.projections.push(name);
                    group.expected.push(member.checkpoint);
                }
                None => groups.push(Advance {
                    projections: vec![name],
                    expected: vec![member.checkpoint],
                    next,
                    committed_at,
                    events,
                }),
            }
        }
        groups
    }

    /// Whether it is time to write: when nothing more is waiting, when memory is used up, or when
    /// readers have waited long enough.
    ///
    /// A lane that is behind gathers for longer: the more events share a row's change, the sooner it
    /// has caught up. It adds to its lag no more than a part of it.
    fn is_due(&self) -> bool {
        if self.shared.pending_limit <= self.pending_bytes() {
            return true;
        }
        if self.pending.is_open || self.pending.covered.is_none() {
            return false;
        }
        if self.queue.is_empty() {
            return true;
        }
        let lag = self.pending.committed_at.map_or(Duration::ZERO, since);
        let patience = (lag / GATHER_PART).min(GATHER_LONGEST);
        self.pending.since.is_none_or(|since| patience <= since.elapsed())
    }

    fn recycle(&mut self, parts: Vec<Part>) {
        for part in parts {
            if let Some(member) = self.members.get_mut(part.target) {
                let rows = &part.changes.rows;
                let deleted = rows.iter().filter(|row| row.deleted).count() as u64;
                let name = member.fold.definition().name.as_str();
                let total = &self.shared.metrics.rows_total;
                total.with_label_values(&[name, "delete"]).inc_by(deleted);
                total.with_label_values(&[name, "upsert"]).inc_by(rows.len() as u64 - deleted);
                member.fold.recycle(part.changes);
            }
        }
    }

    /// What must be folded again in the transaction that is about to be written.
    fn refolding(&mut self) -> Option<Refolding> {
        let runs = std::mem::take(&mut self.pending.late);
        if runs.is_empty() {
            return None;
        }
        tracing::warn!(
            runs = runs.len(),
            "events came after later ones of their run; folding the runs again from history"
        );
        let members = self.members.iter().filter(|it| !it.failed && it.follows_versions);
        let targets = members.map(|it| it.target).collect();
        let Shared { history, redactor, .. } = &self.shared;
        Some(Refolding {
            runs,
            targets,
            history: Arc::clone(history),
            redactor: Arc::clone(redactor),
        })
    }

    fn written(&mut self, done: Done) {
        let metrics = Arc::clone(&self.shared.metrics);
        let stage = |stage: &str, took: Duration| {
            let labels = [self.progress().name.as_str(), stage];
            metrics.batch_seconds.with_label_values(&labels).observe(took.as_secs_f64());
        };
        match done {
            Done::Part(took) => stage("apply", took),
            Done::Whole { written, checkpoint } => {
                stage("commit", written.took);
                let Checkpoint { covered, committed_at, events } = checkpoint;
                for (progress, events) in self.progress().members.iter().zip(events) {
                    let Some(events) = events else { continue };
                    progress.advance(progress.checkpoint().max(covered), events);
                    metrics.events_total.with_label_values(&[&progress.name]).inc_by(events);
                }
                self.progress().commit(covered, written.wal_lsn, committed_at);
                self.shared.progress.notify();
            }
        }
    }

    fn fold(&mut self, batch: &Batch) -> Result<(), LaneError> {
        let started = Instant::now();
        self.pending.since.get_or_insert(started);
        let shared = self.shared.clone();
        let mut scratch = Scratch::default();
        for transaction in batch.transactions() {
            self.pending.is_open = true;
            for event in batch.events_of(transaction) {
                let head = self.heads.see(event.run_id, event.version);
                if let Some(head) = head {
                    let late = self.pending.late.entry(event.run_id).or_default();
                    late.head = late.head.max(head);
                    late.needed.push(event.version);
                } else if !self.pending.late.is_empty()
                    && let Some(late) = self.pending.late.get_mut(&event.run_id)
                {
                    late.head = late.head.max(event.version);
                }
                let scope = Scope::new(event, &mut scratch, &shared.redactor);
                for at in 0..self.members.len() {
                    let Some(member) = self.members.get_mut(at) else { break };
                    if member.failed || transaction.is_covered_by(member.checkpoint) {
                        continue;
                    }
                    member.events += 1;
                    if head.is_some() && member.follows_versions {
                        continue;
                    }
                    if let Err(error) = member.fold.event(&scope) {
                        let projection = error.projection.clone();
                        self.depart(at, error);
                        if self.pending.is_partly_written {
                            return Err(LaneError::Torn(projection));
                        }
                    }
                }
            }
            if let Some(end) = transaction.end_lsn {
                self.pending.is_open = false;
                self.pending.covered = Some(end);
                self.pending.committed_at = Some(transaction.committed_at);
            }
        }
        let labels = [self.progress().name.as_str(), "fold"];
        let took = started.elapsed().as_secs_f64();
        shared.metrics.batch_seconds.with_label_values(&labels).observe(took);
        Ok(())
    }

    fn depart(&mut self, at: usize, error: FoldError) {
        let Some(member) = self.members.get_mut(at) else { return };
        member.failed = true;
        member.events = 0;
        drop(member.fold.take());
        if let Some(progress) = self.progress().members.get(at) {
            progress.fail();
        }
        let projection = error.projection.clone();
        // there is room for every projection, and each leaves once
        let sent = self.shared.departures.try_send(Departure { projection, error });
        if let Err(error) = sent {
            tracing::error!(%error, "a failed projection could not be reported");
        }
    }

    fn progress(&self) -> &LaneProgress {
        self.shared.progress.lanes().get(self.number).expect("a lane has its own progress")
    }
}

impl Pending {
    fn idle(&mut self, lsn: Lsn) {
        if !self.is_open {
            self.covered = Some(self.covered.map_or(lsn, |it| it.max(lsn)));
        }
    }
}

/// How long ago something was committed. The clock only decides how long to gather.
fn since(at: Timestamp) -> Duration {
    let micros = crate::engine::now().0.saturating_sub(at.0);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Runs to fold again, and for whom.
struct Refolding {
    runs: BTreeMap<Uuid, Refold>,
    targets: Vec<usize>,
    history: Arc<History>,
    redactor: Arc<Redactor>,
}

/// Writes rows and checkpoints, and what is folded again in between.
async fn write(
    writer: &mut Writer,
    parts: &[Part],
    advances: &[Advance],
    refolding: Option<Refolding>,
) -> Result<Written, WriteError> {
    let Some(Refolding { runs, targets, history, redactor }) = refolding else {
        return writer.write(parts, advances).await;
    };
    writer.write_part(parts).await?;
    refold(writer, &targets, &runs, &history, &redactor).await?;
    writer.write(&[], advances).await
}

/// The end of what is being written; never, where nothing is.
async fn finish(writing: &mut Option<Writing>) -> (Writer, Vec<Part>, Result<Done, WriteError>) {
    match writing {
        Some(it) => it.await,
        None => std::future::pending().await,
    }
}
