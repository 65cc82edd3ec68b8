//! The API's connections, made when first needed and again when they have broken, with a time limit on
//! every statement: one that only reads, and one for what an operator wants done.

use std::error::Error;

use tokio::sync::Semaphore;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::pg::{ConnectError, Settings, SharedClient};

/// The API only reads, and a query of it must not outlive the request that asked.
const READING: &str = "-c default_transaction_read_only=on -c statement_timeout=5s";
/// What an operator wants is written down on this server; it need not wait for others.
const CONTROL: &str = "-c synchronous_commit=local -c statement_timeout=5s";

/// How many requests may wait for a projection at once; each looks up to twenty times a second.
const WAITS: usize = 100;

/// Where the read models are.
#[derive(Debug)]
pub struct Database {
    reading: SharedClient,
    control: SharedClient,
    /// Requests that may look again and again at once.
    pub(super) waits: Semaphore,
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
    pub fn new(settings: Settings) -> Self {
        let with = |session: &str, name: &str| {
            let mut settings = settings.clone();
            let given = settings.options.take().unwrap_or_default();
            // The last of two settings of the same name counts.
            settings.options = Some(format!("{given} {session}").trim_start().to_owned());
            SharedClient::new(settings, name)
        };
        Self {
            reading: with(READING, "projector http"),
            control: with(CONTROL, "projector http control"),
            waits: Semaphore::new(WAITS),
        }
    }

    /// Runs a query in one round trip, without a prepared statement.
    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, DatabaseError> {
        run(&self.reading, sql, parameters).await
    }

    /// The same for what may change something.
    pub(super) async fn command(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, DatabaseError> {
        run(&self.control, sql, parameters).await
    }
}

async fn run(
    client: &SharedClient,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, DatabaseError> {
    client.get().await?.query_typed(sql, parameters).await.map_err(|error| {
        if error.as_db_error().is_some() {
            DatabaseError::Query(error)
        } else {
            DatabaseError::Lost(error)
        }
    })
}
