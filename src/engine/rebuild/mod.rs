//! Next generations of read models, made beside the stream.
//!
//! ```text
//!          anchor ──▶ fill ──▶ catch up ──▶ hold the lane at P ──▶ exactly to P ──▶ swap ──▶ release
//! phase    snapshot   fold     catch_up     swap                                            done
//! ```
//!
//! * `builds`: what is wanted, and how far it is · `attempt`: from an anchor to tables that are nearly
//!   up to date · `swap`: how they begin to serve
//! * `disk`: is there room for them? · `log`: how much of the server's log they may write
//! * `thread`: where it works · this file: one group of projections after the other
//!
//! Whatever needs new rows comes here: projections that are new, whose definition has changed, whose
//! checkpoint the slot cannot reach any more, or that somebody wants anew. The generation before goes
//! on serving, and following, until the swap. Those of one lane that wait are built in one pass over
//! history and swapped in one transaction. A projection at fault drops out and the rest is tried again.
//!
//! An attempt that is cut off, wherever, has changed nothing that anybody reads: the temporary slot
//! goes with its connection, and the next session drops the tables and begins anew.

pub(super) mod builds;
mod attempt;
mod disk;
mod log;
mod swap;
pub(super) mod thread;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use self::builds::{Build, Builds};
use crate::apply::control;
use crate::apply::error::WriteError;
use crate::apply::rebuilds;
use crate::engine::Engine;
use crate::engine::error::{EngineError, Remedy, is_of_the_rows};
use crate::engine::lane::LaneHandle;
use crate::engine::progress::Progress;
use crate::history::error::BuildError;
use crate::history::source::Source;
use crate::pg::{self, Class, class};
use crate::wal::backoff::Backoff;

/// The first wait after an attempt that failed for no fault of a projection, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The application name of its connection.
const APPLICATION: &str = "projector build";

/// Why a pause ends a build; what the state is then is the pause's to say.
pub(super) const PAUSED: &str = "paused";

/// Why a definition that is taken away ends its build.
pub(super) const GONE: &str = "its definition is gone";

/// Works off the builds of a session.
pub(super) struct Rebuilder {
    pub(super) engine: Engine,
    /// Where history is.
    pub(super) source: Source,
    /// Where history is folded.
    pub(super) folding: Handle,
    pub(super) lanes: Vec<LaneHandle>,
    pub(super) progress: Arc<Progress>,
    pub(super) builds: Arc<Builds>,
    /// Ends it, at the next moment that leaves nothing half done.
    pub(super) stop: CancellationToken,
    /// Cancelled once everything that was wanted at the start has ended.
    pub(super) settled: CancellationToken,
    /// Whether nothing streams: then there are no lanes, and it ends when it has nothing to do.
    pub(super) is_alone: bool,
}

impl Rebuilder {
    /// Works until it is stopped.
    ///
    /// # Errors
    /// When it is not known whether a swap came through: the session must begin anew.
    pub(super) async fn run(self) -> Result<(), EngineError> {
        while !self.stop.is_cancelled() {
            let names = self.builds.next();
            if !names.is_empty() {
                self.build(names).await?;
                continue;
            }
            self.settled.cancel();
            if self.is_alone {
                break;
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.builds.changed() => {}
            }
        }
        Ok(())
    }

