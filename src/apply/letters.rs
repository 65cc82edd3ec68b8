//! `projector.dead_letters`: events that were set aside, with the rows they were for.
//!
//! Letters are written in the transaction that would have written the rows, so that an event is
//! either in its row or here, however a process ends.
//!
//! The letters of a generation that is being built stand under the name of its table, until it
//! serves.

use postgres_types::{ToSql, Type};
use tokio_postgres::{Client, Error as PgError, GenericClient, Statement};
use uuid::Uuid;

use crate::config::Columns;
use crate::definition::{Definition, Value, time_text};
use crate::fold::letters::{BadKey, Letter, parse_key};
use crate::ident::{QualifiedName, literal};
use crate::redact::Redactor;

/// A JSON text that Postgres may refuse as `jsonb` (the escape of U+0000) is kept as a string.
const INSERT: &str = "insert into projector.dead_letters
     (projection, row_key, lsn, position, run_id, version, type, rule, error, payload, attempts)
   select $1, it.row_key::jsonb, it.lsn, it.position, it.run_id, it.version, it.type, it.rule, it.error,
     case when it.payload like '%\\\\u0000%' then to_jsonb(it.payload) else it.payload::jsonb end,
     case when it.rule is null then 0 else 1 end
   from unnest($2::text[], $3::pg_lsn[], $4::int8[], $5::uuid[], $6::int4[], $7::text[], $8::text[],
     $9::text[], $10::text[])
     as it (row_key, lsn, position, run_id, version, type, rule, error, payload)";

/// How many payloads are read before they are written: one may have a mebibyte.
const COMPLETED_AT_ONCE: usize = 100;

/// Prepares the statement of [`insert`].
///
/// # Errors
/// Those of the connection.
pub async fn prepare(client: &Client) -> Result<Statement, PgError> {
    let types = [
        Type::TEXT,
        Type::TEXT_ARRAY,
        Type::PG_LSN_ARRAY,
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
    ];
    client.prepare_typed(INSERT, &types).await
}

/// Writes letters of a projection.
///
/// # Errors
/// Those of the connection.
pub async fn insert<C: GenericClient>(
    client: &C,
    statement: &Statement,
    projection: &str,
    letters: &[Letter],
) -> Result<u64, PgError> {
    if letters.is_empty() {
        return Ok(0);
    }
    let keys: Vec<_> = letters.iter().map(|it| it.key.as_deref()).collect();
    let lsns: Vec<_> = letters.iter().map(|it| it.lsn).collect();
    let positions: Vec<_> = letters.iter().map(|it| it.position).collect();
    let runs: Vec<_> = letters.iter().map(|it| it.run_id).collect();
    let versions: Vec<_> = letters.iter().map(|it| it.version).collect();
    let kinds: Vec<_> = letters.iter().map(|it| it.kind.as_str()).collect();
    let rules: Vec<_> = letters.iter().map(|it| it.is_tried.then_some(it.rule.as_str())).collect();
    let errors: Vec<_> = letters.iter().map(|it| it.error.as_str()).collect();
    let payloads: Vec<_> = letters.iter().map(|it| it.payload.as_str()).collect();
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &projection,
        &keys,
        &lsns,
        &positions,
        &runs,
        &versions,
        &kinds,
        &rules,
        &errors,
        &payloads,
    ];
    client.execute(statement, &parameters).await
}

/// The letters of a generation become those of its projection, whose rows were made anew.
///
/// # Errors
/// Those of the connection.
pub async fn adopt(
    client: &Client,
    projection: &str,
    table: &QualifiedName,
) -> Result<(), PgError> {
    forget(client, projection).await?;
    let sql = "update projector.dead_letters set projection = $1 where projection = $2";
    client.execute(sql, &[&projection, &table.to_string()]).await.map(drop)
}

/// Puts the payloads of a generation's letters in, redacted, which whoever folded history may not
/// have read.
///
/// # Errors
/// Those of the connection.
pub async fn complete(
    client: &Client,
    table: &QualifiedName,
    (events, names): (&QualifiedName, &Columns),
    redactor: &Redactor,
) -> Result<(), PgError> {
    let Columns { run_id, version, payload, .. } = names;
    let sql = format!(
        "select d.id, e.{payload}::text
         from projector.dead_letters d
         join {events} e on e.{run_id} = d.run_id and e.{version} = d.version
         where d.projection = $1 and d.payload is not distinct from '{{}}' and d.id > $2
         order by d.id limit {COMPLETED_AT_ONCE}"
    );
    let update = "update projector.dead_letters d
         set payload = case when it.payload like '%\\u0000%' then to_jsonb(it.payload)
           else it.payload::jsonb end
         from unnest($1::int8[], $2::text[]) as it (id, payload)
         where d.id = it.id";
    let table = table.to_string();
    let mut last = i64::MIN;
    loop {
        let rows = client.query(&sql, &[&table, &last]).await?;
        let mut ids = Vec::with_capacity(rows.len());
        let mut payloads = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(row.try_get::<_, i64>(0)?);
            payloads.push(redactor.apply(row.try_get(1)?).into_owned());
        }
        let Some(id) = ids.last() else { return Ok(()) };
        last = *id;
        client.execute(update, &[&ids, &payloads]).await?;
    }
}

