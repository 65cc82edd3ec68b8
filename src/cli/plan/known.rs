//! What the database has of each projection.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Error as PgError};

use crate::apply::generation::CONTROL_SCHEMA;

/// A projection as the database knows it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) hash: String,
    /// The definition that made its rows; `None` when an older version of projector made them.
    pub(super) text: Option<String>,
    pub(super) lane: String,
    /// 0 when it has never had rows.
    pub(super) generation: i32,
    pub(super) state: String,
    /// Name and declaration of each column of its rows, by name.
    pub(super) columns: Vec<(String, String)>,
    /// What its rows take on the disk, indexes included.
    pub(super) bytes: u64,
}

pub(super) async fn read(client: &Client) -> Result<BTreeMap<String, Known>, PgError> {
    let sql = "select name, definition_hash, definition_text, lane, generation, state,
               coalesce(pg_total_relation_size(
                 to_regclass(format('%I.%I', $1::text, table_name || '_' || generation))), 0),
               array(select key from jsonb_each_text(columns) order by key),
               array(select value from jsonb_each_text(columns) order by key)
         from projector.projections";
    let rows = client.query(sql, &[&CONTROL_SCHEMA]).await?;
    let known = |row: &tokio_postgres::Row| {
        let names: Vec<String> = row.try_get(7)?;
        let declared: Vec<String> = row.try_get(8)?;
        let known = Known {
            hash: row.try_get(1)?,
            text: row.try_get(2)?,
            lane: row.try_get(3)?,
            generation: row.try_get(4)?,
            state: row.try_get(5)?,
            columns: names.into_iter().zip(declared).collect(),
            bytes: u64::try_from(row.try_get::<_, i64>(6)?).unwrap_or(0),
        };
        Ok((row.try_get(0)?, known))
    };
    rows.iter().map(known).collect()
}