    /// Tries until each of these builds has ended, one way or another.
    async fn build(&self, names: Vec<String>) -> Result<(), EngineError> {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1, fastrand::u64(..));
        let mut told = String::new();
        let mut source = self.source.clone();
        loop {
            let attempt = self.stop.child_token();
            self.builds.begin(&names, &attempt);
            let ended = Box::pin(self.attempt(&source, &names, &attempt)).await;
            let Err(error) = ended else { return Ok(()) };
            if self.stop.is_cancelled() {
                return Ok(());
            }
            if attempt.is_cancelled() {
                // somebody wants one of them no more, or otherwise
                continue;
            }
            if let EngineError::Unsure(_) | EngineError::Vanished(_) = error {
                return Err(error);
            }
            if let EngineError::Build(build) = &error
                && !source.is_careful
                && is_of_an_event(build)
            {
                tracing::warn!(
                    projections = names.join(","),
                    error = %self.engine.told(&error),
                    "looking for the event to blame: history is folded again, with care"
                );
                source.is_careful = true;
                continue;
            }
            if let EngineError::Build(build) = &error
                && let Some(name) = at_fault(build)
            {
                let name = name.to_owned();
                self.failed(&name, &error).await?;
                continue;
            }
            let text = self.engine.told(&error);
            if told != text {
                let (projections, hint) = (names.join(","), error.hint());
                tracing::warn!(projections, error = %text, hint, "cannot build; trying again");
                told.clone_from(&text);
            }
            if error.remedy() == Remedy::None || self.is_alone {
                for it in self.builds.get(&names).iter().filter(|it| it.is_request) {
                    self.failed(&it.definition.name, &error).await?;
                }
            }
            if self.is_alone {
                return Err(error);
            }
            let waits = error.hint().map_or_else(|| text.clone(), |hint| format!("{text}; {hint}"));
            self.builds.wait_for(&names, Some(&waits));
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = attempt.cancelled() => {}
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
    }

    /// A build has failed; what served before goes on.
    async fn failed(&self, name: &str, error: &EngineError) -> Result<(), EngineError> {
        let Some(build) = self.builds.get(&[name.to_owned()]).pop() else { return Ok(()) };
        let (text, hint) = (self.engine.told(error), error.hint());
        tracing::error!(projection = name, error = %text, hint, "cannot be built; what serves stays");
        self.engine.metrics.errors_total.with_label_values(&[name, "build"]).inc();
        let client = pg::connect(&self.engine.settings, APPLICATION).await?;
        rebuilds::end(&client, build.id, "failed", Some(&text)).await?;
        self.stays(&client, &build, Some(&text)).await?;
        self.builds.remove(name);
        Ok(())
    }

    /// A build has been given up.
    async fn canceled(&self, client: &Client, build: &Build, why: &str) -> Result<(), EngineError> {
        let name = &build.definition.name;
        tracing::info!(projection = name, reason = why, "build given up; what serves stays");
        rebuilds::end(client, build.id, "canceled", Some(why)).await?;
        match why {
            PAUSED => {}
            // nothing follows it, and that is no failure
            GONE => control::set_state(client, name, "detached", None).await?,
            _ => self.stays(client, build, None).await?,
        }
        self.builds.remove(name);
        Ok(())
    }

    /// What a projection is in without the build that it should have had.
    async fn stays(
        &self,
        client: &Client,
        build: &Build,
        error: Option<&str>,
    ) -> Result<(), EngineError> {
        let name = &build.definition.name;
        let board = &self.engine.status;
        if self.is_alone {
            // the next sidecar sees to it; until then it is what it was
            let state = if error.is_some() { "failed" } else { "live" };
            control::set_state(client, name, state, error).await?;
        } else if self.is_followed(name) {
            if let Some(error) = error {
                board.fail(name, &build.definition.hash, error, true);
            }
            control::set_state(client, name, "live", error).await?;
        } else {
            let error = error.unwrap_or("its build was given up");
            board.fail(name, &build.definition.hash, error, false);
            control::set_state(client, name, "failed", Some(error)).await?;
        }
        Ok(())
    }

    /// Whether a lane writes this projection.
    fn is_followed(&self, name: &str) -> bool {
        let is_out = self.engine.status.failures().get(name).is_some_and(|it| !it.follows);
        let mut lanes = self.progress.lanes().iter();
        !is_out && lanes.any(|lane| lane.members().iter().any(|it| it.name == name))
    }
}

/// The projection that is at fault, and not the connection.
fn at_fault(error: &BuildError) -> Option<&str> {
    let is_own = match error {
        BuildError::Fold(_) | BuildError::Key { .. } | BuildError::Write(WriteError::Fold(_)) => {
            true
        }
        BuildError::Write(WriteError::Rows { source, .. }) | BuildError::Tables { source, .. } => {
            is_of_the_rows(source)
        }
        _ => false,
    };
    if is_own { error.projection() } else { None }
}

/// Whether the database refuses what some event makes of its row.
fn is_of_an_event(error: &BuildError) -> bool {
    matches!(error, BuildError::Write(WriteError::Rows { source, .. }) if class(source) == Class::Poison)
}
