//! A batch of events, given to the statement of a definition.
//!
//! The statement names its table without a schema. Where the table serves, that is the read model in
//! its schema, which the search path leads to; while a generation is being made, a temporary view of
//! this connection stands for it.

use postgres_types::{ToSql, Type};
use tokio_postgres::{Client, Error as PgError, GenericClient, Statement};

use crate::definition::Definition;
use crate::event::Batch;
use crate::ident::QualifiedName;

/// The types of the arrays that stand for `batch`.
pub const TYPES: [Type; 9] = [
    Type::INT8_ARRAY,
    Type::UUID_ARRAY,
    Type::UUID_ARRAY,
    Type::INT4_ARRAY,
    Type::UUID_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
];

/// Lets the definition's table be found by its bare name, whichever generation `table` is.
///
/// # Errors
/// Those of the connection.
pub async fn name_table(
    client: &Client,
    definition: &Definition,
    table: &QualifiedName,
) -> Result<(), PgError> {
    let parent = "select quote_ident(n.nspname) from pg_inherits i
         join pg_class c on c.oid = i.inhparent join pg_namespace n on n.oid = c.relnamespace
         where i.inhrelid = to_regclass($1)";
    let name = &definition.table;
    let sql = match client.query_opt(parent, &[&table.to_string()]).await? {
        Some(row) => {
            let schema: String = row.try_get(0)?;
            format!("drop view if exists pg_temp.{name}; set search_path = {schema}, public")
        }
        None => format!("create or replace temporary view {name} as select * from {table}"),
    };
    client.batch_execute(&sql).await
}

/// Executes a statement with these events as its `batch`.
///
/// # Errors
/// What the database says.
pub async fn execute<C: GenericClient>(
    client: &C,
    statement: &Statement,
    events: &Batch,
) -> Result<u64, PgError> {
    let positions: Vec<_> = events.events().map(|it| it.position).collect();
    let projects: Vec<_> = events.events().map(|it| it.project_id).collect();
    let runs: Vec<_> = events.events().map(|it| it.run_id).collect();
    let versions: Vec<_> = events.events().map(|it| it.version).collect();
    let ids: Vec<_> = events.events().map(|it| it.event_id).collect();
    let kinds: Vec<_> = events.events().map(|it| it.kind).collect();
    let payloads: Vec<_> = events.events().map(|it| it.payload).collect();
    let metadata: Vec<_> = events.events().map(|it| it.metadata).collect();
    let times: Vec<_> = events.events().map(|it| it.recorded_at).collect();
    let parameters: [&(dyn ToSql + Sync); 9] =
        [&positions, &projects, &runs, &versions, &ids, &kinds, &payloads, &metadata, &times];
    client.execute(statement, &parameters).await
}
