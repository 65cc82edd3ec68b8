//! A point in the log that history can be read up to and the stream taken over from.
//!
//! A temporary slot is made and the snapshot at its beginning exported. What was committed before the
//! slot's consistent point *C* is in the snapshot, and nothing else is; the slot sends the rest. So
//! what is read under the snapshot and then follows the slot misses nothing and has nothing twice.
//!
//! The slot is followed from the first moment on, so that it does not keep the log while history is
//! read (`tape`). That ends the snapshot's export; a connection that has taken it up exports it anew.
//!
//! Slot and snapshot go with their connections, whatever becomes of the process.

use std::time::Duration;

use tokio_postgres::Client;

use crate::history::error::BuildError;
use crate::history::source::Source;
use crate::history::tape::Tape;
use crate::ident::{Ident, literal};
use crate::lsn::Lsn;
use crate::pg;
use crate::wal::conn::ReplicationConnection;
use crate::wal::error::WalError;
use crate::wal::stream::StreamOptions;

/// How long making the slot may wait for transactions that are open elsewhere.
const SLOT_WAIT: Duration = Duration::from_secs(30);

/// A snapshot of history, and where it ends.
#[derive(Debug)]
pub struct Anchor {
    /// The name of the exported snapshot. It can be taken up for as long as the anchor is there.
    pub snapshot: String,
    /// What the snapshot contains: everything committed before this.
    pub lsn: Lsn,
    /// Sees what the snapshot sees, so that it stays.
    _keeper: Client,
}

impl Anchor {
    /// Makes the slot, on a connection of its own, and begins to follow it.
    ///
    /// # Errors
    /// When there is no connection or no free slot, or when transactions that are open elsewhere
    /// hold it up for more than half a minute.
    pub async fn take(source: &Source, slot: &Ident) -> Result<(Self, Tape), BuildError> {
        let explain = |source: WalError| BuildError::Wal { slot: slot.clone(), source };
        let connection = ReplicationConnection::connect(&source.settings, "projector build").await;
        let mut connection = connection.map_err(|it| explain(it.into()))?;
        let made = connection.create_temporary_slot(slot, SLOT_WAIT).await.map_err(explain)?;
        let keeper = pg::connect(&source.settings, "projector build").await?;
        // it rests for as long as history is read, whatever the server thinks of that
        let begin = format!(
            "set idle_in_transaction_session_timeout = 0;
             begin isolation level repeatable read read only; set transaction snapshot {}",
            literal(&made.name)
        );
        keeper.batch_execute(&begin).await?;
        let snapshot = keeper.query_one("select pg_export_snapshot()", &[]).await?.try_get(0)?;
        let options = StreamOptions::new(source.publication.clone());
        let stream = connection.start(slot, made.consistent_point, &options).await;
        let stream = stream.map_err(explain)?;
        let lsn = made.consistent_point;
        let tape = Tape::new(source, slot.clone(), stream, lsn);
        Ok((Self { snapshot, lsn, _keeper: keeper }, tape))
    }
}
