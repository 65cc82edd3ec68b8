//! Tables filled with the history that a snapshot sees.
//!
//! Each table stands alone and is seen by nobody until it is put in place. Rows are committed as they
//! come. When the fill fails or is canceled, its tables are dropped; what a crash leaves is for the
//! next session to find.
//!
//! * `fast`: several readers, rows settled in memory and copied in, indexes afterwards
//! * `split`: which reader reads which runs · `read`: rows of the events table, as little as needed
//! * `reader`: folds them
//! * `found`: what lookups find on the way · `sink`: rows on their way into the tables
//! * `one_by_one`: the way for whatever `fast` cannot do

mod fast;
mod found;
mod one_by_one;
mod read;
mod reader;
mod sink;
mod split;

use std::time::Duration;

use tokio_postgres::{Client, Error as PgError};
use tokio_util::sync::CancellationToken;

use crate::apply::generation::Tables;
use crate::apply::letters;
use crate::history::anchor::Anchor;
use crate::history::error::BuildError;
use crate::history::fill::fast::{Reading, Stop};
pub use crate::history::fill::read::BadRow;
use crate::history::source::{BuildProgress, Source, Target};
use crate::pg;

/// What was filled.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// How many events there were.
    pub events: u64,
}

/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);

/// What the tables are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To serve: with all indexes, and those that an operator has made on the parent.
    Serve,
    /// To be compared with: not logged, and with no index but the key's.
    Compare,
}

/// Makes the tables and fills them with what `anchor`'s snapshot sees.
///
/// # Errors
/// See [`BuildError`]; the tables are gone then.
pub async fn fill(
    source: &Source,
    anchor: &Anchor,
    targets: &[Target],
    purpose: Purpose,
    tell: impl FnMut(BuildProgress) + Send,
    cancel: &CancellationToken,
) -> Result<Filled, BuildError> {
    // what is dropped in the midst are connections, and with them what they had begun
    let mut tell = tell;
    let filled = tokio::select! {
        filled = fill_tables(source, anchor, targets, purpose, &mut tell) => filled,
        () = cancel.cancelled() => Err(BuildError::Canceled),
    };
    if filled.is_err()
        && let Err(error) = drop_tables(source, targets).await
    {
        let tables: Vec<_> = targets.iter().map(|it| it.table.to_string()).collect();
        tracing::warn!(tables = tables.join(","), %error, "an unfinished table could not be dropped");
    }
    filled
}

/// Drops tables that do not serve. Statements of ours that still write to them, because their server
/// process has not noticed yet that nobody listens, are ended.
///
/// # Errors
/// Those of the connection.
pub async fn drop_tables(source: &Source, targets: &[Target]) -> Result<(), BuildError> {
    let client = pg::connect(&source.settings, "projector build").await?;
    client.batch_execute("set lock_timeout = '30s'").await?;
    for target in targets {
        let table = target.table.to_string();
        let end = "select pg_terminate_backend(a.pid)
             from pg_locks l join pg_stat_activity a on a.pid = l.pid
             where l.relation = to_regclass($1) and a.pid <> pg_backend_pid()
               and a.usename = current_user and a.backend_type = 'client backend'";
        client.execute(end, &[&table]).await?;
        client.batch_execute(&format!("drop table if exists {table} cascade")).await?;
        letters::forget(&client, &table).await?;
    }
    Ok(())
}

async fn fill_tables(
    source: &Source,
    anchor: &Anchor,
    targets: &[Target],
    purpose: Purpose,
    tell: &mut (impl FnMut(BuildProgress) + Send),
) -> Result<Filled, BuildError> {
    // that a row is refused shows where it is written, and which event is to blame only one by one
    // and a statement is given events in one order
    let has_sql = targets.iter().any(|it| it.definition.sql.is_some());
    if !source.is_careful && !has_sql {
        for reading in [Reading::Needed, Reading::Everything] {
            match fast::fill(source, anchor, targets, purpose, reading, tell).await {
                Ok(filled) => return Ok(filled),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::NeedsEverything) if reading == Reading::Needed => {}
                Err(stop) => {
                    tracing::info!(?stop, "history is folded event by event");
                    break;
                }
            }
        }
    }
    one_by_one::fill(source, anchor, targets, purpose, tell).await
}

/// The planner's idea of the table's size: counting would take as long as reading.
async fn estimate(reader: &Client, source: &Source) -> Result<u64, PgError> {
    let sql = "select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
         from pg_partition_tree($1::text::regclass) t join pg_class c on c.oid = t.relid
         where t.isleaf";
    let row = reader.query_one(sql, &[&source.events.to_string()]).await?;
    Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
}

async fn make_table(
    client: &Client,
    source: &Source,
    target: &Target,
    purpose: Purpose,
) -> Result<(), BuildError> {
    let Target { definition, table } = target;
    let tables = Tables::new(definition, &source.schema);
    let create = match purpose {
        Purpose::Serve => tables.create_generation(table),
        Purpose::Compare => tables.create_scratch(table),
    };
    let sql = format!("drop table if exists {table};\n{create}");
    let made = client.batch_execute(&sql).await;
    made.map_err(|source| BuildError::Tables { projection: definition.name.clone(), source })
}

/// Puts on a table what an operator has made on its parent.
async fn adopt(client: &Client, source: &Source, target: &Target) -> Result<(), BuildError> {
    let adopt = Tables::new(&target.definition, &source.schema).adopt(&target.table);
    let adopted = client.batch_execute(&adopt).await;
    let projection = || target.definition.name.clone();
    adopted.map_err(|source| BuildError::Tables { projection: projection(), source })
}
