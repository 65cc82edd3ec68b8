//! A finished generation begins to serve.
//!
//! Everything happens in one transaction, which [`lock`] opens and [`install`] commits: the old
//! generation leaves its parent and is dropped, the new one takes its place, and the checkpoint says
//! what it holds. The parent is never replaced, so that its grants, policies, comments, views and
//! memberships of publications stay.
//!
//! A reader holds the parent for as long as its transaction lasts. Whoever waits behind it for an
//! exclusive lock makes all later readers wait too, so that the wait is short and is tried again.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error as PgError};

use crate::apply::control;
use crate::apply::generation::Tables;
use crate::apply::letters;
use crate::definition::{self, Definition};
use crate::history::error::BuildError;
use crate::ident::{Ident, QualifiedName};
use crate::lsn::Lsn;

/// A generation to put in place.
#[derive(Clone, Copy, Debug)]
pub struct Install<'a> {
    /// Whose it is.
    pub definition: &'a Definition,
    /// Its number.
    pub generation: i32,
    /// Its table.
    pub table: &'a QualifiedName,
    /// Up to where its rows are complete.
    pub checkpoint: Lsn,
    /// How many events they were made of.
    pub events: u64,
    /// The projection's checkpoint as it is now; `None` where there is none.
    pub expected: Option<Lsn>,
}

/// Opens a transaction that has `parents` for itself alone.
///
/// Those that are not there yet are left out: [`install`] makes them. When readers do not let go
/// within `patience`, nothing is open and the answer is false.
///
/// # Errors
/// Those of the connection.
pub async fn lock(
    client: &Client,
    parents: &[QualifiedName],
    patience: Duration,
) -> Result<bool, BuildError> {
    let patience = patience.as_millis().clamp(1, 2_147_483_647);
    let begin = format!(
        "begin; set local lock_timeout = {patience}; set local synchronous_commit = on; \
         set local statement_timeout = 0"
    );
    client.batch_execute(&begin).await?;
    match lock_each(client, parents).await {
        Ok(()) => Ok(true),
        Err(error) => {
            client.batch_execute("rollback").await?;
            if [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED]
                .iter()
                .any(|it| error.code() == Some(it))
            {
                return Ok(false);
            }
            Err(error.into())
        }
    }
}

async fn lock_each(client: &Client, parents: &[QualifiedName]) -> Result<(), PgError> {
    // always in the same order, so that two that swap do not wait for each other
    let mut names: Vec<_> = parents.iter().map(ToString::to_string).collect();
    names.sort();
    for name in names {
        let there = "select to_regclass($1) is not null";
        if client.query_one(there, &[&name]).await?.try_get(0)? {
            client.batch_execute(&format!("lock table {name} in access exclusive mode")).await?;
        }
    }
    Ok(())
}

