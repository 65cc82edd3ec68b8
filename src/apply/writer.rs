//! One transaction: the rows of every projection of a lane, and their checkpoint.
//!
//! Everything is sent at once and answered at once: `BEGIN`, a statement a table and pass, the
//! checkpoint, `COMMIT`. Should any of them fail, Postgres turns the `COMMIT` into a rollback, so
//! that sending ahead is safe: rows and checkpoint stand or fall together.
//!
//! The transaction does not wait for the log to be flushed (`synchronous_commit = off`). A crash of
//! the server may lose the last of them, rows and checkpoint together; nothing is acknowledged to
//! the slot before the log has been flushed past [`Written::wal_lsn`].

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::join;
use postgres_types::{ToSql, Type};
use tokio_postgres::{Client, Error as PgError};
use uuid::Uuid;

use crate::apply::array::ColumnArray;
use crate::apply::statement::{Statement, statement};
use crate::config::Columns;
use crate::definition::Definition;
use crate::event::Timestamp;
use crate::fold::FoldError;
use crate::fold::rows::Changes;
use crate::ident::QualifiedName;
use crate::lsn::Lsn;

/// Writes the rows of a set of projections over one connection.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    targets: Vec<Target>,
    advance: tokio_postgres::Statement,
    position: tokio_postgres::Statement,
    open: bool,
}

/// A projection that a [`Writer`] writes: its prepared statement.
#[derive(Debug)]
struct Target {
    definition: Arc<Definition>,
    table: QualifiedName,
    statement: Statement,
    prepared: tokio_postgres::Statement,
}

/// What of a lane's projections moves from where to where, with the rows.
#[derive(Clone, Debug)]
pub struct Advance {
    /// The projections, by name.
    pub projections: Vec<String>,
    /// Their checkpoints as they are now.
    pub expected: Vec<Lsn>,
    /// Their checkpoint afterwards: a commit-end LSN.
    pub next: Lsn,
    /// When the last covered transaction was committed; `None` where only the position moved.
    pub committed_at: Option<Timestamp>,
    /// How many events lie between.
    pub events: i64,
}

/// A transaction that was committed.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// The end of the log after the commit: once flushed up to here, the rows survive a crash.
    pub wal_lsn: Lsn,
    /// How long it took, from the first byte sent to the last answer.
    pub took: Duration,
}

/// The pending rows of the `target`-th projection.
#[derive(Debug)]
pub struct Part {
    /// Which of the writer's projections.
    pub target: usize,
    /// Its rows.
    pub changes: Changes,
}

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

/// The SQLSTATE with which `projector.advance` refuses.
const OVERTAKEN: &str = "PJ001";

/// The most rows of one statement.
const STATEMENT_ROWS: usize = 4096;
/// The most rows that are sent before the first of them is answered.
const ROWS_ON_THEIR_WAY: usize = 2 * STATEMENT_ROWS;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<u64, PgError>> + Send + 'a>>;

impl Writer {
    /// Prepares the statements for `projections`, each with the table its rows go to; `source` is
    /// the events table.
    ///
    /// # Errors
    /// When a table is not what its definition says, or the connection is lost.
    pub async fn prepare(
        client: Client,
        projections: &[(Arc<Definition>, QualifiedName)],
        source: (&QualifiedName, &Columns),
    ) -> Result<Self, WriteError> {
        // plans are made once, whatever the arrays' lengths; and see the module's doc
        client
            .batch_execute("set plan_cache_mode = force_generic_plan; set synchronous_commit = off; set enable_seqscan = off; set jit = off")
            .await
            .map_err(WriteError::Transaction)?;
        let mut targets = Vec::with_capacity(projections.len());
        for (definition, table) in projections {
            let statement = statement(definition, table, source);
            let types: Vec<Type> =
                statement.parameters.iter().map(|it| it.ty(definition)).collect();
            let prepared =
                client.prepare_typed(&statement.sql, &types).await.map_err(|source| {
                    WriteError::Rows { projection: definition.name.clone(), source }
                })?;
            let (definition, table) = (Arc::clone(definition), table.clone());
            targets.push(Target { definition, table, statement, prepared });
        }
        let prepare = |sql| client.prepare(sql);
        let (advance, position) = join(
            prepare("select projector.advance($1, $2, $3, $4, $5)"),
            prepare("select pg_current_wal_insert_lsn()"),
        )
        .await;
        let advance = advance.map_err(WriteError::Transaction)?;
        let position = position.map_err(WriteError::Transaction)?;
        Ok(Self { client, targets, advance, position, open: false })
    }

