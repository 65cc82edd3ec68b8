//! `projector.rebuilds`: what is to be built, what is being built, and how it ended.
//!
//! A row goes from `requested` through `snapshot`, `fold`, `catch_up` and `swap` to `done`, `failed` or
//! `canceled`. One that a process left unfinished goes back to `requested`. A generation's number is
//! in its row before its table is made, and no two attempts have the same.

use tokio_postgres::{Client, Error as PgError, GenericClient};

use crate::apply::letters;
use crate::ident::{Ident, IdentError, QualifiedName};
use crate::lsn::Lsn;

/// What somebody wants of a projection.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The projection.
    pub projection: String,
    /// Its state, where it is known.
    pub state: Option<String>,
    /// Whether it is to rest.
    pub is_paused: bool,
    /// Its checkpoint.
    pub checkpoint: Option<Lsn>,
    /// The row of a rebuild that has not ended.
    pub rebuild: Option<Unfinished>,
}

/// A rebuild that has not ended.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// Its row.
    pub id: i64,
    /// Whether nobody has begun it.
    pub is_requested: bool,
    /// Whether it is to be given up.
    pub is_canceled: bool,
}

/// Everything that is wanted now.
///
/// # Errors
/// Those of the connection.
pub async fn wishes(client: &Client) -> Result<Vec<Wish>, PgError> {
    let rows = client
        .query(
            "select coalesce(p.name, r.projection), p.state, p.paused_at is not null, c.lsn,
               r.id, r.phase = 'requested', r.cancel_at is not null
             from projector.projections p
             full join (select * from projector.rebuilds where finished_at is null) r
               on r.projection = p.name
             left join projector.checkpoints c on c.projection = p.name",
            &[],
        )
        .await?;
    let wish = |row: &tokio_postgres::Row| {
        let unfinished = |id| {
            let (is_requested, is_canceled) = (row.try_get(5)?, row.try_get(6)?);
            Ok::<_, PgError>(Unfinished { id, is_requested, is_canceled })
        };
        Ok(Wish {
            projection: row.try_get(0)?,
            state: row.try_get(1)?,
            is_paused: row.try_get(2)?,
            checkpoint: row.try_get(3)?,
            rebuild: row.try_get::<_, Option<i64>>(4)?.map(unfinished).transpose()?,
        })
    };
    rows.iter().map(wish).collect()
}

/// Enters a rebuild, or takes up the one of this projection that has not ended.
///
/// # Errors
/// Those of the connection.
pub async fn open(client: &Client, projection: &str, reason: &str) -> Result<i64, PgError> {
    let sql = "insert into projector.rebuilds as r (projection, phase, reason) values ($1, 'requested', $2)
         on conflict (projection) where finished_at is null do update
           set phase = 'requested', updated_at = clock_timestamp()
         returning r.id";
    client.query_one(sql, &[&projection, &reason]).await?.try_get(0)
}

/// What an earlier process left unfinished is to be done again, except what only that process had
/// a reason for.
///
/// # Errors
/// Those of the connection.
pub async fn take_up(client: &Client) -> Result<(), PgError> {
    client
        .batch_execute(
            "update projector.rebuilds
             set phase = case when cancel_at is null and reason = 'request' then 'requested' else 'canceled' end,
                 finished_at = case when cancel_at is null and reason = 'request' then null
                   else clock_timestamp() end,
                 error = case when cancel_at is null and reason <> 'request' then 'interrupted' end,
                 waiting_for = null, updated_at = clock_timestamp()
             where finished_at is null",
        )
        .await
}

/// Begins the rebuild `id`, and gives the number of the generation to make; `None` when it has been
/// given up meanwhile.
///
/// # Errors
/// Those of the connection.
pub async fn begin(client: &Client, id: i64) -> Result<Option<i32>, PgError> {
    let sql = "update projector.rebuilds r
         set phase = 'snapshot', started_at = clock_timestamp(), updated_at = clock_timestamp(),
             events_done = 0, events_total = null, lsn = null, waiting_for = null, error = null,
             generation = 1 + greatest(
               (select generation from projector.projections p where p.name = r.projection),
               (select max(generation) from projector.rebuilds other where other.projection = r.projection),
               0)
         where id = $1 and finished_at is null and cancel_at is null
         returning generation";
    client.query_opt(sql, &[&id]).await?.map(|row| row.try_get(0)).transpose()
}

/// How far some rebuilds are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stage<'a> {
    /// `snapshot`, `fold`, `catch_up` or `swap`.
    pub phase: &'a str,
    /// Events folded.
    pub done: u64,
    /// About how many there are, where that is known.
    pub total: Option<u64>,
    /// Up to where the new generations are complete.
    pub lsn: Option<Lsn>,
    /// What they wait for.
    pub waiting_for: Option<&'a str>,
}

