//! What can go wrong when rows are written.

use tokio_postgres::Error as PgError;
use uuid::Uuid;

use crate::fold::FoldError;

/// Why rows could not be written. Nothing of the transaction remains.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The database refused a projection's rows.
    #[error("projection `{projection}`: {source}")]
    Rows {
        /// Whose rows.
        projection: String,
        /// What the database said.
        #[source]
        source: PgError,
    },
    /// Another process moved the checkpoint: this one is a zombie and must not write.
    #[error("the checkpoint was moved by somebody else")]
    Overtaken(#[source] PgError),
    /// The transaction itself failed.
    #[error("the transaction failed")]
    Transaction(#[source] PgError),
    /// The server did not say where its log stands.
    #[error("the server did not answer where its log stands after a commit")]
    NoPosition,
    /// An event that came through the log cannot be read from its table yet.
    #[error("event {run}/{version} has been received but is not visible in the events table")]
    NotVisible {
        /// Its run.
        run: Uuid,
        /// Its version.
        version: i32,
    },
    /// A run could not be folded again from history.
    #[error(transparent)]
    Fold(#[from] FoldError),
}
