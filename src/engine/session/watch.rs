//! What a session does while its tasks work: it waits for whatever ends it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::apply::letters;
use crate::engine::error::EngineError;
use crate::engine::lane::LaneError;
use crate::engine::monitor::{Monitor, Outside};
use crate::engine::reader::ReaderError;
use crate::engine::session::Session;
use crate::engine::session::start::Running;
use crate::engine::status::Phase;
use crate::engine::tail::flush_tail;

/// How often the server is asked for what the stream does not tell.
const MONITOR_PERIOD: Duration = Duration::from_secs(1);
/// How often the partitions of the events table are looked after.
const PARTITIONS_PERIOD: Duration = Duration::from_secs(3600);

impl Session<'_> {
    /// Waits for the first thing that ends the session.
    pub(super) async fn watch(
        &mut self,
        client: &Client,
        running: &mut Running,
        mut monitor: Monitor,
        silence: Duration,
        shutdown: &CancellationToken,
    ) -> Result<(), EngineError> {
        let engine = self.engine;
        let mut tick = interval(MONITOR_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut partitions = interval(PARTITIONS_PERIOD);
        let mut is_ready = false;
        engine.status.enter(Phase::Streaming);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(departure) = running.departures.recv() => {
                    self.out(client, &departure.projection, &departure.error.to_string()).await?;
                }
                Some(ended) = running.lanes.join_next() => {
                    return Err(cause(ended, &mut running.reader).await);
                }
                error = reader_ended(&mut running.reader) => {
                    // a lane that ended is the cause, and its reader only noticed
                    let lane = timeout(Duration::from_millis(100), running.lanes.join_next()).await;
                    return Err(match (error, lane) {
                        (EngineError::Reader(ReaderError::LaneEnded(_)), Ok(Some(ended))) => lane_ended(ended),
                        (error, _) => error,
                    });
                }
                error = running.building.ended() => return Err(error),
                () = running.settled.cancelled(), if !is_ready => {
                    is_ready = true;
                    tracing::info!(projections = self.definitions.len(), "ready");
                    tick.reset_immediately();
                }
                Ok(()) = self.catalogue.changed() => {
                    let now = self.catalogue.borrow_and_update().clone();
                    monitor.redefine(now.clone());
                    self.redefine(client, running, now).await?;
                    tick.reset_immediately();
                }
                _ = tick.tick() => {
                    let looked = timeout(silence, self.look(client, running, &mut monitor)).await;
                    looked.map_err(|_| ReaderError::Silent(silence))??;
                }
                _ = partitions.tick() => {
                    if let Err(error) = client.execute("select projector.ensure_partitions()", &[]).await {
                        tracing::warn!(%error, "the events table's partitions could not be looked after");
                    }
                }
            }
        }
    }
}

impl Session<'_> {
    /// Asks the server what the stream does not tell, does what operators want, and publishes the
    /// status. Fails where the slot cannot be gone on with.
    async fn look(
        &self,
        client: &Client,
        running: &mut Running,
        monitor: &mut Monitor,
    ) -> Result<(), EngineError> {
        let engine = self.engine;
        let seen = monitor.look(client).await?;
        flush_tail(client).await?;
        self.fulfil(client, running).await?;
        let aside = letters::aside(client).await?;
        self.settle_letters(client, running, &aside).await?;
        let outside = Outside {
            aside,
            failures: engine.status.failures(),
            rebuilds: running.builds.statuses(),
            paused: &running.paused,
        };
        if let Some(telling) = &running.broadcaster {
            telling.look();
        }
        let broadcasts = engine.realtime.is_some().then(|| engine.status.report.now());
        engine.status.update(|status| {
            monitor.describe(status, outside);
            status.broadcasts = broadcasts;
        });
        if !seen.same_publication {
            let publication = engine.config.source.publication.as_str().to_owned();
            return Err(EngineError::PublicationGone(publication));
        }
        let limit = engine.config.limits.max_slot_lag.bytes();
        if limit < seen.kept_bytes {
            let slot = engine.config.source.slot.as_str().to_owned();
            return Err(EngineError::SlotTooFar { slot, kept: seen.kept_bytes, limit });
        }
        Ok(())
    }
}

/// Why the reader ended, once it has; never, where that has been told.
pub(super) async fn reader_ended(
    reader: &mut Option<oneshot::Receiver<Result<(), ReaderError>>>,
) -> EngineError {
    let Some(running) = reader else { return std::future::pending().await };
    let ended = running.await;
    *reader = None;
    match ended {
        Ok(Err(error)) => EngineError::Reader(error),
        Ok(Ok(())) | Err(_) => EngineError::Vanished("reader"),
    }
}

/// Why a lane ended. One that ended well was left by its reader, which then knows the cause.
pub(super) async fn cause(
    ended: Result<(String, Result<(), LaneError>), tokio::task::JoinError>,
    reader: &mut Option<oneshot::Receiver<Result<(), ReaderError>>>,
) -> EngineError {
    let is_left = matches!(ended, Ok((_, Ok(()))));
    let known = is_left.then_some(timeout(Duration::from_secs(1), reader_ended(reader)));
    match known {
        Some(error) => error.await.unwrap_or_else(|_| lane_ended(ended)),
        None => lane_ended(ended),
    }
}

pub(super) fn lane_ended(
    ended: Result<(String, Result<(), LaneError>), tokio::task::JoinError>,
) -> EngineError {
    match ended {
        Ok((lane, Err(source))) => EngineError::Lane { lane, source },
        Ok((_, Ok(()))) => EngineError::Vanished("lane"),
        Err(error) => {
            tracing::error!(%error, "a lane's task broke");
            EngineError::Vanished("lane")
        }
    }
}
