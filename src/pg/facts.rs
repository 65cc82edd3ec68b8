//! What a server is able to do, as far as following its log is concerned: asked once at start-up and
//! by `doctor`. [`gather`] asks; [`crate::pg::findings`] judges.
//!
//! The system identifier and the timeline are not here: `IDENTIFY_SYSTEM` gives them on the replication
//! connection without any privilege more.

use tokio_postgres::Client;

use crate::ident::{Ident, QualifiedName};
use crate::lsn::Lsn;

/// What the caller is going to use.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The slot it reads.
    pub slot: &'a Ident,
    /// The publication it reads by.
    pub publication: &'a Ident,
    /// The events table.
    pub table: &'a QualifiedName,
    /// The columns it needs, with their types as `format_type` prints them (`timestamp with time
    /// zone`).
    pub columns: &'a [(&'a str, &'a str)],
}

/// What the server says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `server_version_num`: 150018 is 15.18.
    pub version: i32,
    /// `replica`, `logical` …
    pub wal_level: String,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// `max_replication_slots`, and how many exist.
    pub slots: Usage,
    /// `max_wal_senders`, and how many run.
    pub senders: Usage,
    /// The role we are, and whether it may replicate.
    pub role: String,
    /// Superuser, REPLICATION, or a member of `rds_replication`.
    pub may_replicate: bool,
    /// The columns of the events table with their types; `None` when there is no such table.
    pub columns: Option<Vec<(String, String)>>,
    /// `None` when there is none of that name.
    pub publication: Option<PublicationFacts>,
    /// `None` when there is none of that name.
    pub slot: Option<SlotFacts>,
}

/// A limit, and how much of it is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many there may be.
    pub limit: i64,
    /// How many there are.
    pub used: i64,
}

/// A publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicationFacts {
    /// Whether it publishes inserts.
    pub insert: bool,
    /// `publish_via_partition_root`.
    pub via_root: bool,
    /// What it publishes, as `schema.table`.
    pub tables: Vec<String>,
    /// The columns of the events table that it publishes; `None` when it does not publish that.
    pub columns: Option<Vec<String>>,
    /// The filter on the events table's rows.
    pub row_filter: Option<String>,
}

/// A replication slot: a row of `pg_replication_slots`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotFacts {
    /// `None` for a physical slot.
    pub plugin: Option<String>,
    /// `None` for a physical slot.
    pub database: Option<String>,
    /// Whether that is the database we are connected to.
    pub in_this_database: bool,
    /// The server's process that reads it now.
    pub active_pid: Option<i32>,
    /// What its reader has confirmed.
    pub confirmed_flush: Option<Lsn>,
    /// From where on the log is kept.
    pub restart_lsn: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes that may still be written before the slot is lost; `None`: no limit.
    pub safe_wal_bytes: Option<i64>,
    /// Bytes of log kept for it.
    pub retained_bytes: Option<i64>,
}

/// Asks the server. Needs no privilege beyond connecting.
///
/// # Errors
/// The server's, or a broken connection.
pub async fn gather(client: &Client, wanted: &Wanted<'_>) -> Result<Facts, tokio_postgres::Error> {
    let row = client.query_one(SERVER, &[]).await?;
    let mut facts = Facts {
        version: row.get(0),
        wal_level: row.get(1),
        in_recovery: row.get(2),
        slots: Usage { limit: row.get(3), used: row.get(4) },
        senders: Usage { limit: row.get(5), used: row.get(6) },
        role: row.get(7),
        may_replicate: row.get(8),
        ..Facts::default()
    };
    let table = (wanted.table.schema.as_str(), wanted.table.name.as_str());

    let columns = client.query(COLUMNS, &[&table.0, &table.1]).await?;
    if !columns.is_empty() {
        facts.columns = Some(columns.iter().map(|row| (row.get(0), row.get(1))).collect());
    }
    let publication = wanted.publication.as_str();
    if let Some(row) = client.query_opt(PUBLICATION, &[&publication]).await? {
        let mut found = PublicationFacts {
            insert: row.get(0),
            via_root: row.get(1),
            ..PublicationFacts::default()
        };
        for row in client.query(PUBLISHED, &[&publication, &table.0, &table.1]).await? {
            found.tables.push(row.get(0));
            if row.get(1) {
                found.columns = row.get(2);
                found.row_filter = row.get(3);
            }
        }
        facts.publication = Some(found);
    }
    let slot = client.query_opt(SLOT, &[&wanted.slot.as_str()]).await?;
    facts.slot = slot.map(|row| SlotFacts {
        plugin: row.get(0),
        database: row.get(1),
        in_this_database: row.get(2),
        active_pid: row.get(3),
        confirmed_flush: row.get(4),
        restart_lsn: row.get(5),
        wal_status: row.get(6),
        safe_wal_bytes: row.get(7),
        retained_bytes: row.get(8),
    });
    Ok(facts)
}

const SERVER: &str = "
    select current_setting('server_version_num')::int,
           current_setting('wal_level'),
           pg_is_in_recovery(),
           current_setting('max_replication_slots')::bigint,
           (select count(*) from pg_replication_slots),
           current_setting('max_wal_senders')::bigint,
           (select count(*) from pg_stat_replication),
           current_user::text,
           exists (select from pg_roles as me where me.rolname = current_user and (me.rolsuper or me.rolreplication))
               or exists (select from pg_roles as rds
                          where rds.rolname = 'rds_replication' and pg_has_role(current_user, rds.oid, 'member'))";

const COLUMNS: &str = "
    select a.attname::text, format_type(a.atttypid, null)
    from pg_attribute as a
    join pg_class as c on c.oid = a.attrelid
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
    order by a.attnum";

const PUBLICATION: &str = "
    select pubinsert, pubviaroot from pg_publication where pubname = $1";

const PUBLISHED: &str = "
    select schemaname || '.' || tablename, schemaname = $2 and tablename = $3, attnames::text[], rowfilter
    from pg_publication_tables
    where pubname = $1
    order by 1";

const SLOT: &str = "
    select plugin::text, database::text, coalesce(database = current_database(), false), active_pid,
           confirmed_flush_lsn, restart_lsn, wal_status, safe_wal_size,
           pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end,
                           restart_lsn)::bigint
    from pg_replication_slots
    where slot_name = $1";
