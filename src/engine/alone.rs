//! A rebuild where no sidecar runs: this process takes the lead for as long as it lasts.
//!
//! Nothing streams, so there is no lane to agree with: the new rows are brought to the end of the log
//! as it is at the swap. The other projections stay where they are, and the next sidecar passes over
//! what the rebuilt ones have already.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::apply::rebuilds;
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::progress::Progress;
use crate::engine::rebuild::Rebuilder;
use crate::engine::rebuild::builds::{Build, Builds};
use crate::engine::session::Session;
use crate::lsn::Lsn;
use crate::migrate;
use crate::pg;

/// How often it is looked whether somebody has canceled one of them.
const LOOK: Duration = Duration::from_secs(1);

impl Engine {
    /// Rebuilds these projections, whether they were asked for in `projector.rebuilds` or not, and
    /// returns when each has ended there. `cancel` gives up those that have not.
    ///
    /// # Errors
    /// [`EngineError::Standby`] when a sidecar runs: asked in the database, it does it itself. Otherwise
    /// what keeps history from being read. A projection that fails by its own fault is no error here:
    /// its row says why.
    pub async fn rebuild_alone(
        &self,
        names: &[String],
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let client = pg::connect(&self.settings, "projector rebuild").await?;
        migrate::require_current(&client, self.config.events_schema()).await?;
        let session = Session::new(self);
        session.examine(&client).await?;
        session.lead(&client).await?;
        rebuilds::take_up(&client).await?;
        rebuilds::sweep(&client).await?;
        let builds = Arc::new(Builds::default());
        let mut wanted = Vec::with_capacity(names.len());
        for name in names {
            let id = rebuilds::open(&client, name, "request").await?;
            match self.definitions.now().into_iter().find(|it| it.name == *name) {
                Some(definition) => wanted.push(Build::new(id, definition, true)),
                None => rebuilds::end(&client, id, "failed", Some(&undefined(name))).await?,
            }
        }
        builds.add(wanted);
        let rebuilder = Rebuilder {
            engine: self.clone(),
            source: self.history(),
            folding: Handle::current(),
            lanes: Vec::new(),
            progress: Arc::new(Progress::new(Lsn::ZERO, Vec::new())),
            builds: Arc::clone(&builds),
            stop: CancellationToken::new(),
            settled: CancellationToken::new(),
            is_alone: true,
        };
        let mut work = std::pin::pin!(rebuilder.run());
        let mut tick = interval(LOOK);
        loop {
            tokio::select! {
                ended = &mut work => return ended,
                () = cancel.cancelled() => break,
                _ = tick.tick() => {
                    for wish in rebuilds::wishes(&client).await? {
                        if wish.rebuild.is_some_and(|it| it.is_canceled) {
                            builds.give_up(&wish.projection, "canceled");
                        }
                    }
                }
            }
        }
        for name in names {
            builds.give_up(name, "canceled");
        }
        work.await
    }
}

/// What is said of a projection that no definition makes.
pub(super) fn undefined(name: &str) -> String {
    format!("no definition makes `{name}`: nothing can be built")
}