/// Drops all letters of a projection, or of a generation by its table's name.
///
/// # Errors
/// Those of the connection.
pub async fn forget(client: &Client, owner: &str) -> Result<(), PgError> {
    let sql = "delete from projector.dead_letters where projection = $1";
    client.execute(sql, &[&owner]).await.map(drop)
}

/// Drops the letters of generations that are gone.
///
/// # Errors
/// Those of the connection.
pub async fn sweep(client: &Client) -> Result<(), PgError> {
    let sql = "delete from projector.dead_letters
         where projection like '%.%' and to_regclass(projection) is null
           and not exists (select from projector.projections p where p.name = projection)";
    client.execute(sql, &[]).await.map(drop)
}

/// The keys of the parked rows of a projection, or of a generation by its table's name.
///
/// Each event without a row is a `None` among them: what [`Fold::park`](crate::fold::Fold::park)
/// takes. There are no more of either than `limit` and one.
///
/// # Errors
/// Those of the connection.
pub async fn parked(
    client: &Client,
    owner: &str,
    limit: usize,
) -> Result<Vec<Option<String>>, PgError> {
    let sql = "(select distinct row_key::text from projector.dead_letters
          where projection = $1 and row_key is not null limit $2)
         union all
         (select null from projector.dead_letters
          where projection = $1 and row_key is null limit $2)";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let rows = client.query(sql, &[&owner, &limit]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// The keys of the parked rows among those of some runs.
///
/// # Errors
/// Those of the connection.
pub async fn parked_of(
    client: &Client,
    owner: &str,
    runs: &[Uuid],
) -> Result<Vec<String>, PgError> {
    let sql = "select distinct row_key::text from projector.dead_letters
         where projection = $1 and run_id = any ($2) and row_key is not null";
    let rows = client.query(sql, &[&owner, &runs]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// The condition that finds a row by its key as a letter has it.
///
/// # Errors
/// When the key is not one of this definition.
pub fn condition(definition: &Definition, key: &str) -> Result<String, BadKey> {
    let values = parse_key(definition, key)?;
    let columns = definition.key_columns().filter_map(|it| definition.columns.get(it));
    let parts: Vec<_> = columns
        .zip(&values)
        .map(|(column, value)| {
            let text = match value {
                Value::Null => String::new(),
                Value::Bool(it) => it.to_string(),
                Value::Int(it) => it.to_string(),
                Value::Float(it) => it.to_string(),
                Value::Text(it) => it.as_ref().to_owned(),
                Value::Uuid(it) => it.to_string(),
                Value::Time(it) => time_text(*it),
            };
            format!("{} = {}", column.name, literal(&text))
        })
        .collect();
    Ok(format!("({})", parts.join(" and ")))
}

/// Nothing is requested any more of a projection's letters.
///
/// # Errors
/// Those of the connection.
pub async fn withdraw(client: &Client, projection: &str) -> Result<(), PgError> {
    let sql = "update projector.dead_letters set request = null
         where projection = $1 and request is not null";
    client.execute(sql, &[&projection]).await.map(drop)
}

/// What is set aside of a projection, in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aside {
    /// The projection.
    pub projection: String,
    /// Events.
    pub letters: u64,
    /// Rows.
    pub keys: u64,
    /// Age of the oldest, in seconds.
    pub oldest_seconds: f64,
    /// Whether somebody wants something done about some of them.
    pub is_requested: bool,
}

/// What is set aside of all projections that have something.
///
/// # Errors
/// Those of the connection.
pub async fn aside(client: &Client) -> Result<Vec<Aside>, PgError> {
    let sql = "select projection, count(*), count(distinct row_key),
           extract(epoch from clock_timestamp() - min(created_at))::float8, count(request)
         from projector.dead_letters group by projection";
    let rows = client.query(sql, &[]).await?;
    let row = |row: &tokio_postgres::Row| {
        let number = |at: usize| row.try_get::<_, i64>(at).map(|it| u64::try_from(it).unwrap_or(0));
        Ok(Aside {
            projection: row.try_get(0)?,
            letters: number(1)?,
            keys: number(2)?,
            oldest_seconds: row.try_get(3)?,
            is_requested: 0 < number(4)?,
        })
    };
    rows.iter().map(row).collect()
}
