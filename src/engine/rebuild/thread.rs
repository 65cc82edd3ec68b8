//! The rebuilder's own threads.
//!
//! Folding history is work without a pause, and the lanes must not wait for it: it has a runtime of its
//! own, whose threads yield to all others of the machine. Its connections live there, too. What follows
//! the log afterwards does not yield: it could fall behind for good on a machine that has much to do.

use std::time::Duration;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::engine::error::EngineError;
use crate::engine::rebuild::Rebuilder;

/// How much lower than the process' own the priority of these threads is.
const YIELDS: i32 = 5;

/// Threads of what follows the log: one for the stream, one for the rows.
const FOLLOWERS: usize = 2;

/// A rebuilder at work. Dropped, it is cut off where it is.
pub(in crate::engine) struct Building {
    /// `None` when it has ended and that has been told.
    ended: Option<oneshot::Receiver<Result<(), EngineError>>>,
    stop: CancellationToken,
    abort: Option<DropGuard>,
}

impl Building {
    /// Starts the threads. `rebuilder` is made with those that fold.
    pub(in crate::engine) fn start(
        rebuilder: impl FnOnce(Handle) -> Rebuilder,
    ) -> Result<Self, EngineError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(FOLLOWERS)
            .thread_name("rebuild follower")
            .enable_all()
            .build()?;
        let folding = tokio::runtime::Builder::new_multi_thread()
            .thread_name("rebuild worker")
            .on_thread_start(yield_to_others)
            .enable_all()
            .build()?;
        let rebuilder = rebuilder(folding.handle().clone());
        let (stop, abort) = (rebuilder.stop.clone(), CancellationToken::new());
        let (end, ended) = oneshot::channel();
        let aborted = abort.clone();
        let work = move || {
            let result = runtime.block_on(async {
                tokio::select! {
                    ended = rebuilder.run() => ended,
                    () = aborted.cancelled() => Ok(()),
                }
            });
            // its connections end before it is said that it has
            drop(folding);
            drop(runtime);
            // nobody listens any more when the session has given up waiting
            drop(end.send(result));
        };
        std::thread::Builder::new().name("rebuild".to_owned()).spawn(work)?;
        Ok(Self { ended: Some(ended), stop, abort: Some(abort.drop_guard()) })
    }

    /// Why it has ended, once it has without having been told to; never, where that has been told.
    pub(in crate::engine) async fn ended(&mut self) -> EngineError {
        let Some(running) = &mut self.ended else { return std::future::pending().await };
        let ended = running.await;
        self.ended = None;
        match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => EngineError::Vanished("rebuilder"),
        }
    }

    /// Lets it come to the end of a swap that it is in the midst of; longer than `limit` only cut off.
    pub(in crate::engine) async fn stop(&mut self, limit: Duration) -> Result<(), EngineError> {
        self.stop.cancel();
        let Some(running) = self.ended.take() else { return Ok(()) };
        match timeout(limit, running).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Err(EngineError::Vanished("rebuilder")),
            Err(_) => {
                tracing::warn!("the rebuilder does not come to an end; it is cut off");
                self.abort = None;
                Ok(())
            }
        }
    }

    /// Cuts it off where it is; what it was at is begun anew by the next session.
    pub(in crate::engine) async fn cut_off(&mut self, limit: Duration) {
        self.abort = None;
        if let Some(running) = self.ended.take() {
            // its connections are closed when the next session looks at what it left
            drop(timeout(limit, running).await);
        }
    }
}

/// Lowers the priority of this thread. Where that is not allowed it works all the same.
fn yield_to_others() {
    let lowered = getpriority_process(None).and_then(|now| setpriority_process(None, now + YIELDS));
    if let Err(error) = lowered {
        tracing::debug!(%error, "the rebuilder's threads keep their priority");
    }
}
