//! One transaction: the rows of every projection of a lane, and their checkpoint.
//!
//! Everything is sent at once and answered at once: `BEGIN`, a statement a table and pass, the
//! checkpoint, `COMMIT`. Should any of them fail, Postgres turns the `COMMIT` into a rollback, so
//! that sending ahead is safe: rows and checkpoint stand or fall together.
//!
//! The transaction does not wait for the log to be flushed (`synchronous_commit = off`). A crash of
//! the server may lose the last of them, rows and checkpoint together; nothing is acknowledged to
//! the slot before the log has been flushed past [`Written::wal_lsn`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join;
use postgres_types::ToSql;
use tokio_postgres::{Client, Error as PgError, SimpleQueryMessage};
use uuid::Uuid;

use crate::apply::array::{ColumnArray, Encoded};
use crate::apply::bulk::{self, Bulk};
use crate::apply::error::WriteError;
use crate::apply::gathered;
use crate::apply::letters;
use crate::apply::pipeline::{Pipeline, check};
use crate::apply::statement::{Statement, statement};
use crate::config::Columns;
use crate::definition::Definition;
use crate::event::Timestamp;
use crate::fold::letters::Letter;
use crate::fold::rows::Changes;
use crate::ident::QualifiedName;
use crate::lsn::Lsn;
use crate::pg::{Class, class};

/// Writes the rows of a set of projections over one connection.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    targets: Vec<Target>,
    source: Box<(QualifiedName, Columns)>,
    letters: tokio_postgres::Statement,
    advance: tokio_postgres::Statement,
    open: bool,
    /// Whether the tables do not serve yet.
    is_building: bool,
}

/// A projection that a [`Writer`] writes: its prepared statement.
#[derive(Debug)]
struct Target {
    definition: Arc<Definition>,
    table: QualifiedName,
    /// The table as SQL names it.
    table_name: String,
    statement: Statement,
    prepared: tokio_postgres::Statement,
    /// How many rows at once are written, where that can be otherwise.
    bulk: Option<Bulk>,
}

impl Target {
    /// The name of its projection.
    fn name(&self) -> &str {
        &self.definition.name
    }

