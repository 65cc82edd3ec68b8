//! Whether Supabase's `realtime.messages` asks projector who may receive and send.

use tokio_postgres::Client;

use super::MigrateError;

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Realtime {
    /// The database has no `realtime.messages`, or no schema `projector`: nothing to bind.
    None,
    /// All policies and grants are there.
    Bound,
    /// These statements are missing.
    Unbound(Vec<String>),
}

/// Looks whether `projector.bind_realtime()` has something left to do. Changes nothing.
///
/// # Errors
/// When the catalogue cannot be asked.
pub async fn realtime(client: &Client) -> Result<Realtime, MigrateError> {
    let there = client
        .query_one("select to_regprocedure('projector.realtime_bindings()') is not null", &[])
        .await
        .map_err(MigrateError::Database)?;
    if !there.get::<_, bool>(0) {
        return Ok(Realtime::None);
    }
    let bindings = client
        .query("select statement, present from projector.realtime_bindings()", &[])
        .await
        .map_err(MigrateError::Database)?;
    let missing = |row: &&tokio_postgres::Row| !row.get::<_, bool>(1);
    let missing: Vec<String> = bindings.iter().filter(missing).map(|row| row.get(0)).collect();
    Ok(match (bindings.is_empty(), missing.is_empty()) {
        (true, _) => Realtime::None,
        (false, true) => Realtime::Bound,
        (false, false) => Realtime::Unbound(missing),
    })
}