/// Writes down how far some rebuilds are.
///
/// # Errors
/// Those of the connection.
pub async fn tell(client: &Client, ids: &[i64], stage: &Stage<'_>) -> Result<(), PgError> {
    let done = i64::try_from(stage.done).unwrap_or(i64::MAX);
    let total = stage.total.map(|it| i64::try_from(it).unwrap_or(i64::MAX));
    let sql = "update projector.rebuilds
         set phase = $2, events_done = $3, events_total = $4, lsn = $5, waiting_for = $6,
             updated_at = clock_timestamp()
         where id = any ($1) and finished_at is null";
    client
        .execute(sql, &[&ids, &stage.phase, &done, &total, &stage.lsn, &stage.waiting_for])
        .await?;
    Ok(())
}

/// Ends a rebuild that did not succeed.
///
/// # Errors
/// Those of the connection.
pub async fn end(
    client: &Client,
    id: i64,
    phase: &str,
    error: Option<&str>,
) -> Result<(), PgError> {
    let sql = "update projector.rebuilds
         set phase = $2, error = $3, waiting_for = null, finished_at = clock_timestamp(),
             updated_at = clock_timestamp()
         where id = $1 and finished_at is null";
    client.execute(sql, &[&id, &phase, &error]).await?;
    Ok(())
}

/// Ends rebuilds that succeed with the transaction that this is called in.
///
/// Each is an `id` and the number of its generation. False when one of them is no longer this
/// process' to end; the transaction must then be given up.
///
/// # Errors
/// Those of the connection.
pub async fn succeed<C: GenericClient>(
    client: &C,
    rebuilds: &[(i64, i32)],
    lsn: Lsn,
    events: u64,
) -> Result<bool, PgError> {
    let (ids, generations): (Vec<i64>, Vec<i32>) = rebuilds.iter().copied().unzip();
    let events = i64::try_from(events).unwrap_or(i64::MAX);
    let sql = "update projector.rebuilds r
         set phase = 'done', events_done = $3, events_total = $3, lsn = $4, waiting_for = null,
             finished_at = clock_timestamp(), updated_at = clock_timestamp()
         from unnest($1::bigint[], $2::int[]) as own (id, generation)
         where r.id = own.id and r.generation = own.generation
           and r.phase = 'swap' and r.finished_at is null";
    let ended = client.execute(sql, &[&ids, &generations, &events, &lsn]).await?;
    Ok(ended == rebuilds.len() as u64)
}

/// Tables of generations that serve nobody: those of attempts that came to no end.
///
/// # Errors
/// Those of the connection; a name that is none.
pub async fn orphans(client: &Client) -> Result<Vec<QualifiedName>, OrphanError> {
    let sql = "select n.nspname::text, c.relname::text
         from projector.projections p
         join pg_namespace n on n.nspname = 'projector'
         join pg_class c on c.relnamespace = n.oid and c.relkind = 'r' and not c.relispartition
           and starts_with(c.relname::text, p.table_name || '_')
         where substr(c.relname::text, length(p.table_name) + 2) ~ '^[1-9][0-9]{0,8}$'
           and substr(c.relname::text, length(p.table_name) + 2) <> p.generation::text";
    let mut list = Vec::new();
    for row in client.query(sql, &[]).await? {
        let (schema, name) = (row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
        list.push(QualifiedName { schema: Ident::new(schema)?, name: Ident::new(name)? });
    }
    Ok(list)
}

/// Why orphans cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    /// The connection.
    #[error(transparent)]
    Database(#[from] PgError),
    /// A table has a name that is none.
    #[error(transparent)]
    Name(#[from] IdentError),
}

/// Drops such tables, each where nobody holds it; the next time takes up the others.
///
/// # Errors
/// Those of the connection.
pub async fn sweep(client: &Client) -> Result<(), OrphanError> {
    for table in orphans(client).await? {
        let drop_table = format!(
            "begin; set local lock_timeout = '1s'; drop table if exists {table} cascade; commit"
        );
        match client.batch_execute(&drop_table).await {
            Ok(()) => tracing::info!(table = %table, "dropped what an unfinished build left"),
            Err(error) if client.is_closed() => return Err(error.into()),
            Err(error) => {
                client.batch_execute("rollback").await?;
                tracing::warn!(table = %table, %error, "what an unfinished build left stays for now");
            }
        }
    }
    Ok(letters::sweep(client).await?)
}
