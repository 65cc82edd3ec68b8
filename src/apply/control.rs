//! The control tables of schema `projector`: where each projection stands.

use tokio_postgres::{Client, Error as PgError, GenericClient};

use crate::ident::Ident;
use crate::lsn::Lsn;

/// What the control tables say of a projection.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The projection.
    pub name: String,
    /// The hash of the definition that its rows were made by.
    pub definition_hash: String,
    /// The generation that serves; 0 for none.
    pub generation: i32,
    /// `live`, `failed` …
    pub state: String,
    /// Its checkpoint, where it has one.
    pub checkpoint: Option<Lsn>,
    /// How many events it has seen.
    pub events: i64,
    /// Whether the table of the serving generation is there.
    pub has_table: bool,
    /// The definition that its rows were made by, where that was kept.
    pub definition_text: Option<String>,
    /// Whether it is to rest.
    pub is_paused: bool,
}

/// Every projection that the control tables know.
///
/// # Errors
/// Those of the connection.
pub async fn standings(client: &Client) -> Result<Vec<Standing>, PgError> {
    let rows = client
        .query(
            "select p.name, p.definition_hash, p.generation, p.state, c.lsn, coalesce(c.events, 0),
               to_regclass(format('projector.%I', p.table_name || '_' || p.generation)) is not null,
               p.definition_text, p.paused_at is not null
             from projector.projections p
             left join projector.checkpoints c on c.projection = p.name",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Standing {
                name: row.try_get(0)?,
                definition_hash: row.try_get(1)?,
                generation: row.try_get(2)?,
                state: row.try_get(3)?,
                checkpoint: row.try_get(4)?,
                events: row.try_get(5)?,
                has_table: row.try_get(6)?,
                definition_text: row.try_get(7)?,
                is_paused: row.try_get(8)?,
            })
        })
        .collect()
}

/// Says in which state a projection is, and why.
///
/// # Errors
/// Those of the connection.
pub async fn set_state(
    client: &Client,
    name: &str,
    state: &str,
    error: Option<&str>,
) -> Result<(), PgError> {
    client
        .execute(
            "update projector.projections
             set state = $2, last_error = $3,
                 error_at = case when $3::text is null then null else clock_timestamp() end,
                 updated_at = clock_timestamp()
             where name = $1",
            &[&name, &state, &error],
        )
        .await?;
    Ok(())
}

/// A generation that begins to serve.
#[derive(Clone, Copy, Debug)]
pub struct Installed<'a> {
    /// The projection.
    pub name: &'a str,
    /// Its table's name.
    pub table: &'a str,
    /// Its lane.
    pub lane: &'a str,
    /// The hash of its definition.
    pub definition_hash: &'a str,
    /// The definition itself.
    pub definition_text: &'a str,
    /// The declaration of each column, to see later which of them changed: JSON text.
    pub columns: &'a str,
    /// The generation.
    pub generation: i32,
    /// Up to where its rows are complete.
    pub checkpoint: Lsn,
    /// The checkpoint that it replaces; `None` where there must be none.
    pub expected: Option<Lsn>,
    /// How many events they were made of.
    pub events: i64,
}

/// Records that a generation serves, with its checkpoint, in the transaction that puts it in place.
///
/// False when the checkpoint is not the expected one: somebody else
/// writes, and the transaction must go.
///
/// # Errors
/// Those of the connection.
pub async fn install<C: GenericClient>(client: &C, it: &Installed<'_>) -> Result<bool, PgError> {
    client
        .execute(
            "insert into projector.projections as p
               (name, table_name, lane, definition_hash, columns, generation, definition_text, state)
             values ($1, $2, $3, $4, $5::text::jsonb, $6, $7, 'live')
             on conflict (name) do update set
               table_name = excluded.table_name, lane = excluded.lane,
               definition_hash = excluded.definition_hash, columns = excluded.columns,
               definition_text = excluded.definition_text,
               generation = excluded.generation, state = 'live', last_error = null,
               error_at = null, updated_at = clock_timestamp()",
            &[
                &it.name,
                &it.table,
                &it.lane,
                &it.definition_hash,
                &it.columns,
                &it.generation,
                &it.definition_text,
            ],
        )
        .await?;
    let moved = match it.expected {
        None => {
            let insert = "insert into projector.checkpoints (projection, lsn, events)
                 values ($1, $2, $3) on conflict (projection) do nothing";
            client.execute(insert, &[&it.name, &it.checkpoint, &it.events]).await?
        }
        Some(expected) => {
            let update = "update projector.checkpoints
                 set lsn = $2, events = $3, updated_at = clock_timestamp()
                 where projection = $1 and lsn = $4";
            client.execute(update, &[&it.name, &it.checkpoint, &it.events, &expected]).await?
        }
    };
    Ok(moved == 1)
}

