//! Whether the server has room for a second generation.
//!
//! * On its disk, where that can be told: the server says where its data are, and only on its own
//!   machine is there such a place.
//! * In its log: rows are written no faster than slots let go of log (`log`), but an index is made by
//!   one statement. Where a slot may keep less than that writes, it can be lost to it. That is a reason
//!   to refuse what somebody asks for; what is needed is tried all the same.

use std::path::Path;

use tokio_postgres::Client;

use crate::engine::error::EngineError;
use crate::engine::rebuild::attempt::Group;
use crate::engine::rebuild::log;

/// Refuses a build whose tables would fill the disk, and one that is not needed when its log would cost
/// the slots. The new generations are taken to be as large as those that serve; of a new projection
/// nothing is known.
pub(super) async fn ask(
    client: &Client,
    group: &Group,
    is_request: bool,
) -> Result<(), EngineError> {
    let names: Vec<_> = group.parents.iter().map(ToString::to_string).collect();
    // who may not read that setting sees no row of it
    let sql = "select (select coalesce(sum(pg_total_relation_size(i.inhrelid)), 0)::bigint
             from unnest($1::text[]) it join pg_inherits i on i.inhparent = to_regclass(it)),
           (select setting from pg_settings where name = 'data_directory'),
           coalesce(inet_server_addr() = inet_client_addr(), true),
           (select coalesce(max(pg_relation_size(x.indexrelid)), 0)::bigint
            from unnest($1::text[]) it join pg_inherits i on i.inhparent = to_regclass(it)
            join pg_index x on x.indrelid = i.inhrelid)";
    let row = client.query_one(sql, &[&names]).await?;
    let needed = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
    let index = u64::try_from(row.try_get::<_, i64>(3)?).unwrap_or(0);
    let limit = log::limit(client).await?;
    if let Some(limit) = limit.filter(|it| is_request && *it < index) {
        return Err(EngineError::Log { needed: index, limit });
    }
    let (directory, is_here): (Option<String>, bool) = (row.try_get(1)?, row.try_get(2)?);
    let Some(directory) = directory.filter(|_| is_here) else { return Ok(()) };
    match free(Path::new(&directory)) {
        Some(free) if free < needed => Err(EngineError::Disk { needed, free, directory }),
        _ => Ok(()),
    }
}

/// Bytes that are free where `directory` is; nothing, where it is not.
fn free(directory: &Path) -> Option<u64> {
    let it = rustix::fs::statvfs(directory).ok()?;
    Some(it.f_bavail.saturating_mul(it.f_frsize))
}
