//! The control tables of schema `projector`: where each projection stands.

use tokio_postgres::{Client, Error as PgError, GenericClient};

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
}

/// Every projection that the control tables know.
///
/// # Errors
/// Those of the connection.
pub async fn standings(client: &Client) -> Result<Vec<Standing>, PgError> {
    let rows = client
        .query(
            "select p.name, p.definition_hash, p.generation, p.state, c.lsn, coalesce(c.events, 0),
               to_regclass(format('projector.%I', p.table_name || '_' || p.generation)) is not null
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
    /// The declaration of each column, to see later which of them changed: JSON text.
    pub columns: &'a str,
    /// The generation.
    pub generation: i32,
    /// Up to where its rows are complete.
    pub checkpoint: Lsn,
    /// How many events they were made of.
    pub events: i64,
}

/// Records that a generation serves, with its checkpoint. To be called in the transaction that
/// puts the generation in place.
///
/// # Errors
/// Those of the connection.
pub async fn install<C: GenericClient>(client: &C, it: &Installed<'_>) -> Result<(), PgError> {
    client
        .execute(
            "insert into projector.projections as p
               (name, table_name, lane, definition_hash, columns, generation, state)
             values ($1, $2, $3, $4, $5::text::jsonb, $6, 'live')
             on conflict (name) do update set
               table_name = excluded.table_name, lane = excluded.lane,
               definition_hash = excluded.definition_hash, columns = excluded.columns,
               generation = excluded.generation, state = 'live', last_error = null,
               error_at = null, updated_at = clock_timestamp()",
            &[&it.name, &it.table, &it.lane, &it.definition_hash, &it.columns, &it.generation],
        )
        .await?;
    client
        .execute(
            "insert into projector.checkpoints (projection, lsn, events)
             values ($1, $2, $3)
             on conflict (projection) do update set
               lsn = excluded.lsn, events = excluded.events, updated_at = clock_timestamp()",
            &[&it.name, &it.checkpoint, &it.events],
        )
        .await?;
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
}

/// The source that the checkpoints were taken from, where there is one yet.
///
/// # Errors
/// Those of the connection.
pub async fn source(client: &Client, slot: &str) -> Result<Option<Source>, PgError> {
    let row = client
        .query_opt(
            "select system_identifier, timeline from projector.sources where slot = $1",
            &[&slot],
        )
        .await?;
    row.map(|row| Ok(Source { system_identifier: row.try_get(0)?, timeline: row.try_get(1)? }))
        .transpose()
}

/// Remembers whose log the checkpoints speak of.
///
/// # Errors
/// Those of the connection.
pub async fn remember_source(client: &Client, slot: &str, it: &Source) -> Result<(), PgError> {
    client
        .execute(
            "insert into projector.sources (slot, system_identifier, timeline) values ($1, $2, $3)
             on conflict (slot) do update set
               system_identifier = excluded.system_identifier, timeline = excluded.timeline",
            &[&slot, &it.system_identifier, &it.timeline],
        )
        .await?;
    Ok(())
}
