//! What must be right before the log can be followed, and who may follow it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::Client;

use crate::apply::control::{self, Source};
use crate::engine::error::{EngineError, Unfit};
use crate::engine::session::Session;
use crate::pg::facts::{self, Wanted};
use crate::pg::findings::{self, FindingKind};

/// How long a server may be silent that does not say what it thinks of that (`wal_sender_timeout`).
const SILENCE: Duration = Duration::from_secs(60);

impl Session<'_> {
    /// Everything that must be right before the log can be followed.
    pub(in crate::engine) async fn examine(&self, client: &Client) -> Result<(), EngineError> {
        let config = &self.engine.config;
        let table = config.events_table();
        let columns = config.source.columns.types();
        let wanted = Wanted {
            slot: &config.source.slot,
            publication: &config.source.publication,
            table: &table,
            columns: &columns,
        };
        let facts = facts::gather(client, &wanted).await?;
        let mut findings = findings::findings(&facts, &wanted);
        if facts.slot.as_ref().is_some_and(|it| it.wal_status.as_deref() == Some("lost")) {
            // what an invalidated slot has lost is in the events table
            let drop_slot = "select pg_drop_replication_slot($1::text::name)";
            client.execute(drop_slot, &[&config.source.slot.as_str()]).await?;
            tracing::warn!(
                slot = config.source.slot.as_str(),
                "slot was invalidated; making a new one"
            );
            findings.retain(|it| it.kind != FindingKind::Slot);
        }
        if findings.is_empty() {
            return Ok(());
        }
        Err(EngineError::Server(Box::new(Unfit(findings))))
    }

    /// Takes the lead for the slot, for as long as the connection lasts.
    pub(in crate::engine) async fn lead(&self, client: &Client) -> Result<(), EngineError> {
        let slot = self.engine.config.source.slot.as_str();
        let lock =
            "select pg_try_advisory_lock(hashtext('projector'), hashtext($1)), pg_backend_pid()";
        let row = client.query_one(lock, &[&slot]).await?;
        let backends = &self.engine.status.backends;
        if row.try_get(0)? {
            backends.leader.store(row.try_get(1)?, Ordering::Relaxed);
            return Ok(());
        }
        let holder = "select pid from pg_locks
             where locktype = 'advisory' and granted and objsubid = 2
               and database = (select oid from pg_database where datname = current_database())
               and classid::bigint = hashtext('projector')::bigint & 4294967295
               and objid::bigint = hashtext($1)::bigint & 4294967295";
        let holder = client.query_opt(holder, &[&slot]).await?;
        let holder = holder.map(|it| it.try_get::<_, i32>(0)).transpose()?;
        Err(match holder {
            Some(process) if backends.has(process) => EngineError::Lingers(slot.to_owned()),
            _ => EngineError::Standby(slot.to_owned()),
        })
    }

    /// A publication that was dropped and made anew while nobody looked: what was committed in between
    /// does not come through the slot. A new one begins after that, and history has the rest.
    pub(super) async fn compare_publication(
        &self,
        client: &Client,
        now: &Source,
    ) -> Result<(), EngineError> {
        let source = &self.engine.config.source;
        let slot = source.slot.as_str();
        let before = control::source(client, slot).await?;
        let known = before
            .filter(|it| it.system_identifier == now.system_identifier)
            .and_then(|it| it.publication);
        if known.is_some() && now.publication.is_some() && known != now.publication {
            let publication = source.publication.as_str();
            tracing::warn!(slot, publication, "the publication is another; the slot is made anew");
            self.drop_slot(client).await?;
        }
        Ok(())
    }

    /// Whether the checkpoints speak of this server's log.
    pub(super) async fn recognise(
        &self,
        client: &Client,
        now: &Source,
    ) -> Result<bool, EngineError> {
        let slot = self.engine.config.source.slot.as_str();
        let before = control::source(client, slot).await?;
        let same = before.is_none_or(|it| it.system_identifier == now.system_identifier);
        if !same {
            tracing::warn!(slot, "another server than before; read models are made anew");
        }
        Ok(same)
    }
}

/// After how long without a byte this server counts as gone.
pub(super) async fn silence(client: &Client) -> Result<Duration, EngineError> {
    let sql = "select setting::bigint from pg_settings where name = 'wal_sender_timeout'";
    let millis = client.query_one(sql, &[]).await?.try_get::<_, i64>(0)?;
    let limit = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    Ok(if limit.is_zero() { SILENCE } else { limit })
}
