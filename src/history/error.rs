//! Why history could not be made into a table.

use std::time::Duration;

use tokio_postgres::Error as PgError;

use crate::apply::error::WriteError;
use crate::assembler::AssembleError;
use crate::fold::FoldError;
use crate::history::fill::BadRow;
use crate::ident::{Ident, IdentError};
use crate::lsn::Lsn;
use crate::pg::ConnectError;
use crate::pgoutput::DecodeError;
use crate::wal::error::WalError;

/// Why a generation could not be made or put in place. What serves has not changed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A rule failed on an event.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The database refused the rows.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The tables of a projection could not be made or swapped.
    #[error("the tables of projection `{projection}` cannot be made")]
    Tables {
        /// The projection.
        projection: String,
        /// What the database said.
        #[source]
        source: PgError,
    },
    /// The checkpoint is not where it was last seen: somebody else writes this projection.
    #[error("the checkpoint of projection `{projection}` was moved by somebody else: expected {}, found {}", position(*expected), position(*found))]
    Overtaken {
        /// The projection.
        projection: String,
        /// Where it should be.
        expected: Option<Lsn>,
        /// Where it is.
        found: Option<Lsn>,
    },
    /// The table is partitioned by a column that is not in the new key as it was in the old one.
    #[error(
        "the key of `{projection}` must keep `{column}`, its first column, as it is: {table} is partitioned by it (to change it, drop that table; grants, policies and views on it go with it)"
    )]
    Key {
        /// The projection.
        projection: String,
        /// The column.
        column: String,
        /// The read model.
        table: String,
    },
    /// A table's name is too long for a generation's number.
    #[error(transparent)]
    Name(#[from] IdentError),
    /// A connection could not be made.
    #[error("history cannot be read")]
    Connect(#[from] ConnectError),
    /// A connection broke, or the snapshot is gone.
    #[error("history cannot be read")]
    Read(#[from] PgError),
    /// The server sent something else than was asked for.
    #[error(transparent)]
    Row(#[from] BadRow),
    /// A task ended that must not.
    #[error("a task that reads or writes history broke")]
    Task(#[from] tokio::task::JoinError),
    /// The temporary slot, or its stream.
    #[error("the log cannot be followed from slot `{slot}`", slot = slot.as_str())]
    Wal {
        /// The slot.
        slot: Ident,
        /// What happened.
        #[source]
        source: WalError,
    },
    /// The events that came meanwhile are in a file that cannot be read.
    #[error("the events of the meantime cannot be read from their temporary file")]
    Spool(#[source] std::io::Error),
    /// The server sent what cannot be read.
    #[error("a replication message cannot be read")]
    Decode(#[from] DecodeError),
    /// The messages are no events.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Nothing came, nor an answer: the position is beyond what the server has flushed, or the server
    /// is gone.
    #[error(
        "the server did not send the log up to {limit} within {waited:?} (it came to {received})"
    )]
    Silent {
        /// What was waited for.
        limit: Lsn,
        /// What came.
        received: Lsn,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Somebody called it off.
    #[error("canceled")]
    Canceled,
}

impl BuildError {
    /// The projection that is to blame, where it is one.
    pub fn projection(&self) -> Option<&str> {
        match self {
            Self::Fold(error) => Some(&error.projection),
            Self::Write(WriteError::Rows { projection, .. })
            | Self::Tables { projection, .. }
            | Self::Key { projection, .. }
            | Self::Overtaken { projection, .. } => Some(projection),
            Self::Write(WriteError::Fold(error)) => Some(&error.projection),
            _ => None,
        }
    }
}

fn position(it: Option<Lsn>) -> String {
    it.map_or_else(|| "none".to_owned(), |it| it.to_string())
}
