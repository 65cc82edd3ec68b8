//! The checkpoint of broadcasts: kept as often as it is worth it, and again where that fails.
//!
//! It decides only what is told again after a crash, so that nobody waits for it: it is kept by a task
//! of its own, one at a time. A failure is said, and only what was written counts as kept.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use super::report::Report;
use crate::lsn::Lsn;
use crate::realtime::checkpoint;
use crate::realtime::link::{Link, LinkError, within};
use crate::wal::backoff::Backoff;

/// How often it is kept, at most.
const KEEP: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const LONGEST: Duration = Duration::from_secs(30);

/// Keeps the checkpoint.
#[derive(Debug)]
pub(super) struct Keeper {
    /// The connection, unless it is in use.
    link: Option<Link>,
    /// What is being kept.
    keeping: Option<AbortOnDropHandle<Kept>>,
    kept: Lsn,
    /// When to keep the next.
    due: Instant,
    backoff: Backoff,
}

/// A checkpoint that was to be kept, and what came of it.
#[derive(Debug)]
struct Kept {
    link: Link,
    lsn: Lsn,
    result: Result<(), LinkError>,
}

impl Keeper {
    /// One that has kept `kept`.
    pub(super) fn new(link: Link, kept: Lsn, now: Instant) -> Self {
        let backoff = Backoff::new(KEEP, LONGEST, fastrand::u64(..));
        Self { link: Some(link), keeping: None, kept, due: now + KEEP, backoff }
    }

    /// Somebody else has kept it.
    pub(super) fn kept(&mut self, lsn: Lsn) {
        self.kept = self.kept.max(lsn);
        self.due = Instant::now() + KEEP;
    }

    /// When there is something to begin, if there is.
    pub(super) fn due(&self, delivered: Lsn) -> Option<Instant> {
        (self.link.is_some() && self.kept < delivered).then_some(self.due)
    }

    /// Begins to keep what was delivered, when that is due.
    pub(super) async fn keep(&mut self, delivered: Lsn, report: &Report) {
        if self.keeping.as_ref().is_some_and(AbortOnDropHandle::is_finished) {
            self.ended(report).await;
        }
        if self.due(delivered).is_some_and(|it| it <= Instant::now()) {
            self.begin(delivered);
        }
    }

    /// Keeps what was delivered, and waits until that is done or has failed.
    pub(super) async fn keep_last(&mut self, delivered: Lsn, report: &Report) {
        if self.keeping.is_some() {
            self.ended(report).await;
        }
        if self.link.is_some() && self.kept < delivered {
            self.begin(delivered);
            self.ended(report).await;
        }
    }

    /// Until what is being kept is kept, or has failed; for ever, where nothing is. To be given up at
    /// any time.
    pub(super) async fn ended(&mut self, report: &Report) {
        let Some(keeping) = &mut self.keeping else { return pending().await };
        let ended = keeping.await;
        self.keeping = None;
        let Kept { link, lsn, result } = match ended {
            Ok(kept) => kept,
            // a fault of ours took the connection along: the next session keeps it again
            Err(error) => return report.cannot_keep(&error.to_string()),
        };
        self.link = Some(link);
        let wait = match result {
            Ok(()) => {
                self.kept = self.kept.max(lsn);
                self.backoff.reset();
                report.keeps();
                KEEP
            }
            Err(error) => {
                report.cannot_keep(&error.to_string());
                self.backoff.wait()
            }
        };
        self.due = Instant::now() + wait;
    }

    fn begin(&mut self, lsn: Lsn) {
        let Some(mut link) = self.link.take() else { return };
        let keeping = tokio::spawn(async move {
            let result = save(&mut link, lsn).await;
            Kept { link, lsn, result }
        });
        self.keeping = Some(AbortOnDropHandle::new(keeping));
    }
}

async fn save(link: &mut Link, lsn: Lsn) -> Result<(), LinkError> {
    let client = link.take().await?;
    within(checkpoint::save(&client, lsn)).await?;
    link.put(client);
    Ok(())
}
