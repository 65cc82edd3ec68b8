//! The API's connection: one, made when first needed and again when it has broken; read-only, and
//! with a time limit on every statement.

use std::error::Error;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::pg::{ConnectError, Settings, SharedClient};

/// The API only reads, and a query of it must not outlive the request that asked.
const SESSION: &str = "-c default_transaction_read_only=on -c statement_timeout=5s";

/// Where the read models are.
#[derive(Debug)]
pub struct Database {
    client: SharedClient,
}

/// Why there are no rows.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    /// No connection could be made.
    #[error("no connection")]
    Connect(#[from] ConnectError),
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
        let mut cause = self.source();
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
    pub fn new(mut settings: Settings) -> Self {
        let given = settings.options.take().unwrap_or_default();
        // The last of two settings of the same name counts.
        settings.options = Some(format!("{given} {SESSION}").trim_start().to_owned());
        Self { client: SharedClient::new(settings, "projector http") }
    }

    /// Runs a query in one round trip, without a prepared statement.
    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, DatabaseError> {
        let client = self.client.get().await?;
        client.query_typed(sql, parameters).await.map_err(|error| {
            if error.as_db_error().is_some() {
                DatabaseError::Query(error)
            } else {
                DatabaseError::Lost(error)
            }
        })
    }
}
