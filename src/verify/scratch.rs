//! Tables to compare with, and what becomes of those that an ended process has left.
//!
//! Their names carry the server process that made them: while it is there, they are in use.

use tokio_postgres::{Client, Error as PgError};

use crate::apply::generation::CONTROL_SCHEMA;
use crate::ident::{Ident, IdentError, QualifiedName};

/// The `number`-th table of the server process `backend`.
pub(super) fn name(backend: i32, number: usize) -> Result<QualifiedName, IdentError> {
    let name = Ident::new(format!("verify_{backend}_{number}"))?;
    Ok(QualifiedName { schema: Ident::new(CONTROL_SCHEMA)?, name })
}

/// Drops the tables of comparisons that were killed.
///
/// # Errors
/// Those of the connection.
pub async fn sweep(client: &Client) -> Result<(), PgError> {
    let sql = "select format('%I.%I', n.nspname, c.relname)
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = $1 and c.relkind = 'r' and c.relpersistence = 'u'
           and c.relname ~ '^verify_[0-9]+_[0-9]+$'
           and not exists (select from pg_stat_activity a
             where a.pid::text = split_part(c.relname, '_', 2))";
    for row in client.query(sql, &[&CONTROL_SCHEMA]).await? {
        let table: String = row.try_get(0)?;
        client.batch_execute(&format!("drop table if exists {table} cascade")).await?;
        tracing::info!(table, "dropped what an interrupted comparison had left");
    }
    Ok(())
}
