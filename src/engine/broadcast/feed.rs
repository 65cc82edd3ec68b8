//! What the reader hands to the broadcaster: whole batches, never waiting for it.
//!
//! Nothing is made of a batch before it can be sent: who is far behind drops batches that nobody has
//! looked at, which costs nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::event::Batch;
use crate::lsn::Lsn;

/// Batches on their way to the broadcaster, within a bound of bytes.
#[derive(Debug)]
pub struct Feed {
    waiting: Mutex<Waiting>,
    /// Bytes of lines that wait to be sent: they are older, and count as well.
    rendered: AtomicUsize,
    limit: usize,
    pushed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    bytes: usize,
    idle: Lsn,
    skipped: Skipped,
}

#[derive(Debug)]
struct Entry {
    batch: Arc<Batch>,
    /// Where its last transaction ends; `None` while that is not known.
    end: Option<Lsn>,
}

/// What was dropped because there was too much of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Up to where.
    pub(super) through: Lsn,
    /// How many events.
    pub(super) events: u64,
}

impl Feed {
    /// One that holds about `limit` bytes, lines that wait to be sent included.
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            rendered: AtomicUsize::new(0),
            limit,
            pushed: Notify::new(),
        }
    }

    /// Takes a batch. When there is too much, the oldest are dropped down to half of the limit; the
    /// newest stays, whatever its size.
    pub fn push(&self, batch: Arc<Batch>) {
        let mut waiting = self.waiting();
        let continued = batch.transactions().first().and_then(|it| it.end_lsn);
        for entry in waiting.entries.iter_mut().rev().take_while(|it| it.end.is_none()) {
            entry.end = continued;
        }
        let end = batch.transactions().last().and_then(|it| it.end_lsn);
        waiting.bytes += batch.bytes();
        waiting.entries.push_back(Entry { batch, end });
        let rendered = self.rendered.load(Ordering::Relaxed);
        if self.limit < waiting.bytes + rendered {
            while self.limit / 2 < waiting.bytes && 1 < waiting.entries.len() {
                waiting.drop_oldest();
            }
        }
        drop(waiting);
        self.pushed.notify_one();
    }

    /// Nothing more comes before `lsn`.
    pub fn idle(&self, lsn: Lsn) {
        self.waiting().idle = lsn;
        self.pushed.notify_one();
    }

    /// The oldest batch, when all of it is committed up to `visible`, and where it ends.
    pub(super) fn take(&self, visible: Lsn) -> Option<(Arc<Batch>, Lsn)> {
        let mut waiting = self.waiting();
        let first = waiting.entries.front()?;
        let end = first.end.filter(|it| *it <= visible)?;
        let entry = waiting.entries.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(entry.batch.bytes());
        Some((entry.batch, end))
    }

    /// Up to where nothing is waiting, if nothing is.
    pub(super) fn idle_at(&self) -> Option<Lsn> {
        let waiting = self.waiting();
        waiting.entries.is_empty().then_some(waiting.idle)
    }

    /// What was dropped since this was asked last.
    pub(super) fn skipped(&self) -> Option<Skipped> {
        let mut waiting = self.waiting();
        let skipped = std::mem::take(&mut waiting.skipped);
        (skipped != Skipped::default()).then_some(skipped)
    }

    /// Events and bytes that wait.
    pub(super) fn size(&self) -> (usize, usize) {
        let waiting = self.waiting();
        (waiting.entries.iter().map(|it| it.batch.len()).sum(), waiting.bytes)
    }

    /// So many bytes of lines wait to be sent.
    pub(super) fn set_rendered(&self, bytes: usize) {
        self.rendered.store(bytes, Ordering::Relaxed);
    }

    /// Resolves when something was handed over.
    pub(super) async fn pushed(&self) {
        self.pushed.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn drop_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes = self.bytes.saturating_sub(entry.batch.bytes());
        let complete = entry.batch.transactions().iter().filter_map(|it| it.end_lsn).max();
        let through = entry.end.or(complete).unwrap_or_default();
        self.skipped.through = self.skipped.through.max(through);
        self.skipped.events += entry.batch.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::{Event, Timestamp};

    /// A transaction of one event, or a part of one where it has no end.
    fn batch(commit: u64, end: Option<u64>) -> Arc<Batch> {
        let mut batch = Batch::default();
        batch.begin(Lsn(commit), Timestamp(0));
        batch.push(Event {
            position: 1,
            project_id: Uuid::nil(),
            run_id: Uuid::nil(),
            version: 1,
            event_id: Uuid::nil(),
            kind: "log",
            payload: "{}",
            metadata: "{}",
            recorded_at: Timestamp(0),
        });
        if let Some(end) = end {
            batch.commit(Lsn(end));
        }
        Arc::new(batch)
    }

    fn taken(feed: &Feed, visible: u64) -> Option<Lsn> {
        feed.take(Lsn(visible)).map(|it| it.1)
    }

    #[test]
    fn nothing_is_told_before_it_can_be_read() {
        let feed = Feed::new(1 << 20);
        feed.push(batch(10, Some(20)));
        // one transaction in two parts
        feed.push(batch(30, None));
        feed.idle(Lsn(15));

        assert_eq!(taken(&feed, 19), None);
        assert_eq!(taken(&feed, 20), Some(Lsn(20)));
        assert_eq!(taken(&feed, 1000), None);
        assert_eq!(feed.idle_at(), None);
        feed.push(batch(30, Some(40)));
        assert_eq!(taken(&feed, 39), None);
        assert_eq!((taken(&feed, 40), taken(&feed, 40)), (Some(Lsn(40)), Some(Lsn(40))));
        assert_eq!((feed.size(), feed.idle_at()), ((0, 0), Some(Lsn(15))));
    }

    #[test]
    fn the_oldest_is_dropped_and_said() {
        let one = batch(10, Some(20)).bytes();
        let feed = Feed::new(4 * one);
        for number in 1..=5 {
            feed.push(batch(number * 10, Some(number * 10 + 5)));
        }

        assert_eq!(feed.skipped(), Some(Skipped { through: Lsn(35), events: 3 }));
        assert_eq!((feed.skipped(), feed.size()), (None, (2, 2 * one)));
        feed.set_rendered(4 * one);
        feed.push(batch(90, Some(95)));
        assert_eq!(feed.skipped(), Some(Skipped { through: Lsn(45), events: 1 }));
        assert_eq!(taken(&feed, 100), Some(Lsn(55)));
    }
}
