//! The API's connection: one, made when first needed and again when it has broken; read-only, and
//! with a time limit on every statement.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The API only reads, and a query of it must not outlive the request that asked.
const SESSION: &str = "set default_transaction_read_only = on; set statement_timeout = '5s'";

/// Where the read models are.
pub struct Database {
    config: Config,
    client: Mutex<Option<Arc<Client>>>,
}

/// Why there are no rows.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    /// No connection could be made.
    #[error("no connection")]
    Connect(#[source] tokio_postgres::Error),
    /// Connecting took longer than five seconds.
    #[error("connecting took too long")]
    Slow,
    /// The connection broke while a query ran.
    #[error("the connection was lost")]
    Lost(#[source] tokio_postgres::Error),
    /// The server refused the query.
    #[error("the query failed")]
    Query(#[source] tokio_postgres::Error),
}

impl DatabaseError {
    /// The whole chain of causes in one line.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl Database {
    /// A database that is connected to once somebody asks.
    pub fn new(mut config: Config) -> Self {
        config.application_name("projector http").connect_timeout(CONNECT_LIMIT);
        Self { config, client: Mutex::new(None) }
    }

    /// Runs a query in one round trip, without a prepared statement.
    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, DatabaseError> {
        let client = self.client().await?;
        client.query_typed(sql, parameters).await.map_err(|error| {
            if error.as_db_error().is_some() {
                DatabaseError::Query(error)
            } else {
                DatabaseError::Lost(error)
            }
        })
    }

    async fn client(&self) -> Result<Arc<Client>, DatabaseError> {
        let mut held = self.client.lock().await;
        if let Some(client) = held.as_ref().filter(|it| !it.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = tokio::time::timeout(CONNECT_LIMIT, self.connect())
            .await
            .map_err(|_elapsed| DatabaseError::Slow)??;
        Ok(Arc::clone(held.insert(Arc::new(client))))
    }

    async fn connect(&self) -> Result<Client, DatabaseError> {
        let (client, connection) =
            self.config.connect(NoTls).await.map_err(DatabaseError::Connect)?;
        tokio::spawn(async move {
            // Whoever uses the client next sees that it is closed, and connects again.
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "the API's database connection ended");
            }
        });
        client.batch_execute(SESSION).await.map_err(DatabaseError::Connect)?;
        Ok(client)
    }
}