    /// The parameters of its statement.
    fn encode(&self, changes: &Changes, rows: &[usize]) -> Vec<Encoded> {
        let parameters = self.statement.parameters.iter().zip(self.prepared.params());
        let encode = |(&parameter, ty)| Encoded::of(&ColumnArray { changes, rows, parameter }, ty);
        parameters.map(encode).collect()
    }
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

/// Both in one message, so that they are answered with one.
const COMMIT: &str = "commit; select pg_current_wal_insert_lsn()";
/// The most rows of one statement.
const STATEMENT_ROWS: usize = 2048;

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
        let advance = client.prepare("select projector.advance($1, $2, $3, $4, $5)").await;
        let advance = advance.map_err(WriteError::Transaction)?;
        let letters = letters::prepare(&client).await.map_err(WriteError::Transaction)?;
        let source = Box::new((source.0.clone(), source.1.clone()));
        let mut writer = Self {
            client,
            targets: Vec::new(),
            source,
            letters,
            advance,
            open: false,
            is_building: false,
        };
        for (definition, table) in projections {
            writer.put(definition, table).await?;
        }
        Ok(writer)
    }

    /// Writes a projection from now on, as the last of its targets, or into another table and by
    /// another definition than before, in its place.
    ///
    /// # Errors
    /// When the table is not what the definition says, or the connection is lost.
    pub async fn put(
        &mut self,
        definition: &Arc<Definition>,
        table: &QualifiedName,
    ) -> Result<(), WriteError> {
        let refused = |source| WriteError::Rows { projection: definition.name.clone(), source };
        let (statement, types) = match &definition.sql {
            Some(sql) => {
                let named = gathered::name_table(&self.client, definition, table).await;
                named.map_err(refused)?;
                let statement = Statement { sql: sql.with_batch(), parameters: Vec::new() };
                (statement, gathered::TYPES.to_vec())
            }
            None => {
                let statement = statement(definition, table, (&self.source.0, &self.source.1));
                let types = statement.parameters.iter().map(|it| it.ty(definition)).collect();
                (statement, types)
            }
        };
        let prepared = self.client.prepare_typed(&statement.sql, &types).await.map_err(refused)?;
        let bulk = match definition.sql {
            Some(_) => None,
            None => Bulk::prepare(&self.client, definition, table).await.map_err(refused)?,
        };
        let (definition, table) = (Arc::clone(definition), table.clone());
        let table_name = table.to_string();
        let target = Target { definition, table, table_name, statement, prepared, bulk };
        let known = |it: &&mut Target| it.definition.name == target.definition.name;
        match self.targets.iter_mut().find(known) {
            Some(place) => *place = target,
            None => self.targets.push(target),
        }
        Ok(())
    }

    /// Writes a projection no more; the targets after it move up.
    pub fn remove(&mut self, projection: &str) {
        self.targets.retain(|it| it.definition.name != projection);
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

    /// Writes the rows of a part of a transaction that goes on, and gives their memory up while they
    /// are sent: `held` is told how much there still is. What else belongs to the parts stays in them.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn write_rows(
        &mut self,
        parts: &mut [Part],
        held: &AtomicUsize,
    ) -> Result<(), WriteError> {
        self.open().await?;
        let mut pipeline = Pipeline::default();
        for at in 0..parts.len() {
            let others: usize = bytes(parts) - parts.get(at).map_or(0, |it| it.changes.bytes());
            let Some(Part { target, changes }) = parts.get_mut(at) else { break };
            let Some(target) = self.targets.get(*target) else { continue };
            for pass in 0..changes.passes {
                let rows: Vec<_> = changes.pass(pass).collect();
                for rows in rows.chunks(STATEMENT_ROWS) {
                    self.rows(&mut pipeline, target, changes, rows).await?;
                    if let (1, Some(last)) = (changes.passes, rows.last()) {
                        changes.release(*last);
                    }
                    held.store(others + changes.bytes(), Ordering::Relaxed);
                }
            }
            changes.forget_rows();
        }
        pipeline.finish().await
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

    /// The tables do not serve yet: what is set aside of their events stands under their own names.
    pub fn building(&mut self) {
        self.is_building = true;
    }

    /// Under which name the letters of a target stand.
    pub fn letters_owner(&self, target: usize) -> &str {
        self.targets.get(target).map_or("", |it| self.owner(it))
    }

    fn owner<'a>(&self, target: &'a Target) -> &'a str {
        if self.is_building { &target.table_name } else { &target.definition.name }
    }

    /// Removes the rows of some runs from a projection whose rows belong to runs, in the open
    /// transaction; those that meet one of the conditions `but` stay.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn delete_runs(
        &self,
        target: usize,
        runs: &[Uuid],
        but: &[String],
    ) -> Result<(), WriteError> {
        let Some(target) = self.targets.get(target) else { return Ok(()) };
        let Target { definition, table, .. } = target;
        let column = definition.run_column().and_then(|it| definition.columns.get(it));
        let Some(column) = column.map(|it| &it.name) else { return Ok(()) };
        let mut sql = format!("delete from {table} where {column} = any ($1)");
        for condition in but {
            sql += &format!(" and not {condition}");
        }
        let deleted = self.client.execute(&sql, &[&runs]).await;
        deleted
            .map(drop)
            .map_err(|source| WriteError::Rows { projection: definition.name.clone(), source })
    }

    /// Writes some of a projection's pending rows, or none of them where the database finds that one
    /// of them cannot be: then its error is given, and the transaction goes on.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn try_rows(
        &mut self,
        target: usize,
        changes: &Changes,
        rows: &[usize],
    ) -> Result<Result<(), PgError>, WriteError> {
        self.open().await?;
        let Some(target) = self.targets.get(target) else { return Ok(Ok(())) };
        self.command("savepoint careful").await?;
        let pass_of = |row: &usize| changes.rows.get(*row).map_or(0, |it| it.pass);
        let mut result = Ok(());
        for pass in 0..changes.passes {
            let rows: Vec<_> = rows.iter().copied().filter(|it| pass_of(it) == pass).collect();
            for rows in rows.chunks(STATEMENT_ROWS) {
                if result.is_ok() {
                    let parameters = target.encode(changes, rows);
                    result = execute(&self.client, &target.prepared, parameters).await.map(drop);
                }
            }
        }
        match result {
            Ok(()) => {
                self.command("release savepoint careful").await?;
                Ok(Ok(()))
            }
            Err(error) if class(&error) == Class::Poison => {
                self.command("rollback to savepoint careful; release savepoint careful").await?;
                Ok(Err(error))
            }
            Err(source) => {
                let projection = target.definition.name.clone();
                Err(WriteError::Rows { projection, source })
            }
        }
    }

    /// Writes letters of a projection.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn write_letters(
        &mut self,
        target: usize,
        letters: &[Letter],
    ) -> Result<(), WriteError> {
        if letters.is_empty() {
            return Ok(());
        }
        self.open().await?;
        let Some(target) = self.targets.get(target) else { return Ok(()) };
        let owner = self.owner(target);
        let inserted = letters::insert(&self.client, &self.letters, owner, letters).await;
        inserted.map(drop).map_err(WriteError::Transaction)
    }

    /// Removes the row that meets a condition, in the open transaction.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn delete_row(&self, target: usize, condition: &str) -> Result<(), WriteError> {
        let Some(Target { definition, table, .. }) = self.targets.get(target) else {
            return Ok(());
        };
        let deleted =
            self.client.batch_execute(&format!("delete from {table} where {condition}")).await;
        deleted.map_err(|source| WriteError::Rows { projection: definition.name.clone(), source })
    }

    /// Opens a transaction, for what else belongs into it.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn begin(&mut self) -> Result<(), WriteError> {
        self.open().await
    }

    /// Gives the open transaction up.
    ///
    /// # Errors
    /// See [`WriteError`]; the connection must then be given up.
    pub async fn rollback(&mut self) -> Result<(), WriteError> {
        self.open = false;
        self.command("rollback").await
    }

    async fn command(&self, sql: &str) -> Result<(), WriteError> {
        self.client.batch_execute(sql).await.map_err(WriteError::Transaction)
    }

    async fn open(&mut self) -> Result<(), WriteError> {
        if !self.open {
            self.client.batch_execute("begin").await.map_err(WriteError::Transaction)?;
            self.open = true;
        }
        Ok(())
    }

    /// Goes on in a transaction that was begun on the connection before.
    pub fn resume(&mut self) {
        self.open = true;
    }

    async fn rows<'a>(
        &'a self,
        pipeline: &mut Pipeline<'a>,
        target: &'a Target,
        changes: &Changes,
        rows: &[usize],
    ) -> Result<(), WriteError> {
        let bulk = target.bulk.as_ref().filter(|_| bulk::FEWEST_ROWS <= rows.len());
        if let Some(bulk) = bulk
            && let Some(encoded) = bulk.encode(changes, rows)
        {
            // the rows go when the server says that it is ready, which comes after all else
            pipeline.settle_all().await?;
            let copied = bulk.copy(&self.client, encoded).await;
            return check(copied.map(|()| 0), Some(target.name()));
        }
        let executed = execute(&self.client, &target.prepared, target.encode(changes, rows));
        pipeline.send(Some(target.name()), rows.len(), executed).await
    }

    async fn send(&self, parts: &[Part], advances: Option<&[Advance]>) -> Result<Lsn, WriteError> {
        let client = &self.client;
        let passes = passes(parts);
        let mut pipeline = Pipeline::default();
        if !self.open {
            pipeline
                .send(None, 0, async { client.batch_execute("begin").await.map(|()| 0) })
                .await?;
        }
        for (part, rows) in &passes {
            let Some(target) = self.targets.get(part.target) else { continue };
            for rows in rows.chunks(STATEMENT_ROWS) {
                self.rows(&mut pipeline, target, &part.changes, rows).await?;
            }
        }
        for part in parts.iter().filter(|it| !it.changes.gathered.is_empty()) {
            let Some(target) = self.targets.get(part.target) else { continue };
            let events = &part.changes.gathered;
            let executed = gathered::execute(client, &target.prepared, events);
            pipeline.send(Some(target.name()), events.len(), executed).await?;
        }
        for part in parts.iter().filter(|it| !it.changes.letters.is_empty()) {
            let Some(target) = self.targets.get(part.target) else { continue };
            let list = &part.changes.letters;
            let inserted = letters::insert(client, &self.letters, self.owner(target), list);
            pipeline.send(None, list.len(), inserted).await?;
        }
        let Some(advances) = advances else {
            pipeline.finish().await?;
            return Ok(Lsn::ZERO);
        };
        for advance in advances {
            pipeline.send(None, 0, self.advance(advance)).await?;
        }
        let (finished, said) = join(pipeline.finish(), client.simple_query(COMMIT)).await;
        finished?;
        let said = said.map_err(WriteError::Transaction)?;
        let position = said.iter().find_map(|it| match it {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        position.ok_or(WriteError::NoPosition)
    }

    async fn advance(&self, advance: &Advance) -> Result<u64, PgError> {
        let Advance { projections, expected, next, committed_at, events } = advance;
        let parameters: [&(dyn ToSql + Sync); 5] =
            [projections, expected, next, committed_at, events];
        self.client.execute(&self.advance, &parameters).await
    }
}

async fn execute(
    client: &Client,
    statement: &tokio_postgres::Statement,
    parameters: Vec<Encoded>,
) -> Result<u64, PgError> {
    client.execute_raw(statement, parameters).await
}

/// How much memory pending rows take.
pub fn bytes(parts: &[Part]) -> usize {
    parts.iter().map(|it| it.changes.bytes()).sum()
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
