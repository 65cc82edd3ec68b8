//! How much log a build may write.
//!
//! Where a slot may keep only so much (`max_slot_wal_keep_size`), the server gives up those that have
//! not come past what is written: the build's own, and the one that the sidecar follows. Both are
//! followed all the time, but a slot lets go of the log only now and then, when the server has written
//! down what is running: every fifteen seconds. So a build asks how much may be written until one of
//! them is lost, and writes less. Where nobody follows the sidecar's slot it is not asked about: it
//! would let go of nothing.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::engine::error::EngineError;
use crate::history::error::BuildError;
use crate::ident::Ident;
use crate::lsn::Lsn;
use crate::wal::error::Reason;

/// What a build waits for that may write nothing.
pub(super) const WAITS: &str = "the slots to let go of log (max_slot_wal_keep_size)";

/// So long slots may let go of nothing. After that waiting would be for ever: what somebody asked for
/// is refused, and what is needed goes on bit by bit.
const PATIENCE: Duration = Duration::from_secs(120);

/// This part of the limit is left to others …
const OTHERS_PART: u64 = 4;
/// … and rows take up to so many times their size in the log, before it is asked again.
const LOG_A_ROW: u64 = 2;

/// What may be written, asked again and again.
#[derive(Debug)]
pub(super) struct Allowance {
    /// The build's own slot.
    slot: Ident,
    /// The one that a sidecar follows meanwhile.
    followed: Option<Ident>,
    /// Whether somebody asked for the build.
    is_request: bool,
    /// Where the build's slot began.
    begun: Lsn,
    dry_since: Option<Instant>,
    /// Log up to here costs the build's slot, unless it has let go of some since that was asked.
    lost_at: Option<Lsn>,
}

impl Allowance {
    /// For a build that follows `slot` from `begun` on, while a sidecar follows another.
    pub(super) fn new(slot: Ident, followed: Option<Ident>, is_request: bool, begun: Lsn) -> Self {
        Self { slot, followed, is_request, begun, dry_since: None, lost_at: None }
    }

    /// Bytes of rows that may be written before it is asked again.
    pub(super) async fn ask(&mut self, client: &Client) -> Result<u64, EngineError> {
        let Some(limit) = limit(client).await? else { return Ok(u64::MAX) };
        let sql = "select min(safe_wal_size), pg_current_wal_lsn()
               + (min(safe_wal_size) filter (where slot_name = $1::text::name))::numeric
             from pg_replication_slots
             where slot_name in ($1::text::name, $2::text::name)";
        let followed = self.followed.as_ref().map(Ident::as_str);
        let row = client.query_one(sql, &[&self.slot.as_str(), &followed]).await?;
        let safe: Option<i64> = row.try_get(0)?;
        self.lost_at = row.try_get(1)?;
        let safe = safe.map_or(limit, |it| u64::try_from(it).unwrap_or(0));
        let bytes = safe.saturating_sub(limit / OTHERS_PART) / LOG_A_ROW;
        if 0 < bytes {
            self.dry_since = None;
            return Ok(bytes);
        }
        let since = *self.dry_since.get_or_insert_with(Instant::now);
        if since.elapsed() < PATIENCE {
            return Ok(0);
        }
        if self.is_request {
            return Err(EngineError::LogDry { waited: PATIENCE, limit });
        }
        self.dry_since = None;
        Ok(limit / OTHERS_PART / LOG_A_ROW)
    }

    /// An error, or what it comes of where the server has given the build's slot up.
    pub(super) async fn explain(&self, client: &Client, error: EngineError) -> EngineError {
        let EngineError::Build(source) = error else { return error };
        if !ends_a_slot(&source) {
            return source.into();
        }
        // what cannot be asked now explains nothing
        match self.lost(client).await {
            Ok(Some((needed, limit))) => {
                EngineError::LogLost { needed, limit, source: Box::new(source) }
            }
            Ok(None) | Err(_) => source.into(),
        }
    }

    /// How much log has been written since the build began, and how much a slot may keep: where the
    /// slot could not follow, and is gone.
    async fn lost(&self, client: &Client) -> Result<Option<(u64, u64)>, EngineError> {
        let (Some(limit), Some(lost_at)) = (limit(client).await?, self.lost_at) else {
            return Ok(None);
        };
        let sql = "select pg_current_wal_insert_lsn(),
               exists (select from pg_replication_slots
                 where slot_name = $1::text::name and wal_status <> 'lost')";
        let row = client.query_one(sql, &[&self.slot.as_str()]).await?;
        let (end, is_there): (Lsn, bool) = (row.try_get(0)?, row.try_get(1)?);
        Ok((lost_at <= end && !is_there).then(|| (end.bytes_since(self.begun), limit)))
    }
}

/// Whether it is what the server says to the reader of a slot that it gives up.
fn ends_a_slot(error: &BuildError) -> bool {
    let BuildError::Wal { source, .. } = error else { return false };
    matches!(source.reason(), Some(Reason::Shutdown | Reason::SlotLost | Reason::SlotMissing))
}

/// What a slot may keep, in bytes.
pub(super) async fn limit(client: &Client) -> Result<Option<u64>, EngineError> {
    let sql = "select nullif(setting, '-1')::bigint * 1048576 from pg_settings
         where name = 'max_slot_wal_keep_size'";
    let row = client.query_opt(sql, &[]).await?;
    let limit = row.map(|row| row.try_get::<_, Option<i64>>(0)).transpose()?.flatten();
    Ok(limit.and_then(|it| u64::try_from(it).ok()))
}
