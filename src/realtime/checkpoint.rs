//! Up to where broadcasts were delivered: a row beside the projections' checkpoints.
//!
//! It decides only what is sent again after a restart. A projection is never called like it, so that
//! nobody takes it for one; and it is forgotten with the others when the log is another.

use tokio_postgres::{Client, Error as PgError, GenericClient};

use crate::lsn::Lsn;

/// In the place of a projection's name.
const NAME: &str = "(broadcasts)";

/// Where to go on: where it was left, or, the first time, at the present end of the log.
///
/// # Errors
/// Those of the connection.
pub async fn load(client: &Client) -> Result<Lsn, PgError> {
    let sql = "with kept as (
           insert into projector.checkpoints (projection, lsn)
           values ($1, pg_current_wal_flush_lsn()) on conflict (projection) do nothing
           returning lsn)
         select lsn from kept union all
         select lsn from projector.checkpoints where projection = $1
         limit 1";
    client.query_one(sql, &[&NAME]).await?.try_get(0)
}

/// Everything up to `lsn` was delivered, or skipped.
///
/// # Errors
/// Those of the connection.
pub async fn save<C: GenericClient>(client: &C, lsn: Lsn) -> Result<(), PgError> {
    let sql = "insert into projector.checkpoints as c (projection, lsn) values ($1, $2)
         on conflict (projection) do update
         set lsn = excluded.lsn, updated_at = clock_timestamp() where c.lsn < excluded.lsn";
    client.execute(sql, &[&NAME, &lsn]).await?;
    Ok(())
}