/// Keeps the text of a definition that means the same as the one that made the rows.
///
/// # Errors
/// Those of the connection.
pub async fn keep_text(client: &Client, name: &str, hash: &str, text: &str) -> Result<(), PgError> {
    let sql = "update projector.projections set definition_text = $3
         where name = $1 and definition_hash = $2 and definition_text is distinct from $3";
    client.execute(sql, &[&name, &hash, &text]).await?;
    Ok(())
}

/// Makes a projection known that has no generation yet, so that its failure can be recorded.
///
/// # Errors
/// Those of the connection.
pub async fn introduce(
    client: &Client,
    name: &str,
    table: &str,
    lane: &str,
) -> Result<(), PgError> {
    client
        .execute(
            "insert into projector.projections (name, table_name, lane, definition_hash, state)
             values ($1, $2, $3, '', 'rebuilding')
             on conflict (name) do nothing",
            &[&name, &table, &lane],
        )
        .await?;
    Ok(())
}

/// Projections whose definition is gone keep their rows and are marked as such.
///
/// # Errors
/// Those of the connection.
pub async fn detach_all_but(client: &Client, names: &[String]) -> Result<Vec<String>, PgError> {
    let rows = client
        .query(
            "update projector.projections set state = 'detached', updated_at = clock_timestamp()
             where name <> all ($1) and state <> 'detached' returning name",
            &[&names],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Whose log the checkpoints speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `IDENTIFY_SYSTEM`'s system identifier.
    pub system_identifier: String,
    /// Its timeline.
    pub timeline: i32,
    /// The object id of the publication, where it is known.
    pub publication: Option<u32>,
}

/// The source that the checkpoints were taken from, where there is one yet.
///
/// # Errors
/// Those of the connection.
pub async fn source(client: &Client, slot: &str) -> Result<Option<Source>, PgError> {
    let row = client
        .query_opt(
            "select system_identifier, timeline, publication from projector.sources where slot = $1",
            &[&slot],
        )
        .await?;
    row.map(|row| {
        let (system_identifier, timeline) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Source { system_identifier, timeline, publication: row.try_get(2)? })
    })
    .transpose()
}

/// The object id of a publication; `None` where it is missing.
///
/// # Errors
/// Those of the connection.
pub async fn publication(client: &Client, name: &Ident) -> Result<Option<u32>, PgError> {
    let sql = "select oid from pg_publication where pubname = $1::text::name";
    client.query_opt(sql, &[&name.as_str()]).await?.map(|row| row.try_get(0)).transpose()
}

/// Checkpoints beyond the end of the log speak of a past that has not happened: the database was
/// restored to an earlier time. The projections have none then, and are built anew.
///
/// # Errors
/// Those of the connection.
pub async fn forget_beyond(client: &Client, end: Lsn) -> Result<(), PgError> {
    client.execute("delete from projector.checkpoints where $1 < lsn", &[&end]).await?;
    Ok(())
}

/// Forgets all checkpoints, which speak of another server's log, and remembers this one.
///
/// # Errors
/// Those of the connection.
pub async fn change_source(client: &mut Client, slot: &str, it: &Source) -> Result<(), PgError> {
    let transaction = client.transaction().await?;
    transaction.execute("delete from projector.checkpoints", &[]).await?;
    remember_source(&transaction, slot, it).await?;
    transaction.commit().await
}

/// Remembers whose log the checkpoints speak of.
///
/// # Errors
/// Those of the connection.
pub async fn remember_source<C: GenericClient>(
    client: &C,
    slot: &str,
    it: &Source,
) -> Result<(), PgError> {
    client
        .execute(
            "insert into projector.sources (slot, system_identifier, timeline, publication)
             values ($1, $2, $3, $4)
             on conflict (slot) do update set
               system_identifier = excluded.system_identifier, timeline = excluded.timeline,
               publication = coalesce(excluded.publication, sources.publication)",
            &[&slot, &it.system_identifier, &it.timeline, &it.publication],
        )
        .await?;
    Ok(())
}
