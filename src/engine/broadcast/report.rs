//! What a broadcaster says of itself: for status, metrics and the log.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::broadcast::Feed;
use crate::engine::status::BroadcastStatus;
use crate::lsn::Lsn;
use crate::metrics::Metrics;

/// Skipping goes on while a target is away: it is said again after so long.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// A broadcaster's latest word; it outlives a session, as its counts do.
#[derive(Debug, Default)]
pub(in crate::engine) struct Report(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    status: BroadcastStatus,
    waiting_since: Option<Instant>,
    said_at: Option<Instant>,
    /// Whether the checkpoint could not be kept the last time.
    is_unkept: bool,
}

impl Report {
    /// As it is now.
    pub(in crate::engine) fn now(&self) -> BroadcastStatus {
        let known = self.known();
        let lag = known.waiting_since.map_or(0.0, |it| it.elapsed().as_secs_f64());
        BroadcastStatus { lag_seconds: lag, ..known.status.clone() }
    }

    /// A session begins, or definitions have changed.
    pub(super) fn tells(&self, target: &str, definitions: Vec<String>) {
        let status = &mut self.known().status;
        target.clone_into(&mut status.target);
        status.definitions = definitions;
    }

    pub(super) fn is_at(&self, delivered: Lsn, (lines, bytes): (usize, usize), feed: &Feed) {
        let (events, fed) = feed.size();
        let mut known = self.known();
        known.status.checkpoint = Some(delivered);
        known.status.backlog_lines = (lines + events) as u64;
        known.status.backlog_bytes = (bytes + fed) as u64;
        match known.status.backlog_lines {
            0 => known.waiting_since = None,
            _ => drop(known.waiting_since.get_or_insert_with(Instant::now)),
        }
    }

    pub(super) fn publish(&self, metrics: &Metrics, target: &str) {
        let status = &self.known().status;
        let gauge = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        let lines = &metrics.broadcast_backlog_lines;
        lines.with_label_values(&[target]).set(gauge(status.backlog_lines));
        let bytes = &metrics.broadcast_backlog_bytes;
        bytes.with_label_values(&[target]).set(gauge(status.backlog_bytes));
    }

    pub(super) fn sends(&self, messages: usize) {
        let mut known = self.known();
        known.status.sent_total += messages as u64;
        known.status.failing = false;
        // what comes now has waited since now, at most
        known.waiting_since = known.waiting_since.map(|_| Instant::now());
    }

    pub(super) fn waits(&self, error: &str) {
        let status = &mut self.known().status;
        status.failing = true;
        status.last_error = Some(error.to_owned());
    }

    /// The checkpoint could not be kept. Broadcasts go on.
    pub(super) fn cannot_keep(&self, error: &str) {
        let mut known = self.known();
        let text = format!("the checkpoint of broadcasts is not kept: {error}");
        if !std::mem::replace(&mut known.is_unkept, true) {
            tracing::warn!(error, "the checkpoint of broadcasts is not kept");
        }
        known.status.last_error = Some(text);
    }

    /// The checkpoint was kept.
    pub(super) fn keeps(&self) {
        if std::mem::take(&mut self.known().is_unkept) {
            tracing::info!("the checkpoint of broadcasts is kept again");
        }
    }

    /// The broadcaster is gone, which only a fault of ours can bring about. Read models go on, and so
    /// does the session: what it fell over would come again.
    pub(super) fn ended(&self) {
        let text = "the broadcaster has ended; the next session starts another";
        let is_new = self.known().status.last_error.as_deref() != Some(text);
        if is_new {
            tracing::error!("{text}");
        }
        self.waits(text);
    }

    pub(super) fn skips(&self, target: &str, events: u64, lines: usize) {
        let mut known = self.known();
        known.status.skipped_total += events + lines as u64;
        if known.said_at.is_some_and(|it| it.elapsed() < SAID_AGAIN) {
            return;
        }
        known.said_at = Some(Instant::now());
        tracing::warn!(
            target_kind = target,
            skipped = known.status.skipped_total,
            "broadcasts beyond realtime.max_backlog are skipped; viewers fetch them from the tables"
        );
    }

    pub(super) fn refuses(&self, target: &str, topic: &str, reason: &str) {
        tracing::warn!(target_kind = target, topic, reason, "a broadcast is refused and left out");
        let status = &mut self.known().status;
        status.refused_total += 1;
        status.last_error = Some(reason.to_owned());
    }

    /// An event has no line because a rule failed on it.
    pub(super) fn fails(&self, definition: &str, error: &str) {
        let status = &mut self.known().status;
        status.skipped_total += 1;
        let text = format!("broadcast `{definition}`: {error}");
        if status.last_error.as_deref() != Some(text.as_str()) {
            tracing::warn!(broadcast = definition, error, "an event cannot be broadcast");
        }
        status.last_error = Some(text);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
