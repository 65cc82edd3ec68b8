//! Why read models could not be compared with history.

use tokio_postgres::Error as PgError;

use crate::history::error::BuildError;
use crate::ident::IdentError;
use crate::lsn::Lsn;
use crate::pg::ConnectError;

/// Why read models could not be compared. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It has never been built.
    #[error("projection `{0}` has no rows yet")]
    NotBuilt(String),
    /// It does not follow the log, so that its rows are as of some earlier moment.
    #[error("projection `{projection}` is {state}: its rows stay as of {at}", at = checkpoint.map_or_else(|| "no position".to_owned(), |it| it.to_string()))]
    NotFollowing {
        /// The projection.
        projection: String,
        /// `paused`, `failed`, `rebuilding` …
        state: String,
        /// Up to where its rows are complete.
        checkpoint: Option<Lsn>,
    },
    /// The rows were made by other rules.
    #[error("the rows of projection `{0}` were made by another definition than the file's")]
    OtherDefinition(String),
    /// Nobody follows the log, and something was appended since.
    #[error(
        "no sidecar runs here, and events were appended after {checkpoint}, up to where the rows of `{projection}` are complete"
    )]
    NotFollowed {
        /// The projection that is farthest behind.
        projection: String,
        /// Its checkpoint.
        checkpoint: Lsn,
    },
    /// History could not be folded, or the log not followed.
    #[error("history could not be folded")]
    Build(#[from] BuildError),
    /// A table's name.
    #[error(transparent)]
    Name(#[from] IdentError),
    /// No connection.
    #[error("cannot connect to the database")]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error("the rows could not be compared")]
    Database(#[from] PgError),
}

impl VerifyError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotBuilt(_) | Self::NotFollowed { .. } => {
                "start `projector run`, which brings the rows up to date; then compare".to_owned()
            }
            Self::NotFollowing { projection, state, .. } => match state.as_str() {
                "paused" => format!("`projector resume {projection}`, then compare"),
                "rebuilding" | "catching_up" => "wait until it is live".to_owned(),
                "detached" => "put its definition back".to_owned(),
                _ => format!(
                    "see `projector status`; `projector rebuild {projection}` makes it anew"
                ),
            },
            Self::OtherDefinition(_) => {
                "give the folder of the definitions that run, with --projections; or let \
                 `projector run` rebuild it first"
                    .to_owned()
            }
            Self::Connect(error) => return error.hint(),
            _ => return None,
        })
    }
}
