//! The key of a read model whose definition has changed.
//!
//! A read model is partitioned by the first column of its key, which Postgres does not let go as long
//! as the table is there; the rest of the key may change with a generation.

use tokio_postgres::Client;

use crate::apply::generation::Tables;
use crate::definition::Definition;
use crate::history::error::BuildError;
use crate::ident::Ident;

/// Refuses a definition whose key the table of today cannot take on.
///
/// # Errors
/// [`BuildError::Key`], or that of the connection.
pub async fn check_key(
    client: &Client,
    schema: &Ident,
    definition: &Definition,
) -> Result<(), BuildError> {
    let tables = Tables::new(definition, schema);
    let parent = tables.parent().to_string();
    let sql = "select a.attname::text,
           (select p.columns ->> a.attname::text from projector.projections p where p.name = $2)
         from pg_partitioned_table t
         join pg_attribute a on a.attrelid = t.partrelid and a.attnum = t.partattrs[0]
         where t.partrelid = to_regclass($1)";
    let Some(row) = client.query_opt(sql, &[&parent, &definition.name]).await? else {
        return Ok(());
    };
    let (column, before): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let mut key = definition.key_columns().filter_map(|it| definition.columns.get(it));
    let stays = |declared: &str| before.as_ref().is_none_or(|before| before == declared);
    if key.any(|it| it.name.as_str() == column && stays(&it.declared)) {
        return Ok(());
    }
    Err(BuildError::Key { projection: definition.name.clone(), column, table: parent })
}
