//! The hub: everything that its sockets, its HTTP endpoints and the rest of the process share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TrackedFuture;
use uuid::fmt::Hyphenated;

use super::admit::{Claim, Refusal, admit};
use super::cast::Cast;
use super::gate::{Gate, GateError};
use super::keys::Keys;
use super::topics::{Sent, Topics};
use super::watch::Watch;
use crate::metrics::Metrics;
use crate::pg::Settings;
use crate::realtime::Message;

/// How long sockets may take to say goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// What is said to whoever comes to a process that serves nobody.
pub(super) const STANDS_BY: &str = "This server stands by: try again";

/// Serves clients of Supabase Realtime. Cheap to clone; all clones are one hub.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Shared>);

/// Bounds on what clients may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sockets at once.
    pub sockets: usize,
    /// Channels of a socket at once.
    pub channels: usize,
    /// Bytes that may wait for a socket.
    pub queue_bytes: usize,
    /// How often it is asked whether who listens to a private topic still may.
    pub recheck: Duration,
    /// What is put up with from a client.
    pub patience: Patience,
}

/// What is put up with from a client.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A client that says nothing for this long is gone: its heartbeat comes every 25 s.
    pub silence: Duration,
    /// It may be without a channel for this long.
    pub loneliness: Duration,
    /// Its frames are read no faster than one in this time,
    pub frame: Duration,
    /// after so many that are read at once: enough to join a hundred channels.
    pub burst: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(60),
            loneliness: Duration::from_secs(600),
            frame: Duration::from_millis(10),
            burst: 500,
        }
    }
}

/// A place for a socket.
pub(super) struct Place {
    /// Cancelled when the socket is to be closed.
    pub(super) term: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// Why there is none.
pub(super) enum NoPlace {
    /// This process serves nobody: another one may.
    StandsBy,
    /// There are as many as there may be.
    Full,
}

#[derive(Debug)]
struct Shared {
    topics: Topics,
    keys: Keys,
    gate: Gate,
    limits: Limits,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    /// While this process serves: cancelled when it no longer does.
    term: Mutex<Option<CancellationToken>>,
    closing: CancellationToken,
    sockets: TaskTracker,
}

impl Hub {
    /// A hub that lets in whom `keys` and the database of `settings` let in. It connects to that once
    /// somebody wants to join a private topic. It stands by until [`Self::lead`].
    pub fn new(keys: Keys, settings: Settings, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared {
            topics: Topics::default(),
            keys,
            gate: Gate::new(settings),
            limits,
            metrics,
            places: Arc::new(Semaphore::new(limits.sockets.min(Semaphore::MAX_PERMITS))),
            term: Mutex::default(),
            closing: CancellationToken::new(),
            sockets: TaskTracker::new(),
        }))
    }

    /// Lets clients in: this process has something to tell them.
    pub fn lead(&self) {
        self.term().get_or_insert_with(|| self.0.closing.child_token());
    }

    /// Closes all sockets and refuses what comes, since another process has what clients want to hear:
    /// they come again, until they come to that one.
    pub fn stand_by(&self) {
        if let Some(term) = self.term().take() {
            term.cancel();
        }
    }

    /// Hands messages to all who listen, in order. Never waits: for whom it is too much, that one is
    /// cut off and comes back.
    pub fn publish(&self, messages: &[Message]) {
        let mut id = [0; Hyphenated::LENGTH];
        let mut sum = Sent::default();
        for message in messages {
            let id = message.id.hyphenated().encode_lower(&mut id);
            sum += self.topics().send(&Cast::message(message, id), None);
        }
        self.count(sum);
    }

    /// Listens to a bare topic, or its private side, within this process. What is published is heard
    /// from now on; whoever may is the caller's to say.
    pub fn watch(&self, topic: &str, private: bool) -> Watch {
        Watch::new(self.clone(), topic, private, self.limits().queue_bytes)
    }

    /// Lets whoever sends `token` read the bare private topic `topic`, once, or says why not.
    ///
    /// # Errors
    /// When the token does not count, its user may not read, or the database does not answer.
    pub async fn admits(&self, token: &str, topic: &str) -> Result<(), Refusal> {
        admit(self, Claim::Text(token.to_owned()), &Arc::from(topic), true).await.map(drop)
    }

    /// Asks the database what it is asked when a user joins a private topic.
    ///
    /// # Errors
    /// When it cannot be asked, so that nobody could join.
    pub async fn probe(&self) -> Result<(), GateError> {
        self.gate().probe().await
    }

    /// Closes all sockets in good order, for three seconds at most, and lets nobody in any more.
    pub async fn shutdown(&self) {
        self.0.closing.cancel();
        self.0.sockets.close();
        if timeout(CLOSE_LIMIT, self.0.sockets.wait()).await.is_err() {
            tracing::warn!(sockets = self.0.sockets.len(), "sockets that do not close are cut");
        }
    }

    /// Makes [`Self::shutdown`] wait for the end of `socket`.
    pub(super) fn track<F: Future<Output = ()>>(&self, socket: F) -> TrackedFuture<F> {
        self.0.sockets.track_future(socket)
    }

    /// Whether clients are served here.
    pub(super) fn leads(&self) -> bool {
        self.term().as_ref().is_some_and(|it| !it.is_cancelled())
    }

    /// A place for one more socket, if there is one.
    pub(super) fn place(&self) -> Result<Place, NoPlace> {
        let term = self.term().clone().filter(|it| !it.is_cancelled()).ok_or(NoPlace::StandsBy)?;
        let permit = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| NoPlace::Full)?;
        Ok(Place { term, _permit: permit })
    }

    fn term(&self) -> MutexGuard<'_, Option<CancellationToken>> {
        self.0.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what became of broadcasts.
    pub(super) fn count(&self, sent: Sent) {
        if 0 < sent.deliveries {
            self.0.metrics.realtime_deliveries_total.inc_by(sent.deliveries);
        }
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.0.topics
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    pub(super) fn limits(&self) -> Limits {
        self.0.limits
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}
