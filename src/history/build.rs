//! A whole generation of read models, made from the events table.
//!
//! A projection needs that when it is new, when its definition has changed, or when the slot has
//! moved on without it. The state of the table is pinned by the exported snapshot of a temporary
//! slot: what was committed before the slot's consistent point is in the snapshot, and nothing else
//! is. So a generation filled from it is complete up to exactly that position, and the stream takes
//! over from there, with nothing missed and nothing twice.
//!
//! Everything happens in one transaction: tables, rows, checkpoint and the swap. A crash leaves
//! nothing behind, and readers see the old generation until the new one is complete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio_postgres::binary_copy::BinaryCopyOutStream;
use tokio_postgres::{Client, Error as PgError};

use crate::apply::control::{Installed, install};
use crate::apply::generation::Tables;
use crate::apply::writer::{Part, WriteError, Writer};
use crate::config::Columns;
use crate::definition::{Definition, Scope, Scratch};
use crate::fold::{Fold, FoldError};
use crate::history::event::{COLUMN_TYPES, copied, select_list};
use crate::ident::{Ident, QualifiedName, literal};
use crate::lsn::Lsn;
use crate::redact::Redactor;

/// A projection to be made, and what it replaces.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its definition.
    pub definition: Arc<Definition>,
    /// The generation that serves now; 0 for none.
    pub generation: i32,
}

/// What the builds of one pass share.
#[derive(Debug)]
pub struct Builder<'a> {
    /// Reads history.
    pub reader: Client,
    /// Writes the new generations.
    pub writer: Client,
    /// The name of the exported snapshot.
    pub snapshot: &'a str,
    /// What the snapshot contains: everything committed before this.
    pub consistent_point: Lsn,
    /// The events table.
    pub events: &'a QualifiedName,
    /// What its columns are called.
    pub columns: &'a Columns,
    /// The schema of the read models.
    pub schema: &'a Ident,
    /// What `redact()` hides.
    pub redactor: &'a Redactor,
    /// Bytes of pending rows at which they are written out.
    pub pending_limit: usize,
}

/// How far a build is.
#[derive(Clone, Copy, Debug)]
pub struct BuildProgress {
    /// Events folded.
    pub done: u64,
    /// About how many there are.
    pub total: u64,
}

/// Why history could not be folded. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A rule failed on an event.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The database refused the rows.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The tables of a projection could not be made.
    #[error("the tables of projection `{projection}` cannot be made")]
    Tables {
        /// The projection.
        projection: String,
        /// What the database said.
        #[source]
        source: PgError,
    },
    /// A table's name is too long for a generation's number.
    #[error(transparent)]
    Name(#[from] crate::ident::IdentError),
    /// The connection, or the snapshot.
    #[error("history cannot be read")]
    Read(#[from] PgError),
}

impl BuildError {
    /// The projection that is to blame, where it is one.
    pub fn projection(&self) -> Option<&str> {
        match self {
            Self::Fold(error) => Some(&error.projection),
            Self::Write(WriteError::Rows { projection, .. }) | Self::Tables { projection, .. } => {
                Some(projection)
            }
            _ => None,
        }
    }
}

/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);

impl Builder<'_> {
    /// Folds history into a new generation of each projection, and puts them in place. Returns how
    /// many events there were.
    ///
    /// # Errors
    /// See [`BuildError`]; nothing has changed then.
    pub async fn build(
        self,
        orders: &[Order],
        mut tell: impl FnMut(BuildProgress),
    ) -> Result<u64, BuildError> {
        let begin = "begin isolation level repeatable read read only; set transaction snapshot";
        self.reader.batch_execute(&format!("{begin} {}", literal(self.snapshot))).await?;
        let total = self.estimate().await?;
        self.writer.batch_execute("begin").await?;
        let mut targets = Vec::with_capacity(orders.len());
        for order in orders {
            targets.push((Arc::clone(&order.definition), self.new_generation(order).await?));
        }
        let copy = self.reader.copy_out(&self.copy_statement()).await?;
        let mut writer =
            Writer::prepare(self.writer, &targets, (self.events, self.columns)).await?;
        writer.resume();

        let mut folds: Vec<_> =
            orders.iter().map(|it| Fold::new(Arc::clone(&it.definition))).collect();
        let rows = BinaryCopyOutStream::new(copy, &COLUMN_TYPES);
        let mut rows = std::pin::pin!(rows);
        let mut scratch = Scratch::default();
        let mut done = 0;
        let mut told = Instant::now();
        tell(BuildProgress { done, total });
        while let Some(row) = rows.try_next().await? {
            let scope = Scope::new(copied(&row)?, &mut scratch, self.redactor);
            for fold in &mut folds {
                fold.event(&scope)?;
            }
            done += 1;
            let pending: usize = folds.iter().map(|it| it.changes().bytes()).sum();
            if self.pending_limit <= pending {
                writer.write_part(&parts(&mut folds)).await?;
            }
            if TELL <= told.elapsed() {
                told = Instant::now();
                tell(BuildProgress { done, total: total.max(done) });
            }
        }
        writer.write_part(&parts(&mut folds)).await?;
        for (order, (_, table)) in orders.iter().zip(&targets) {
            put_in_place(writer.client(), order, table, self.schema, self.consistent_point, done)
                .await?;
        }
        writer.client().batch_execute("commit").await?;
        tell(BuildProgress { done, total: done });
        Ok(done)
    }

    /// The planner's idea of the table's size: counting would take as long as reading.
    async fn estimate(&self) -> Result<u64, PgError> {
        let sql = "select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
             from pg_partition_tree($1::text::regclass) t join pg_class c on c.oid = t.relid
             where t.isleaf";
        let row = self.reader.query_one(sql, &[&self.events.to_string()]).await?;
        Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
    }

    /// Run by run, so that all events of a row come together and the row is written once.
    fn copy_statement(&self) -> String {
        let Columns { run_id, version, .. } = self.columns;
        let columns = select_list(self.columns);
        let events = self.events;
        format!(
            "copy (select {columns} from {events} order by {run_id}, {version}) to stdout (format binary)"
        )
    }

    async fn new_generation(&self, order: &Order) -> Result<QualifiedName, BuildError> {
        let tables = Tables::new(&order.definition, self.schema);
        let table = tables.generation(order.generation + 1)?;
        let sql = format!(
            "drop table if exists {table};\n{}{}",
            tables.create_parent(),
            tables.create_generation(&table)
        );
        self.writer.batch_execute(&sql).await.map_err(|source| BuildError::Tables {
            projection: order.definition.name.clone(),
            source,
        })?;
        Ok(table)
    }
}

