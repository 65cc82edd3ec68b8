//! All together: connects, streams, builds what is missing, and starts over when something breaks.
//!
//! * `status`: what there is to report · `progress`: how far everybody is · `catalogue`: what to project
//! * `lane`: folds and writes · `reader`: reads and acknowledges · `rebuild`: makes next generations
//! * `broadcast`: tells viewers what is committed
//! * `session`: from a connection to its end · `monitor`: watches from outside
//! * `tail`: the end of the log, flushed
//! * `alone`: a rebuild where nothing streams · this file: one session after the other
//!
//! ```text
//!            ┌─────────────── transient: wait, longer each time ◀──────────────┐
//!            ▼                                                                  │
//!  connect ─▶ lead? ─no─▶ stand by    slot ─▶ stream, and build beside it ──────┤
//!            ▲ yes                                                              │
//!            └──────────────── slot lost: make a new one ◀──────────────────────┘
//! ```
//!
//! There is one way to recover: end the session and begin the next from what is durable. What the
//! slot cannot give any more is made from history.

pub mod status;
pub mod progress;
pub mod catalogue;
pub mod lane;
pub mod reader;
mod error;
pub mod broadcast;
mod tail;
mod monitor;
mod rebuild;
mod session;
mod alone;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::broadcast::Report;
pub use self::catalogue::{Catalogue, Reload, ReloadError, Reloaded};
pub use self::error::EngineError;
use self::error::Remedy;
use self::lane::Care;
use self::session::Session;
use self::status::{Phase, Status};
use crate::config::Config;
use crate::definition::Definitions;
use crate::event::Timestamp;
use crate::history::pace::Pace;
use crate::history::source::Source;
use crate::metrics::Metrics;
use crate::pg::Settings;
use crate::realtime::Target;
use crate::realtime::hub::Hub;
use crate::redact::{RedactError, Redactor};
use crate::wal::backoff::Backoff;

/// The first wait after a session broke, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Whoever has not followed the log for so long keeps no clients: another process may have taken over,
/// and be out of reach too.
const KEEPS_CLIENTS: Duration = Duration::from_secs(60);

/// Everything an engine works with.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The database.
    pub settings: Settings,
    /// The configuration.
    pub config: Arc<Config>,
    /// What to project.
    pub definitions: Catalogue,
    /// What `redact()` hides.
    pub redactor: Arc<Redactor>,
    /// Where broadcasts go; `None` when they are off.
    pub realtime: Option<Target>,
    /// Counted into.
    pub metrics: Arc<Metrics>,
    /// Published to.
    pub status: Arc<Board>,
}

/// Where the engine's status is published, and what outlives a session.
#[derive(Debug)]
pub struct Board {
    sender: watch::Sender<Arc<Status>>,
    failures: Mutex<BTreeMap<String, Failure>>,
    care: Arc<Care>,
    commits: watch::Sender<u64>,
    report: Arc<Report>,
    backends: Backends,
}

/// The server processes of the last connections that held the lock and the slot; zero is none. One of
/// them may outlive its connection: the server has not heard that it is gone.
#[derive(Debug, Default)]
struct Backends {
    leader: AtomicI32,
    reader: AtomicI32,
}

impl Backends {
    fn has(&self, process: i32) -> bool {
        [&self.leader, &self.reader].iter().any(|it| it.load(Ordering::Relaxed) == process)
    }
}

/// Why a projection does not do what its definition says.
#[derive(Clone, Debug)]
struct Failure {
    error: String,
    /// The definition that failed.
    hash: String,
    /// Whether its rows follow all the same, by the definition before.
    follows: bool,
}

impl Board {
    /// A process that has just begun.
    pub fn new(slot: &str) -> Self {
        let (sender, _) = watch::channel(Arc::new(Status::starting(slot, now())));
        let (commits, _) = watch::channel(0);
        Self {
            sender,
            failures: Mutex::default(),
            care: Arc::default(),
            commits,
            report: Arc::default(),
            backends: Backends::default(),
        }
    }

