//! All together: connects, builds what is missing, streams, and starts over when something breaks.
//!
//! * `status`: what there is to report · `progress`: how far everybody is
//! * `heads`: which events come late · `lane`: folds and writes · `reader`: reads and acknowledges
//! * `session`: from a connection to its end · `monitor`: watches from outside
//! * this file: one session after the other
//!
//! ```text
//!            ┌─────────────── transient: wait, longer each time ◀──────────────┐
//!            ▼                                                                  │
//!  connect ─▶ lead? ─no─▶ stand by    slot ─▶ build from history ─▶ stream ─────┤
//!            ▲ yes                                                              │
//!            └──────────────── slot lost: make a new one ◀──────────────────────┘
//! ```
//!
//! There is one way to recover: end the session and begin the next from what is durable. What the
//! slot cannot give any more is made from history.

pub mod status;
pub mod progress;
mod heads;
pub mod lane;
pub mod reader;
mod error;
mod monitor;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::error::EngineError;
use self::error::Remedy;
use self::session::Session;
use self::status::{Phase, Status};
use crate::config::Config;
use crate::definition::Definition;
use crate::event::Timestamp;
use crate::metrics::Metrics;
use crate::pg::Settings;
use crate::redact::Redactor;
use crate::wal::backoff::Backoff;

/// The first wait after a session broke, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Everything an engine works with.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The database.
    pub settings: Settings,
    /// The configuration.
    pub config: Arc<Config>,
    /// What to project; names differ.
    pub definitions: Vec<Arc<Definition>>,
    /// What `redact()` hides.
    pub redactor: Arc<Redactor>,
    /// Counted into.
    pub metrics: Arc<Metrics>,
    /// Published to.
    pub status: Arc<Board>,
}

/// Where the engine's status is published, and what outlives a session.
#[derive(Debug)]
pub struct Board {
    sender: watch::Sender<Arc<Status>>,
    failures: Mutex<BTreeMap<String, String>>,
}

impl Board {
    /// A process that has just begun.
    pub fn new(slot: &str) -> Self {
        let (sender, _) = watch::channel(Arc::new(Status::starting(slot, now())));
        Self { sender, failures: Mutex::default() }
    }

    /// What is published from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Status>> {
        self.sender.subscribe()
    }

    /// Publishes a changed status.
    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.sender.send_modify(|status| {
            let mut next = Status::clone(status);
            change(&mut next);
            next.updated_at = now();
            *status = Arc::new(next.judged(now()));
        });
    }

    fn enter(&self, phase: Phase) {
        self.update(|status| status.phase = phase);
    }

    /// Remembers why a projection is out, until the process ends.
    fn fail(&self, projection: &str, error: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.insert(projection.to_owned(), error.to_owned());
    }

    fn failures(&self) -> BTreeMap<String, String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Engine {
    /// Works until `shutdown`, then finishes what it has received.
    ///
    /// # Errors
    /// When the first connection cannot be made, or when something is wrong that waiting does not
    /// mend. Once it has streamed, what can mend itself is waited for, for ever.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1, fastrand::u64(..));
        let mut told = String::new();
        let mut has_streamed = false;
        loop {
            self.status.enter(Phase::Connecting);
            let mut session = Session::new(self);
            let ended = session.run(&shutdown).await;
            if session.has_streamed() {
                has_streamed = true;
                backoff.reset();
            }
            let Err(error) = ended else { return Ok(()) };
            let remedy = match error.remedy() {
                // who has streamed was set up well once
                Remedy::None if has_streamed && error.is_of_the_setup() => Remedy::Wait,
                remedy => remedy,
            };
            if remedy == Remedy::None
                || (remedy == Remedy::Wait && !has_streamed && error.is_connect())
            {
                return Err(error);
            }
            self.metrics.reconnects_total.with_label_values(&[error.reason()]).inc();
            let text = error.chain();
            let wait = match remedy {
                Remedy::Again if told != text => Duration::ZERO,
                Remedy::StandBy => {
                    self.status.enter(Phase::Standby);
                    backoff.reset();
                    backoff.wait().max(Duration::from_millis(500))
                }
                Remedy::Again | Remedy::Wait | Remedy::None => backoff.wait(),
            };
            if told == text {
                tracing::debug!(error = %text, ?wait, "still the same");
            } else if remedy == Remedy::StandBy {
                tracing::info!(reason = %text, "standing by");
            } else {
                tracing::warn!(error = %text, ?wait, "starting over");
            }
            told = text;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// The time, for status and nothing that decides.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
