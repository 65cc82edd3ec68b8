//! What a lane writes, and when.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::apply::error::WriteError;
use crate::apply::writer::{Advance, Part, Writer, Written, bytes};
use crate::engine::lane::{Lane, Member, Shared};
use crate::event::Timestamp;
use crate::history::refold::{History, Refold, refold};
use crate::lsn::Lsn;
use crate::redact::Redactor;

/// A lane that is behind gathers for this part of its lag …
const GATHER_PART: u32 = 4;
/// … but no longer than this.
const GATHER_LONGEST: Duration = Duration::from_secs(2);

/// This far behind, it gathers although it waits for more …
const FAR_BEHIND: Duration = Duration::from_secs(1);
/// … unless nothing has come for so long after the last that was waiting, or after any.
pub(super) const QUIET: Duration = Duration::from_millis(30);
const QUIET_AMID: Duration = Duration::from_millis(200);

/// Rows that nothing will be gathered into are sent ahead of their commit at this size.
const EARLY_BYTES: usize = 1024 * 1024;

pub(super) type Writing =
    Pin<Box<dyn Future<Output = (Writer, Vec<Part>, Result<Done, WriteError>)> + Send>>;

/// A write that succeeded.
pub(super) enum Done {
    Part(Duration),
    Whole { written: Written, checkpoint: Checkpoint, parked: bool },
}

/// What a transaction makes durable.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    covered: Lsn,
    committed_at: Option<Timestamp>,
    /// Per member, the events that it moved over; `None` for one that had left.
    events: Vec<Option<u64>>,
}

impl Lane {
    /// Starts to write what is pending, if it is time: at the end of a transaction, or in the midst
    /// of one when memory is used up. Rows that only grow in number go ahead. Gives the writer back
    /// when there is nothing to do.
    pub(super) fn begin_writing(&mut self, mut writer: Writer) -> Result<Writing, Writer> {
        let is_due = self.is_due();
        let early = |it: &Member| it.grows && EARLY_BYTES <= it.fold.changes().bytes();
        if !is_due && !self.members.iter().any(early) {
            return Err(writer);
        }
        let mut parts = Vec::with_capacity(self.members.len());
        for (target, member) in self.members.iter_mut().enumerate() {
            if member.failed || !(is_due || early(member)) {
                continue;
            }
            let changes = member.fold.take();
            if !changes.is_empty() {
                parts.push(Part { target, changes });
            }
        }
        let in_flight = Arc::clone(&self.in_flight);
        in_flight.store(bytes(&parts), Ordering::Relaxed);
        self.pending.is_partly_written = !is_due || self.pending.is_open;
        if self.pending.is_partly_written {
            return Ok(Box::pin(async move {
                let result = write_part(&mut writer, &mut parts, &in_flight).await;
                (writer, parts, result.map(Done::Part))
            }));
        }
        let covered = self.pending.covered.take().unwrap_or_default();
        self.pending.since = None;
        self.pending.lag = Duration::ZERO;
        let committed_at = self.pending.committed_at.take();
        let advances = self.advances(covered, committed_at);
        let moved = |it: &mut Member| (!it.failed).then(|| std::mem::take(&mut it.events));
        let events = self.members.iter_mut().map(moved).collect();
        let checkpoint = Checkpoint { covered, committed_at, events };
        for member in self.members.iter_mut().filter(|it| !it.failed) {
            member.checkpoint = member.checkpoint.max(covered);
        }
        let refolding = self.refolding();
        self.is_refolding = refolding.is_some();
        Ok(Box::pin(async move {
            let result = match write_many(&mut writer, &mut parts, &in_flight).await {
                Ok(()) => write(&mut writer, &parts, &advances, refolding).await,
                Err(error) => Err(error),
            };
            let done = |(written, parked)| Done::Whole { written, checkpoint, parked };
            (writer, parts, result.map(done))
        }))
    }