    /// Writes a part of a transaction that goes on: the rows are sent, the checkpoint stays.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn write_part(&mut self, parts: &[Part]) -> Result<Duration, WriteError> {
        let started = Instant::now();
        self.send(parts, None).await?;
        self.open = true;
        Ok(started.elapsed())
    }

    /// Writes rows and checkpoints and commits them; with neither, nothing is sent.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn write(
        &mut self,
        parts: &[Part],
        advances: &[Advance],
    ) -> Result<Written, WriteError> {
        let started = Instant::now();
        if parts.is_empty() && advances.is_empty() && !self.open {
            return Ok(Written { wal_lsn: Lsn::ZERO, took: Duration::ZERO });
        }
        let wal_lsn = self.send(parts, Some(advances)).await?;
        self.open = false;
        Ok(Written { wal_lsn, took: started.elapsed() })
    }

    /// The connection, for what else belongs into the open transaction.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The definition of a projection that it writes.
    pub fn definition(&self, target: usize) -> Option<&Arc<Definition>> {
        self.targets.get(target).map(|it| &it.definition)
    }

    /// Removes all rows of some runs from a projection whose rows belong to runs, in the open
    /// transaction.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn delete_runs(&self, target: usize, runs: &[Uuid]) -> Result<(), WriteError> {
        let Some(target) = self.targets.get(target) else { return Ok(()) };
        let Target { definition, table, .. } = target;
        let column = definition.run_column().and_then(|it| definition.columns.get(it));
        let Some(column) = column.map(|it| &it.name) else { return Ok(()) };
        let sql = format!("delete from {table} where {column} = any ($1)");
        let deleted = self.client.execute(&sql, &[&runs]).await;
        deleted
            .map(drop)
            .map_err(|source| WriteError::Rows { projection: definition.name.clone(), source })
    }

    /// Goes on in a transaction that was begun on the connection before.
    pub fn resume(&mut self) {
        self.open = true;
    }

    async fn send(&self, parts: &[Part], advances: Option<&[Advance]>) -> Result<Lsn, WriteError> {
        let client = &self.client;
        let passes = passes(parts);
        let mut pipeline = Pipeline::default();
        if !self.open {
            pipeline.send(None, 0, async { client.batch_execute("begin").await.map(|()| 0) }).await?;
        }
        for (part, rows) in &passes {
            let Some(target) = self.targets.get(part.target) else { continue };
            for rows in rows.chunks(STATEMENT_ROWS) {
                let changes = &part.changes;
                let array = |&parameter| ColumnArray { changes, rows, parameter };
                let parameters = target.statement.parameters.iter().map(array).collect();
                let executed = execute(client, &target.prepared, parameters);
                pipeline.send(Some(target), rows.len(), executed).await?;
            }
        }
        let Some(advances) = advances else {
            pipeline.finish().await?;
            return Ok(Lsn::ZERO);
        };
        for advance in advances {
            pipeline.send(None, 0, self.advance(advance)).await?;
        }
        let commit = async { client.batch_execute("commit").await.map(|()| 0) };
        pipeline.send(None, 0, commit).await?;
        let (finished, position) =
            join(pipeline.finish(), client.query_one(&self.position, &[])).await;
        finished?;
        position.and_then(|row| row.try_get(0)).map_err(WriteError::Transaction)
    }

    async fn advance(&self, advance: &Advance) -> Result<u64, PgError> {
        let Advance { projections, expected, next, committed_at, events } = advance;
        let parameters: [&(dyn ToSql + Sync); 5] =
            [projections, expected, next, committed_at, events];
        self.client.execute(&self.advance, &parameters).await
    }
}

/// Statements that have been sent and not been answered.
#[derive(Default)]
struct Pipeline<'a> {
    waiting: VecDeque<(Option<&'a Target>, usize, Answer<'a>)>,
    rows: usize,
}

impl<'a> Pipeline<'a> {
    /// Sends a statement: polling it once does that. Waits for earlier ones only when too many rows
    /// are on their way, since each is a copy in memory until the server has taken it.
    async fn send(
        &mut self,
        owner: Option<&'a Target>,
        rows: usize,
        statement: impl Future<Output = Result<u64, PgError>> + Send + 'a,
    ) -> Result<(), WriteError> {
        let mut answer: Answer<'a> = Box::pin(statement);
        match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
            Poll::Ready(result) => return check(result, owner),
            Poll::Pending => self.waiting.push_back((owner, rows, answer)),
        }
        self.rows += rows;
        while ROWS_ON_THEIR_WAY < self.rows {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for all answers.
    async fn finish(mut self) -> Result<(), WriteError> {
        while !self.waiting.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for the oldest answer. The first failure is the cause; those after it would only say
    /// that the transaction is aborted.
    async fn settle(&mut self) -> Result<(), WriteError> {
        let Some((owner, rows, answer)) = self.waiting.pop_front() else { return Ok(()) };
        self.rows -= rows;
        check(answer.await, owner)
    }
}

async fn execute(
    client: &Client,
    statement: &tokio_postgres::Statement,
    parameters: Vec<ColumnArray<'_>>,
) -> Result<u64, PgError> {
    client.execute_raw(statement, parameters.iter().map(|it| it as &(dyn ToSql + Sync))).await
}

/// For each pass of each part: the numbers of its rows.
fn passes(parts: &[Part]) -> Vec<(&Part, Vec<usize>)> {
    let mut list = Vec::with_capacity(parts.len());
    for part in parts {
        for pass in 0..part.changes.passes {
            list.push((part, part.changes.pass(pass).collect()));
        }
    }
    list
}

fn check(result: Result<u64, PgError>, owner: Option<&Target>) -> Result<(), WriteError> {
    let Err(source) = result else { return Ok(()) };
    Err(match owner {
        Some(target) => {
            WriteError::Rows { projection: target.definition.name.clone(), source }
        }
        None if source.code().is_some_and(|it| it.code() == OVERTAKEN) => {
            WriteError::Overtaken(source)
        }
        None => WriteError::Transaction(source),
    })
}
