//! Replication slots: made, found, dropped.
//!
//! A slot is the server's promise to keep the log from a position on. Making one waits for every
//! transaction that is running anywhere in the cluster, so the wait is bounded: by `lock_timeout`,
//! which `CREATE_REPLICATION_SLOT` obeys and cleans up after, unlike a client that hangs up.

use std::time::Duration;

use crate::ident::{Ident, literal};
use crate::lsn::Lsn;
use crate::wal::conn::{ReplicationConnection, Row};
use crate::wal::error::{Reason, WalError};

/// Whose log this is, as `IDENTIFY_SYSTEM` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Made by initdb; the same on a physical copy, another after a dump and restore.
    pub system_identifier: String,
    /// Raised by each promotion and point-in-time recovery.
    pub timeline: i32,
    /// How far the log is flushed.
    pub position: Lsn,
    /// The database of this connection.
    pub database: String,
}

/// How a slot came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It was there; it will not send what ends at or before `confirmed_flush`.
    Existed {
        /// What its reader has confirmed.
        confirmed_flush: Lsn,
    },
    /// It is new: it sends every transaction that commits after `consistent_point`.
    Created {
        /// Where it begins.
        consistent_point: Lsn,
    },
}

/// A temporary slot and the state of the database at its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What is committed before this is in the snapshot; the slot sends the rest.
    pub consistent_point: Lsn,
    /// For `set transaction snapshot`; lives until the next command on the connection that made it.
    pub name: String,
}

impl ReplicationConnection {
    /// Asks the server who it is.
    ///
    /// # Errors
    /// The server's; [`Reason::Unsupported`] when a pooler that does not pass replication answers.
    pub async fn identify_system(&mut self) -> Result<System, WalError> {
        let rows = self.simple_query("IDENTIFY_SYSTEM").await?;
        let [Some(system_identifier), Some(timeline), Some(position), Some(database)] =
            one_row(rows, "IDENTIFY_SYSTEM")?
        else {
            return Err(odd("IDENTIFY_SYSTEM"));
        };
        let timeline = timeline.parse().map_err(|_| odd("IDENTIFY_SYSTEM"))?;
        let position = position.parse().map_err(|_| odd("IDENTIFY_SYSTEM"))?;
        Ok(System { system_identifier, timeline, position, database })
    }

    /// Finds `slot`, or creates it. Gives up after `wait` when open transactions hold it up.
    ///
    /// Create the publication first: a slot that is older cannot be read.
    ///
    /// # Errors
    /// [`WalError::Blocked`] after `wait`, with the transaction that is in the way; the server's
    /// errors; [`Reason::SlotLost`] is not noticed here, only when the stream starts.
    pub async fn ensure_slot(&mut self, slot: &Ident, wait: Duration) -> Result<Ensured, WalError> {
        if let Some(confirmed_flush) = self.confirmed_flush(slot).await? {
            return Ok(Ensured::Existed { confirmed_flush });
        }
        self.bound_wait(wait).await?;
        let command =
            format!("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput (SNAPSHOT 'nothing')");
        let rows = match self.simple_query(&command).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.explain(slot, error).await),
        };
        Ok(Ensured::Created { consistent_point: created(rows)?.0 })
    }

    /// Makes a slot that ends with this connection, and exports the snapshot at its beginning. The
    /// next command on this connection, `start` included, ends the snapshot for those who have not
    /// taken it up yet.
    ///
    /// # Errors
    /// As [`ReplicationConnection::ensure_slot`].
    pub async fn create_temporary_slot(
        &mut self,
        slot: &Ident,
        wait: Duration,
    ) -> Result<Snapshot, WalError> {
        self.bound_wait(wait).await?;
        let command = format!(
            "CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')"
        );
        match self.simple_query(&command).await {
            Ok(rows) => match created(rows)? {
                (consistent_point, Some(name)) => Ok(Snapshot { consistent_point, name }),
                (_, None) => Err(odd("CREATE_REPLICATION_SLOT")),
            },
            Err(error) => Err(self.explain(slot, error).await),
        }
    }

    /// Drops `slot`, waiting for its reader to leave it. Nothing happens when there is none.
    ///
    /// # Errors
    /// The server's.
    pub async fn drop_slot(&mut self, slot: &Ident) -> Result<(), WalError> {
        match self.simple_query(&format!("DROP_REPLICATION_SLOT {slot} WAIT")).await {
            Err(error) if error.reason() == Some(Reason::SlotMissing) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn confirmed_flush(&mut self, slot: &Ident) -> Result<Option<Lsn>, WalError> {
        let name = literal(slot.as_str());
        let rows = self
            .simple_query(&format!(
                "select coalesce(confirmed_flush_lsn, '0/0') from pg_replication_slots \
                 where slot_name = {name}"
            ))
            .await?;
        match rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten() {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| odd("pg_replication_slots")),
        }
    }

    async fn bound_wait(&mut self, wait: Duration) -> Result<(), WalError> {
        let milliseconds = wait.as_millis().clamp(1, 2_147_483_647);
        self.simple_query(&format!("set lock_timeout = {milliseconds}")).await?;
        Ok(())
    }

    /// Finds out who is in the way, when that is what `error` says.
    async fn explain(&mut self, slot: &Ident, error: WalError) -> WalError {
        if error.reason() != Some(Reason::LockTimeout) {
            return error;
        }
        let rows = self.simple_query(OLDEST_TRANSACTION).await;
        match rows {
            Ok(rows) => {
                let by = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
                WalError::Blocked { slot: slot.clone(), by }
            }
            Err(error) => error,
        }
    }
}

/// Without the query's text: it may hold anybody's data. Prepared transactions have no process.
const OLDEST_TRANSACTION: &str = "
    select what from (
        select backend_xid as xid,
               format('process %s of role %s, application %s, %s, open for %s s', pid, usename,
                      coalesce(nullif(application_name, ''), '(none)'), state,
                      round(extract(epoch from clock_timestamp() - xact_start))) as what
        from pg_stat_activity
        where backend_xid is not null and pid <> pg_backend_pid()
        union all
        select transaction, format('prepared transaction %s of role %s', quote_literal(gid), owner)
        from pg_prepared_xacts
    ) as open
    order by age(xid) desc
    limit 1";

/// The answer's columns: `slot_name`, `consistent_point`, `snapshot_name`, `output_plugin`.
fn created(rows: Vec<Row>) -> Result<(Lsn, Option<String>), WalError> {
    let command = "CREATE_REPLICATION_SLOT";
    let [_, Some(consistent_point), snapshot, _] = one_row(rows, command)? else {
        return Err(odd(command));
    };
    Ok((consistent_point.parse().map_err(|_| odd(command))?, snapshot))
}

fn one_row<const N: usize>(rows: Vec<Row>, command: &str) -> Result<[Option<String>; N], WalError> {
    rows.into_iter().next().and_then(|row| row.try_into().ok()).ok_or_else(|| odd(command))
}

fn odd(command: &str) -> WalError {
    WalError::Unexpected(format!("{command} has another form than expected"))
}
