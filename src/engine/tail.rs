//! The end of the log, flushed: nobody is sent what is not.

use tokio_postgres::{Client, Error as PgError};

/// Before version 17 the message by which `projector.wait_for` asks us for an answer is not flushed
/// by itself, and in a quiet database nobody else does it for a quarter of a minute. A commit does;
/// it must have written something, and need not wait for standbys.
pub(super) async fn flush_tail(client: &Client) -> Result<(), PgError> {
    let sql = "select set_config('synchronous_commit', 'local', true),
               pg_logical_emit_message(true, 'projector', 'flush')
         where current_setting('server_version_num')::int < 170000
           and pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()";
    client.execute(sql, &[]).await?;
    Ok(())
}