    /// What is published from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Status>> {
        self.sender.subscribe()
    }

    /// How often rows were committed: changes after each time, with the rows there to be read.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
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

    /// Remembers why a projection is out, or goes on by the definition before, until it is mended or
    /// the process ends.
    fn fail(&self, projection: &str, hash: &str, error: &str, follows: bool) {
        let (error, hash) = (error.to_owned(), hash.to_owned());
        self.known().insert(projection.to_owned(), Failure { error, hash, follows });
    }

    /// A projection does what its definition says, or is about to.
    fn mend(&self, projection: &str) {
        self.known().remove(projection);
    }

    fn failures(&self) -> BTreeMap<String, Failure> {
        self.known().clone()
    }

    /// What is wrong with the definitions that were read last; the ones before are in force.
    fn refuse(&self, error: Option<String>) {
        self.update(|status| status.definitions_error = error);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// One that follows the database of `settings`, for programs that bring definitions of their own.
    ///
    /// # Errors
    /// When the rules of `[redact]` cannot be used.
    pub fn new(
        settings: Settings,
        config: Config,
        definitions: impl Into<Definitions>,
    ) -> Result<Self, RedactError> {
        Ok(Self {
            settings,
            redactor: Arc::new(config.redact.redactor()?),
            status: Arc::new(Board::new(config.source.slot.as_str())),
            config: Arc::new(config),
            definitions: Catalogue::new(definitions),
            realtime: None,
            metrics: Arc::new(Metrics::new()),
        })
    }

    /// Works until `shutdown`, then finishes what it has received.
    ///
    /// # Errors
    /// When the first connection cannot be made, or when something is wrong that waiting does not
    /// mend. Once it has streamed, what can mend itself is waited for, for ever.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1, fastrand::u64(..));
        let mut told = String::new();
        let mut has_streamed = false;
        let mut followed_at = Instant::now();
        loop {
            self.status.enter(Phase::Connecting);
            let mut session = Session::new(self);
            let began = Instant::now();
            let ended = Box::pin(session.run(&shutdown)).await;
            if session.has_streamed() {
                has_streamed = true;
                followed_at = Instant::now();
                // one that ends at once, again and again, must not keep the server busy with it
                if WAITS.1 <= began.elapsed() {
                    backoff.reset();
                }
            }
            let Err(error) = ended else { return Ok(()) };
            let remedy = match error.remedy() {
                // who has streamed was set up well once
                Remedy::None if has_streamed && error.is_of_the_setup() => Remedy::Wait,
                // there is no other process to leave the clients to
                Remedy::StandBy
                    if error.reader_of_slot().is_some_and(|it| self.status.backends.has(it)) =>
                {
                    Remedy::Wait
                }
                remedy => remedy,
            };
            if remedy == Remedy::None
                || (remedy == Remedy::Wait && !has_streamed && error.is_connect())
            {
                return Err(error);
            }
            if (remedy == Remedy::StandBy || KEEPS_CLIENTS < followed_at.elapsed())
                && let Some(hub) = self.clients()
            {
                hub.stand_by();
            }
            self.metrics.reconnects_total.with_label_values(&[error.reason()]).inc();
            let text = self.told(&error);
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
            } else if matches!(error, EngineError::Redefined) {
                tracing::info!(reason = %text, "starting over");
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

impl Engine {
    /// An error and its causes, without the secrets of what it quotes.
    fn told(&self, error: &EngineError) -> String {
        self.redactor.text(&error.chain()).into_owned()
    }

    /// Who serves the clients of this process.
    fn clients(&self) -> Option<&Hub> {
        self.realtime.as_ref().and_then(Target::hub)
    }

    /// Where history is, and what it is folded with.
    fn history(&self) -> Source {
        Source {
            settings: self.settings.clone(),
            events: self.config.events_table(),
            columns: self.config.source.columns.clone(),
            publication: self.config.source.publication.clone(),
            schema: self.config.schema.clone(),
            redactor: Arc::clone(&self.redactor),
            memory: self.memory() / 4,
            parked_limit: self.config.limits.parked_keys.get(),
            is_careful: false,
            pace: Pace::full(),
        }
    }

    /// Rows that gather may take three quarters of the memory, with those that are being written a
    /// little more; these give theirs up as they go. The rest is for batches and statements.
    fn pending_limit(&self) -> usize {
        self.memory() / 4 * 3
    }

    fn memory(&self) -> usize {
        usize::try_from(self.config.limits.memory.bytes()).unwrap_or(usize::MAX)
    }
}

/// The time, for status and nothing that decides.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