/// Puts generations in place, in the transaction that [`lock`] has opened, and commits.
///
/// # Errors
/// See [`BuildError`]; the transaction is rolled back and nothing has changed, unless the connection
/// broke, which leaves open whether the commit came through.
pub async fn install(
    client: &Client,
    schema: &Ident,
    list: &[Install<'_>],
) -> Result<(), BuildError> {
    let installed = install_each(client, schema, list).await;
    let end = if installed.is_ok() { "commit" } else { "rollback" };
    let ended = client.batch_execute(end).await;
    installed?;
    Ok(ended?)
}

async fn install_each(
    client: &Client,
    schema: &Ident,
    list: &[Install<'_>],
) -> Result<(), BuildError> {
    // the parents are locked; what may still be in the way is a vacuum, which gives way after a second
    client.batch_execute("set local lock_timeout = '5s'").await?;
    for it in list {
        let explain = |source: PgError| match source.code() {
            // nobody's fault: it is tried again
            Some(&SqlState::LOCK_NOT_AVAILABLE) => BuildError::Read(source),
            _ => BuildError::Tables { projection: it.definition.name.clone(), source },
        };
        swap(client, schema, it).await.map_err(explain)?;
        record(client, schema, it).await?;
        letters::adopt(client, &it.definition.name, it.table).await?;
    }
    Ok(())
}

async fn swap(client: &Client, schema: &Ident, it: &Install<'_>) -> Result<(), PgError> {
    let tables = Tables::new(it.definition, schema);
    let parent = tables.parent();
    let there = "select to_regclass($1) is not null";
    let is_there = client.query_one(there, &[&parent.to_string()]).await?.try_get(0)?;
    client.batch_execute(&tables.create_parent()).await?;
    if let Some(current) = current_generation(client, parent).await? {
        client.batch_execute(&tables.detach(&current)).await?;
    }
    if is_there {
        client.batch_execute(&tables.drop_indexes(it.table)).await?;
        alter(client, &tables, it.definition).await?;
    } else {
        client.batch_execute(&tables.protect_parent()).await?;
    }
    client.batch_execute(&tables.create_indexes(it.table)).await?;
    client.batch_execute(&tables.attach(it.table)).await
}

/// Brings the columns of a parent up to its definition. The policy goes only where it must: when it
/// speaks of a column that goes, or when the tenant is another column than before.
async fn alter(
    client: &Client,
    tables: &Tables<'_>,
    definition: &Definition,
) -> Result<(), PgError> {
    let Some(before) = declared_before(client, &definition.name).await? else { return Ok(()) };
    let has = column_names(client, tables.parent()).await?;
    let leaving = tables.leaving_columns(&has, &before.columns);
    let tenant = definition.tenant.and_then(|it| definition.columns.get(it));
    let tenant_changes =
        before.tenant.is_some_and(|it| it.as_deref() != tenant.map(|it| it.name.as_str()));
    let in_the_way = "select exists (
           select from pg_policy p
           join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
           join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
           where p.polname = 'projector_readers' and p.polrelid = $1::text::regclass
             and d.refobjid = p.polrelid and a.attname = any ($2))";
    let parent = tables.parent().to_string();
    let in_the_way = client.query_one(in_the_way, &[&parent, &leaving]).await?.try_get(0)?;
    let policy_goes = tenant_changes || in_the_way;
    if policy_goes {
        client.batch_execute(&tables.drop_policy()).await?;
    }
    client.batch_execute(&tables.alter_parent(&has, &before.columns)).await?;
    if policy_goes {
        client.batch_execute(&tables.create_policy()).await?;
    }
    Ok(())
}

/// Records the generation and its checkpoint.
async fn record(client: &Client, schema: &Ident, it: &Install<'_>) -> Result<(), BuildError> {
    let definition = it.definition;
    let columns: serde_json::Map<_, _> = Tables::new(definition, schema)
        .columns()
        .into_iter()
        .map(|(name, declared)| (name.as_str().to_owned(), declared.into()))
        .collect();
    let installed = control::Installed {
        name: &definition.name,
        table: definition.table.as_str(),
        lane: &definition.lane,
        definition_hash: &definition.hash,
        definition_text: &definition.text,
        columns: &serde_json::Value::Object(columns).to_string(),
        generation: it.generation,
        checkpoint: it.checkpoint,
        expected: it.expected,
        events: i64::try_from(it.events).unwrap_or(i64::MAX),
    };
    if control::install(client, &installed).await? {
        return Ok(());
    }
    let found = "select lsn from projector.checkpoints where projection = $1";
    let found = client.query_opt(found, &[&definition.name]).await?;
    let found = found.map(|row| row.try_get(0)).transpose()?;
    let projection = definition.name.clone();
    Err(BuildError::Overtaken { projection, expected: it.expected, found })
}

/// The partition that serves, as SQL names it.
async fn current_generation(
    client: &Client,
    parent: &QualifiedName,
) -> Result<Option<QualifiedName>, PgError> {
    let sql = "select n.nspname::text, c.relname::text from pg_inherits i
         join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
         where i.inhparent = $1::text::regclass";
    let Some(row) = client.query_opt(sql, &[&parent.to_string()]).await? else { return Ok(None) };
    let name = |at| Ok::<_, PgError>(Ident::new(row.try_get::<_, String>(at)?).ok());
    Ok(name(0)?.zip(name(1)?).map(|(schema, name)| QualifiedName { schema, name }))
}

/// What the serving generation was made by.
struct Before {
    /// Its columns and how they were declared.
    columns: Vec<(String, String)>,
    /// Its tenant's column, if it had one; `None` where that is not known.
    tenant: Option<Option<String>>,
}

/// Nothing, where no generation has ever served.
async fn declared_before(client: &Client, name: &str) -> Result<Option<Before>, PgError> {
    let sql = "select c.key, c.value, p.definition_text
         from projector.projections p, jsonb_each_text(p.columns) c where p.name = $1";
    let rows = client.query(sql, &[&name]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let text: Option<String> = first.try_get(2)?;
    let definition = text.and_then(|it| definition::parse(Path::new(name), &it).ok());
    let tenant = definition.map(|it| {
        it.tenant.and_then(|at| it.columns.get(at)).map(|column| column.name.as_str().to_owned())
    });
    let columns = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    Ok(Some(Before { columns: columns.collect::<Result<_, PgError>>()?, tenant }))
}

async fn column_names(client: &Client, table: &QualifiedName) -> Result<Vec<String>, PgError> {
    let sql = "select attname::text from pg_attribute
         where attrelid = $1::text::regclass and 0 < attnum and not attisdropped";
    let rows = client.query(sql, &[&table.to_string()]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