    /// The checkpoints to move: one group for all projections that moved over as many events.
    pub(super) fn advances(&self, next: Lsn, committed_at: Option<Timestamp>) -> Vec<Advance> {
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
    /// has caught up. It adds to its lag no more than a part of it. Far behind it does so although it
    /// is quicker than the server sends and its queue is often empty.
    pub(super) fn is_due(&self) -> bool {
        if self.shared.pending_limit <= self.pending_bytes() {
            return true;
        }
        if self.pending.is_open || self.pending.covered.is_none() {
            return false;
        }
        if self.asked.is_some() || self.queue.is_empty() && self.nothing_comes() {
            return true;
        }
        let patience = (self.pending.lag / GATHER_PART).min(GATHER_LONGEST);
        self.pending.since.is_none_or(|since| patience <= since.elapsed())
    }

    /// Whether it is not worth waiting for what is not in the queue.
    fn nothing_comes(&self) -> bool {
        let quiet = if self.pending.more { QUIET_AMID } else { QUIET };
        self.pending.lag < FAR_BEHIND
            || self.queue.is_closed()
            || self.pending.taken.is_none_or(|taken| quiet <= taken.elapsed())
    }

    pub(super) fn recycle(&mut self, parts: Vec<Part>) {
        for part in parts {
            if let Some(member) = self.members.get_mut(part.target) {
                let (rows, deleted) = part.changes.counts();
                let name = member.fold.definition().name.as_str();
                let total = &self.shared.metrics.rows_total;
                total.with_label_values(&[name, "delete"]).inc_by(deleted as u64);
                total.with_label_values(&[name, "upsert"]).inc_by((rows - deleted) as u64);
                let letters = &part.changes.letters;
                if !letters.is_empty() {
                    let total = &self.shared.metrics.errors_total;
                    total.with_label_values(&[name, "poison"]).inc_by(letters.len() as u64);
                }
                // what only waits for an earlier one has been told with that
                let tried = letters.iter().filter(|it| it.is_tried);
                if let Some(first) = tried.clone().next() {
                    let (events, error) = (tried.count(), first.error.as_str());
                    tracing::warn!(projection = name, events, error, "events were set aside");
                }
                member.fold.recycle(part.changes);
            }
        }
    }

    /// What must be folded again in the transaction that is about to be written.
    pub(super) fn refolding(&mut self) -> Option<Refolding> {
        let runs = std::mem::take(&mut self.pending.late);
        let members = self.members.iter().enumerate();
        let members = members.filter(|(_, it)| !it.failed && it.follows_versions);
        let targets: Vec<_> = members.map(|(target, _)| target).collect();
        if runs.is_empty() || targets.is_empty() {
            return None;
        }
        tracing::warn!(
            runs = runs.len(),
            "events came after later ones of their run; folding the runs again from history"
        );
        let Shared { history, redactor, .. } = &self.shared;
        Some(Refolding {
            runs,
            targets,
            history: Arc::clone(history),
            redactor: Arc::clone(redactor),
        })
    }

    pub(super) fn written(&mut self, done: Done) {
        let metrics = Arc::clone(&self.shared.metrics);
        let stage = |stage: &str, took: Duration| {
            let labels = [self.progress().name.as_str(), stage];
            metrics.batch_seconds.with_label_values(&labels).observe(took.as_secs_f64());
        };
        match done {
            Done::Part(took) => stage("apply", took),
            Done::Whole { written, checkpoint, .. } => {
                stage("commit", written.took);
                let Checkpoint { covered, committed_at, events } = checkpoint;
                let has_rows = events.iter().flatten().any(|it| 0 < *it);
                for (member, events) in self.members.iter().zip(events) {
                    let (Some(events), progress) = (events, &member.progress) else { continue };
                    progress.advance(progress.checkpoint().max(covered), events);
                    metrics.events_total.with_label_values(&[&progress.name]).inc_by(events);
                }
                self.progress().commit(covered, written.wal_lsn, committed_at);
                self.shared.progress.notify();
                if has_rows {
                    self.shared.progress.serve();
                    self.shared.commits.send_modify(|it| *it = it.wrapping_add(1));
                }
            }
        }
    }
}

/// Runs to fold again, and for whom.
pub(super) struct Refolding {
    runs: BTreeMap<Uuid, Refold>,
    targets: Vec<usize>,
    history: Arc<History>,
    redactor: Arc<Redactor>,
}

/// Writes many rows ahead of the rest, and gives their memory up on the way; few go with the rest.
async fn write_many(
    writer: &mut Writer,
    parts: &mut [Part],
    in_flight: &AtomicUsize,
) -> Result<(), WriteError> {
    if bytes(parts) < EARLY_BYTES {
        return Ok(());
    }
    writer.write_rows(parts, in_flight).await
}

async fn write_part(
    writer: &mut Writer,
    parts: &mut [Part],
    in_flight: &AtomicUsize,
) -> Result<Duration, WriteError> {
    let started = Instant::now();
    write_many(writer, parts, in_flight).await?;
    writer.write_part(parts).await?;
    Ok(started.elapsed())
}

/// Writes rows and checkpoints, and what is folded again in between; says whether that parked a row.
async fn write(
    writer: &mut Writer,
    parts: &[Part],
    advances: &[Advance],
    refolding: Option<Refolding>,
) -> Result<(Written, bool), WriteError> {
    let Some(Refolding { runs, targets, history, redactor }) = refolding else {
        return Ok((writer.write(parts, advances).await?, false));
    };
    writer.write_part(parts).await?;
    let parked = refold(writer, &targets, &runs, &history, &redactor).await?;
    Ok((writer.write(&[], advances).await?, parked))
}

/// The end of what is being written; never, where nothing is.
pub(super) async fn finish(
    writing: &mut Option<Writing>,
) -> (Writer, Vec<Part>, Result<Done, WriteError>) {
    match writing {
        Some(it) => it.await,
        None => std::future::pending().await,
    }
}
