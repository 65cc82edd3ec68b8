//! A session: from the first connection to the end of the stream.
//!
//! 1. Lead: one process works for a slot; the others stand by on an advisory lock.
//! 2. Slot: there, or made anew.
//! 3. Stream: a reader on its own thread, a task a lane. Every projection that can goes on from its
//!    checkpoint.
//! 4. Beside the stream, build from history what the slot cannot give: projections that are new,
//!    changed, or behind what the slot has confirmed; and what somebody asks for.
//!
//! Whatever fails ends the session; the next begins from what is durable.
//!
//! * `checks`: is everything right, and is it ours? · `prepare`: what goes on, what is built
//! * `start`: the tasks · `watch`: until something ends them · `end`: in good order, or not
//! * `wishes`: what operators want meanwhile · `redefine`: what they define meanwhile

mod checks;
mod prepare;
mod redefine;
mod start;
mod watch;
mod wishes;
mod letters;
mod end;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::checks::silence;
use self::end::DRAIN_LIMIT;
use self::watch::reader_ended;
use crate::apply::control::{self, Source};
use crate::apply::rebuilds;
use crate::definition::Definition;
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::monitor::Monitor;
use crate::migrate;
use crate::pg;
use crate::verify::scratch;
use crate::wal::conn::ReplicationConnection;
use crate::wal::error::WalError;
use crate::wal::slot::Ensured;

/// How long making a slot may wait for transactions that are open elsewhere.
const SLOT_WAIT: Duration = Duration::from_secs(30);

/// One attempt to follow the log.
pub(super) struct Session<'a> {
    engine: &'a Engine,
    /// What is projected; the catalogue tells of changes.
    definitions: Vec<Arc<Definition>>,
    catalogue: Receiver<Vec<Arc<Definition>>>,
    has_streamed: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        let mut catalogue = engine.definitions.subscribe();
        let definitions = catalogue.borrow_and_update().clone();
        Self { engine, definitions, catalogue, has_streamed: false }
    }

    /// Whether it came as far as the stream.
    pub(super) fn has_streamed(&self) -> bool {
        self.has_streamed
    }

    /// Works until `shutdown`.
    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> Result<(), EngineError> {
        let engine = self.engine;
        let mut client = pg::connect(&engine.settings, "projector").await?;
        migrate::require_current(&client, engine.config.events_schema()).await?;
        self.examine(&client).await?;
        self.lead(&client).await?;
        let mut connection = ReplicationConnection::connect(&engine.settings, "projector")
            .await
            .map_err(WalError::from)?;
        let system = connection.identify_system().await?;
        let slot = &engine.config.source.slot;
        let source = Source {
            system_identifier: system.system_identifier.clone(),
            timeline: system.timeline,
            publication: control::publication(&client, &engine.config.source.publication).await?,
        };
        self.compare_publication(&client, &source).await?;
        if self.recognise(&client, &source).await? {
            control::forget_beyond(&client, system.position).await?;
            control::remember_source(&client, slot.as_str(), &source).await?;
        } else {
            control::change_source(&mut client, slot.as_str(), &source).await?;
        }
        let confirmed = match connection.ensure_slot(slot, SLOT_WAIT).await? {
            Ensured::Existed { confirmed_flush } => confirmed_flush,
            Ensured::Created { consistent_point } => {
                tracing::info!(slot = slot.as_str(), lsn = %consistent_point, "slot created");
                consistent_point
            }
        };
        self.detach(&client).await?;
        // from here on no process that was thought dead can swap; what serves nobody now never will
        rebuilds::take_up(&client).await?;
        rebuilds::sweep(&client).await?;
        scratch::sweep(&client).await?;
        let prepared = self.prepare(&client, |it| confirmed <= it).await?;
        connection.close().await?;
        let silence = silence(&client).await?;
        let version =
            client.query_one("show server_version", &[]).await?.try_get::<_, String>(0)?;
        let mut running = match self.start(prepared, confirmed, silence).await {
            Ok(running) => running,
            Err(error) => {
                self.clean_up(&client, &error).await;
                return Err(error);
            }
        };
        self.has_streamed = true;
        if let Some(hub) = engine.clients() {
            hub.lead();
        }
        let monitor = Monitor::new(
            engine,
            Arc::clone(&running.progress),
            &system.system_identifier,
            &version,
        );
        tracing::info!(slot = slot.as_str(), lsn = %confirmed, "streaming");
        let ended = self.watch(&client, &mut running, monitor, silence, shutdown).await;
        match ended {
            Ok(()) => self.drain(&client, running).await,
            Err(error) => {
                running.stop.cancel();
                drop(running.broadcaster.take());
                running.drained.cancel();
                running.building.cut_off(DRAIN_LIMIT).await;
                running.lanes.shutdown().await;
                // the reader ends by itself when its lanes are gone
                if running.reader.is_some() {
                    drop(timeout(DRAIN_LIMIT, reader_ended(&mut running.reader)).await);
                }
                self.clean_up(&client, &error).await;
                Err(error)
            }
        }
    }
}
