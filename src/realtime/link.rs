//! A connection to the database on which nothing takes for ever.
//!
//! Who waits for a lock, a slow trigger or a network that is dead neither sees that too much waits, nor
//! says that broadcasts do. The server bounds what it does itself; a connection on which it does not
//! answer either is given up.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Error as PgError};

use crate::pg::{self, ConnectError, Settings};

/// What the server does not wait for, nor work on, for longer. Not among the start-up parameters, which
/// some poolers refuse.
const SESSION: &str = "set lock_timeout = '5s'; set statement_timeout = '10s'";
/// How long to wait for an answer: the server has a little more time than it allows itself.
pub const LIMIT: Duration = Duration::from_secs(15);

/// A connection that is made when it is needed, and made anew when it is gone.
#[derive(Debug)]
pub struct Link {
    settings: Settings,
    client: Option<Client>,
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It does not answer: the connection was given up.
    #[error("the database does not answer in time")]
    Silent,
    /// It has answered so, or the connection broke.
    #[error("{}", said(.0))]
    Query(#[from] PgError),
}

impl Link {
    /// One that is not connected.
    pub fn new(settings: Settings) -> Self {
        Self { settings, client: None }
    }

    /// The connection. Whoever takes it puts it back, unless it has failed.
    ///
    /// # Errors
    /// When there is none.
    pub async fn take(&mut self) -> Result<Client, LinkError> {
        if let Some(client) = self.client.take().filter(|it| !it.is_closed()) {
            return Ok(client);
        }
        let connecting = pg::connect(&self.settings, "projector broadcasts");
        let client = timeout(LIMIT, connecting).await.map_err(|_| LinkError::Silent)??;
        within(client.batch_execute(SESSION)).await?;
        Ok(client)
    }

    /// Keeps the connection for the next time.
    pub fn put(&mut self, client: Client) {
        self.client = (!client.is_closed()).then_some(client);
    }
}

/// What the work comes to, if it ends in time. If it does not, its connection is not to be used again.
///
/// # Errors
/// Those of the work, and its silence.
pub async fn within<T>(work: impl Future<Output = Result<T, PgError>>) -> Result<T, LinkError> {
    Ok(timeout(LIMIT, work).await.map_err(|_| LinkError::Silent)??)
}

/// What the server said, or what became of the connection.
fn said(error: &PgError) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |it| it.message().to_owned())
}
