//! How a build gives way to those who are served meanwhile.
//!
//! Alone with the server, a build uses all it can: several readers, each with a writer. While somebody
//! is served it takes turns with itself: one of its connections works at a time, for some milliseconds,
//! and then none does for as long. That leaves the others a processor of two, and half of the other
//! one; and since a turn always comes, a build comes to its end however much there is to do beside it.
//!
//! A server process works ahead of whoever reads from it only by what fits into a socket, so that it
//! keeps the pace of its reader.
//!
//! And it writes no more log than it may: as much as the slots of the server have let go of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep_until};

/// How long a turn lasts, where what is done in it can be interrupted.
const TURN: Duration = Duration::from_millis(4);
/// How long nobody works after a turn, at most: what cannot be interrupted may have taken long.
const REST: Duration = Duration::from_millis(250);

/// More than anybody writes.
const UNLIMITED: u64 = u64::MAX / 2;

/// Who else is served, and whose turn it is.
#[derive(Clone)]
pub struct Pace {
    is_busy: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Until when nobody works.
    rest: Arc<Mutex<Instant>>,
    /// Bytes of log that may still be written.
    log: Arc<watch::Sender<u64>>,
}

/// Leave to work until it is dropped.
pub(super) struct Turn {
    since: Instant,
    rest: Option<OwnedMutexGuard<Instant>>,
}

impl Pace {
    /// Gives way whenever `is_busy` says that somebody is served.
    pub fn new(is_busy: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let rest = Arc::new(Mutex::new(Instant::now()));
        Self { is_busy: Arc::new(is_busy), rest, log: Arc::new(watch::Sender::new(u64::MAX)) }
    }

    /// Gives way to nobody.
    pub fn full() -> Self {
        Self::new(|| false)
    }

    /// So many bytes of log may be written from now on.
    pub fn allow(&self, bytes: u64) {
        self.log.send_replace(bytes);
    }

    /// Waits until log may be written, and takes so many bytes of what may be. Not to be called by
    /// whoever has a turn.
    pub(super) async fn afford(&self, bytes: usize) {
        // it does not end while `self` is there
        drop(self.log.subscribe().wait_for(|left| 0 < *left).await);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.log.send_modify(|left| *left = left.saturating_sub(bytes));
    }

    /// Whether much must not be written in one transaction: whoever follows the log passes over it at
    /// once, and no slot lets go of its log before it has ended.
    pub(super) fn is_careful(&self) -> bool {
        self.is_busy() || *self.log.borrow() < UNLIMITED
    }

    /// Whether somebody is served now.
    pub(super) fn is_busy(&self) -> bool {
        (self.is_busy)()
    }

    /// Waits for a turn. Whoever has one must not wait for somebody who waits for one.
    pub(super) async fn turn(&self) -> Turn {
        if !self.is_busy() {
            return Turn { since: Instant::now(), rest: None };
        }
        let rest = Arc::clone(&self.rest).lock_owned().await;
        sleep_until(*rest).await;
        Turn { since: Instant::now(), rest: Some(rest) }
    }
}

impl Turn {
    /// Whether it is time to let others work.
    pub(super) fn is_over(&self) -> bool {
        TURN <= self.since.elapsed()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(rest) = &mut self.rest {
            **rest = Instant::now() + self.since.elapsed().min(REST);
        }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("is_busy", &self.is_busy()).finish_non_exhaustive()
    }
}
