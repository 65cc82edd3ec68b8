//! What can be said where nobody follows the log.
//!
//! The rows are as of their checkpoint, and history under a new snapshot is later than that. If the
//! slot holds no event that was committed in between, the two are the same moment nevertheless.

use tokio_postgres::{Client, Error as PgError};

use crate::ident::Ident;
use crate::lsn::Lsn;

/// How many of the slot's messages are looked at. A slot that has more to send is not quiet.
const MESSAGES: i32 = 10_000;

/// Whether a sidecar works for the slot.
pub(super) async fn is_followed(client: &Client, slot: &Ident) -> Result<bool, PgError> {
    let sql = "select exists (
           select from pg_locks
           where locktype = 'advisory' and granted
             and database = (select oid from pg_database where datname = current_database())
             and classid::bigint = (hashtext('projector')::bigint & 4294967295)
             and objid::bigint = (hashtext($1)::bigint & 4294967295)
             and objsubid = 2)";
    client.query_one(sql, &[&slot.as_str()]).await?.try_get(0)
}

/// Whether the slot has nothing to send that was committed after `checkpoint`.
pub(super) async fn is_quiet(
    client: &Client,
    slot: &Ident,
    publication: &Ident,
    checkpoint: Lsn,
) -> Result<bool, PgError> {
    // a Begin is `B` and where its commit record starts
    let sql = "select count(*) < $3 and coalesce(bool_and(
             get_byte(data, 0) <> ascii('B')
             or ('x' || encode(substr(data, 2, 8), 'hex'))::bit(64)::bigint < $4), true)
         from pg_logical_slot_peek_binary_changes($1::text::name, null, $3,
           'proto_version', '1', 'publication_names', $2)";
    let names = publication.to_string();
    let there = "select exists (select from pg_replication_slots
         where slot_name = $1 and not active and coalesce(wal_status, '') <> 'lost')";
    if !client.query_one(there, &[&slot.as_str()]).await?.try_get::<_, bool>(0)? {
        return Ok(false);
    }
    let limit = i64::try_from(checkpoint.0).unwrap_or(i64::MAX);
    let row = client.query_one(sql, &[&slot.as_str(), &names, &MESSAGES, &limit]).await?;
    row.try_get(0)
}