/// Swaps the generations and records the new one with its checkpoint.
async fn put_in_place(
    client: &Client,
    order: &Order,
    table: &QualifiedName,
    schema: &Ident,
    checkpoint: Lsn,
    events: u64,
) -> Result<(), BuildError> {
    let definition = &order.definition;
    let explain = |source| BuildError::Tables { projection: definition.name.clone(), source };
    let tables = Tables::new(definition, schema);
    let current = current_generation(client, tables.parent()).await?;
    if let Some(current) = &current {
        client.batch_execute(&tables.detach(current)).await.map_err(explain)?;
    }
    client.batch_execute(&tables.strip_parent()).await.map_err(explain)?;
    let before = declared_columns(client, &definition.name).await?;
    // without a generation before, the parent has just been made by this very definition
    if !before.is_empty() {
        let has = column_names(client, tables.parent()).await?;
        client.batch_execute(&tables.alter_parent(&has, &before)).await.map_err(explain)?;
    }
    client.batch_execute(&tables.dress_parent()).await.map_err(explain)?;
    client.batch_execute(&tables.attach(table)).await.map_err(explain)?;
    let columns: serde_json::Map<_, _> = tables
        .columns()
        .into_iter()
        .map(|(name, declared)| (name.as_str().to_owned(), declared.into()))
        .collect();
    let installed = Installed {
        name: &definition.name,
        table: definition.table.as_str(),
        lane: &definition.lane,
        definition_hash: &definition.hash,
        columns: &serde_json::Value::Object(columns).to_string(),
        generation: order.generation + 1,
        checkpoint,
        events: i64::try_from(events).unwrap_or(i64::MAX),
    };
    install(client, &installed).await?;
    Ok(())
}

async fn current_generation(
    client: &Client,
    parent: &QualifiedName,
) -> Result<Option<QualifiedName>, BuildError> {
    let sql = "select n.nspname::text, c.relname::text from pg_inherits i
         join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
         where i.inhparent = $1::text::regclass";
    let row = client.query_opt(sql, &[&parent.to_string()]).await?;
    let Some(row) = row else { return Ok(None) };
    let schema = Ident::new(row.try_get::<_, String>(0)?)?;
    let name = Ident::new(row.try_get::<_, String>(1)?)?;
    Ok(Some(QualifiedName { schema, name }))
}

/// The columns that the serving generation was declared with.
async fn declared_columns(client: &Client, name: &str) -> Result<Vec<(String, String)>, PgError> {
    let sql = "select c.key, c.value from projector.projections p, jsonb_each_text(p.columns) c
         where p.name = $1";
    let rows = client.query(sql, &[&name]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

async fn column_names(client: &Client, table: &QualifiedName) -> Result<Vec<String>, PgError> {
    let sql = "select attname::text from pg_attribute
         where attrelid = $1::text::regclass and 0 < attnum and not attisdropped";
    let rows = client.query(sql, &[&table.to_string()]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

fn parts(folds: &mut [Fold]) -> Vec<Part> {
    let part = |(target, fold): (usize, &mut Fold)| Part { target, changes: fold.take() };
    folds.iter_mut().enumerate().map(part).filter(|it| !it.changes.is_empty()).collect()
}
