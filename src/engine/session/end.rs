//! How a session ends: in good order, or with something to put right before the next.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use crate::apply::control;
use crate::apply::error::WriteError;
use crate::engine::error::{EngineError, is_of_the_rows};
use crate::engine::lane::LaneError;
use crate::engine::reader::ReaderError;
use crate::engine::session::Session;
use crate::engine::session::start::Running;
use crate::engine::session::watch::lane_ended;
use crate::engine::status::Phase;
use crate::wal::error::Reason;

/// How long a lane or the reader may take to finish when the process ends.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How long the last broadcasts may take then.
const TELL_LIMIT: Duration = Duration::from_secs(5);

impl Session<'_> {
    /// Ends in good order: what has been received is written, made durable and acknowledged.
    pub(super) async fn drain(
        &self,
        client: &Client,
        mut running: Running,
    ) -> Result<(), EngineError> {
        let board = &self.engine.status;
        board.enter(Phase::Draining);
        // a swap that has begun ends before the lanes do, which may be held for it
        running.building.stop(DRAIN_LIMIT).await?;
        running.stop.cancel();
        let lanes = async {
            while let Some(ended) = running.lanes.join_next().await {
                match ended {
                    Ok((_, Ok(()))) => {}
                    other => return Err(lane_ended(other)),
                }
            }
            Ok(())
        };
        timeout(DRAIN_LIMIT, lanes).await.map_err(|_| EngineError::Vanished("drain"))??;
        // a synchronous commit flushes the log with every commit before it, provided that it has
        // written something itself
        client
            .batch_execute(
                "set synchronous_commit = on; select pg_logical_emit_message(true, 'projector', 'drained')",
            )
            .await?;
        let flushed = client.query_one("select pg_current_wal_flush_lsn()", &[]).await?;
        running.progress.flush(flushed.try_get(0)?);
        if let Some(telling) = running.broadcaster.take()
            && !telling.finish(TELL_LIMIT).await
        {
            tracing::warn!(
                "some broadcasts were not taken in time; they are sent at the next start"
            );
        }
        running.drained.cancel();
        let reported = async {
            match running.reader.take() {
                Some(reader) => matches!(reader.await, Ok(Ok(()))),
                None => false,
            }
        };
        if !timeout(DRAIN_LIMIT, reported).await.unwrap_or(false) {
            tracing::warn!("the last position was not reported");
        }
        tracing::info!(lsn = %running.progress.acknowledged(), "stopped");
        Ok(())
    }

    /// What must be put right before the next session. Its failure shows there.
    pub(super) async fn clean_up(&self, client: &Client, error: &EngineError) {
        let result = match error {
            EngineError::Lane {
                source: LaneError::Write(WriteError::Rows { projection, source }),
                ..
            } if is_of_the_rows(source) => {
                self.out(client, projection, &self.engine.told(error)).await
            }
            EngineError::Wal(cause) | EngineError::Reader(ReaderError::Wal(cause))
                if cause.reason() == Some(Reason::PublicationMissing) =>
            {
                self.forsake_slot(client).await
            }
            EngineError::Lane { source: LaneError::Write(WriteError::Fold(fold)), .. } => {
                self.out(client, &fold.projection, &self.engine.redactor.text(&fold.to_string()))
                    .await
            }
            EngineError::SlotTooFar { .. } | EngineError::PublicationGone(_) => {
                self.drop_slot(client).await
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(error = %self.engine.told(&error), "cleaning up failed");
        }
    }

    /// Drops the slot, once its last walsender has let go of it.
    pub(super) async fn drop_slot(&self, client: &Client) -> Result<(), EngineError> {
        let slot = self.engine.config.source.slot.as_str();
        let end = "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots
             where slot_name = $1::text::name and active";
        client.execute(end, &[&slot]).await?;
        let drop_slot = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
             where slot_name = $1::text::name";
        client.execute(drop_slot, &[&slot]).await?;
        Ok(())
    }

    /// The log between the loss of the publication and its return cannot be decoded, not even when it
    /// is there again: then a new slot begins after that, and history has what lies between.
    pub(super) async fn forsake_slot(&self, client: &Client) -> Result<(), EngineError> {
        let source = &self.engine.config.source;
        let (slot, publication) = (source.slot.as_str(), source.publication.as_str());
        let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
             where slot_name = $1::text::name and not active
               and exists (select from pg_publication where pubname = $2::text::name)";
        if 0 < client.execute(sql, &[&slot, &publication]).await? {
            tracing::warn!(slot, publication, "the publication was away; the slot is made anew");
        }
        Ok(())
    }

    /// A projection leaves: it is said in the control tables, the status and the log.
    pub(super) async fn out(
        &self,
        client: &Client,
        projection: &str,
        error: &str,
    ) -> Result<(), EngineError> {
        tracing::error!(projection, error, "projection failed; the others go on");
        // not always the definition of now: the rows may follow the one before it still
        let sql = "select definition_hash from projector.projections where name = $1";
        let row = client.query_opt(sql, &[&projection]).await?;
        let hash: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
        self.engine.status.fail(projection, hash.as_deref().unwrap_or_default(), error, false);
        self.engine.metrics.errors_total.with_label_values(&[projection, "poison"]).inc();
        control::set_state(client, projection, "failed", Some(error)).await?;
        Ok(())
    }
}
