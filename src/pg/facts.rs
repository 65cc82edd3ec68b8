//! What a server is able to do, as far as following its log is concerned: asked once at start-up and
//! by `doctor`. [`gather`] asks, [`findings`] judges; the second is pure.
//!
//! The system identifier and the timeline are not here: `IDENTIFY_SYSTEM` gives them on the replication
//! connection without any privilege more.

use std::fmt;

use tokio_postgres::Client;

use crate::ident::{Ident, QualifiedName};
use crate::lsn::Lsn;
use crate::pg::error::POOLER_HINT;
use crate::pg::settings::{Address, Settings};

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

/// Something that keeps us from following the log. Prints as the message and what was found; the hint
/// is for the line after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which condition it is.
    pub kind: FindingKind,
    /// What is not as it must be.
    pub what: String,
    /// How it is.
    pub found: Option<String>,
    /// What to do.
    pub hint: String,
}

/// The conditions that [`findings`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// Older than version 15.
    Version,
    /// `wal_level` is not `logical`.
    WalLevel,
    /// The role may not replicate.
    Privilege,
    /// No slot is free for ours.
    SlotsFull,
    /// No walsender is free for ours.
    SendersFull,
    /// There is no events table, or a column of it is missing or has another type.
    Table,
    /// There is no publication, or it does not publish what we need.
    Publication,
    /// Our slot's name belongs to something else, or its log is gone.
    Slot,
    /// A connection pooler is in the way.
    Pooler,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.found {
            Some(found) => write!(f, "\n  found: {found}"),
            None => Ok(()),
        }
    }
}

const OLDEST_VERSION: i32 = 150_000;

/// Judges: everything that must change before the log can be followed, the most basic first.
pub fn findings(facts: &Facts, wanted: &Wanted<'_>) -> Vec<Finding> {
    let mut list = server_findings(facts);
    list.extend(table_findings(facts, wanted));
    list.extend(publication_findings(facts, wanted));
    list.extend(slot_finding(facts, wanted));
    list
}

/// Whether the connection string looks like a pooler's; asked before anything fails because of it.
pub fn pooler_suspected(settings: &Settings) -> Option<Finding> {
    let pooled = settings.hosts.iter().find(|host| {
        let named = matches!(&host.address, Address::Tcp { host, .. } if host.contains("pooler"));
        host.port == 6543 || host.port == 6432 || named
    })?;
    Some(Finding {
        kind: FindingKind::Pooler,
        what: format!("`{pooled}` looks like a connection pooler"),
        found: None,
        hint: POOLER_HINT.to_owned(),
    })
}

fn finding(
    kind: FindingKind,
    what: String,
    found: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    Finding { kind, what, found: Some(found.into()), hint: hint.into() }
}

fn server_findings(facts: &Facts) -> Vec<Finding> {
    let mut list = Vec::new();
    if facts.version < OLDEST_VERSION {
        let found = format!("{}.{}", facts.version / 10_000, facts.version % 10_000);
        list.push(finding(
            FindingKind::Version,
            "the server must be PostgreSQL 15 or later".to_owned(),
            found,
            "upgrade it",
        ));
    }
    if facts.wal_level != "logical" {
        list.push(finding(
            FindingKind::WalLevel,
            "`wal_level` must be `logical`".to_owned(),
            format!("`{}`", facts.wal_level),
            "alter system set wal_level = logical, and restart the server",
        ));
    }
    if !facts.may_replicate {
        list.push(Finding {
            kind: FindingKind::Privilege,
            what: format!("role `{}` may not replicate", facts.role),
            found: None,
            hint: format!(
                "alter role \"{}\" replication (on RDS: grant rds_replication to it)",
                facts.role
            ),
        });
    }
    let full = |usage: Usage| usage.limit <= usage.used;
    let shown = |usage: Usage| format!("{} of {} in use", usage.used, usage.limit);
    if facts.slot.is_none() && full(facts.slots) {
        list.push(finding(
            FindingKind::SlotsFull,
            "no replication slot is free".to_owned(),
            shown(facts.slots),
            "drop one that nobody reads, or raise max_replication_slots (needs a restart)",
        ));
    }
    let reading = facts.slot.as_ref().is_some_and(|it| it.active_pid.is_some());
    if !reading && full(facts.senders) {
        list.push(finding(
            FindingKind::SendersFull,
            "no walsender is free".to_owned(),
            shown(facts.senders),
            "raise max_wal_senders (needs a restart)",
        ));
    }
    list
}

fn table_findings(facts: &Facts, wanted: &Wanted<'_>) -> Vec<Finding> {
    let table = shown(wanted.table);
    let Some(columns) = &facts.columns else {
        return vec![Finding {
            kind: FindingKind::Table,
            what: format!("there is no table `{table}`"),
            found: None,
            hint: "`projector migrate` creates it".to_owned(),
        }];
    };
    let mut list = Vec::new();
    for (name, ty) in wanted.columns {
        match columns.iter().find(|(it, _)| it == name) {
            Some((_, found)) if found == ty => {}
            Some((_, found)) => list.push(finding(
                FindingKind::Table,
                format!("column `{name}` of `{table}` must be {ty}"),
                found.as_str(),
                "change the column, or map another with [source] columns",
            )),
            None => {
                let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
                list.push(finding(
                    FindingKind::Table,
                    format!("`{table}` has no column `{name}`"),
                    format!("columns {}", names.join(", ")),
                    "add the column, or map another with [source] columns",
                ));
            }
        }
    }
    list
}

fn publication_findings(facts: &Facts, wanted: &Wanted<'_>) -> Vec<Finding> {
    let (name, table) = (wanted.publication.as_str(), shown(wanted.table));
    let (publication, quoted) = (wanted.publication, wanted.table);
    let problem = |what: String, found: Option<String>, sql: String| Finding {
        kind: FindingKind::Publication,
        what,
        found,
        hint: format!("`projector migrate` does it, or: {sql}"),
    };
    let Some(found) = &facts.publication else {
        return vec![problem(
            format!("there is no publication `{name}`"),
            None,
            format!(
                "create publication {publication} for table {quoted} with (publish = 'insert', publish_via_partition_root = true)"
            ),
        )];
    };
    let mut list = Vec::new();
    if !found.insert {
        list.push(problem(
            format!("publication `{name}` does not publish inserts"),
            None,
            format!("alter publication {publication} set (publish = 'insert')"),
        ));
    }
    let Some(columns) = &found.columns else {
        let tables = if found.tables.is_empty() {
            "no table".to_owned()
        } else {
            format!("tables {}", found.tables.join(", "))
        };
        let sql = if found.via_root {
            format!("alter publication {publication} add table {quoted}")
        } else {
            // Without it a partitioned table is published as its partitions.
            format!(
                "alter publication {publication} set (publish_via_partition_root = true), and add table {quoted} where it is missing"
            )
        };
        list.push(problem(
            format!("publication `{name}` does not publish `{table}`"),
            Some(tables),
            sql,
        ));
        return list;
    };
    let missing = wanted.columns.iter().find(|(column, _)| !columns.iter().any(|it| it == column));
    if let Some((column, _)) = missing {
        list.push(problem(
            format!("publication `{name}` leaves out column `{column}` of `{table}`"),
            Some(format!("columns {}", columns.join(", "))),
            format!("alter publication {publication} set table {quoted}"),
        ));
    }
    if let Some(filter) = &found.row_filter {
        list.push(problem(
            format!("publication `{name}` leaves out rows of `{table}`"),
            Some(format!("where {filter}")),
            format!("alter publication {publication} set table {quoted}"),
        ));
    }
    list
}

fn slot_finding(facts: &Facts, wanted: &Wanted<'_>) -> Option<Finding> {
    let slot = facts.slot.as_ref()?;
    let name = wanted.slot.as_str();
    if slot.plugin.as_deref() != Some("pgoutput") || !slot.in_this_database {
        let plugin = slot.plugin.as_deref().unwrap_or("none (a physical slot)");
        let database = slot.database.as_deref().unwrap_or("none");
        return Some(finding(
            FindingKind::Slot,
            format!("slot `{name}` is not ours: it must use pgoutput in this database"),
            format!("plugin {plugin}, database {database}"),
            "name another with [source] slot",
        ));
    }
    (slot.wal_status.as_deref() == Some("lost")).then(|| {
        finding(
            FindingKind::Slot,
            format!("slot `{name}` is lost: the log it needs is gone"),
            "wal_status lost",
            "`projector run` makes a new one and rebuilds; raise max_slot_wal_keep_size to keep more",
        )
    })
}

/// `schema.table` as people write it.
fn shown(table: &QualifiedName) -> String {
    format!("{}.{}", table.schema.as_str(), table.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_without_the_table_says_what_it_has() {
        let slot = Ident::new("projector").unwrap();
        let table = QualifiedName {
            schema: Ident::new("public").unwrap(),
            name: Ident::new("events").unwrap(),
        };
        let wanted =
            Wanted { slot: &slot, publication: &slot, table: &table, columns: &[("type", "text")] };
        let facts = Facts {
            version: 150_018,
            wal_level: "logical".to_owned(),
            slots: Usage { limit: 10, used: 0 },
            senders: Usage { limit: 10, used: 0 },
            may_replicate: true,
            columns: Some(vec![("type".to_owned(), "text".to_owned())]),
            publication: Some(PublicationFacts {
                insert: true,
                via_root: true,
                tables: vec!["public.orders".to_owned()],
                ..PublicationFacts::default()
            }),
            ..Facts::default()
        };

        let found = findings(&facts, &wanted);

        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "publication `projector` does not publish `public.events`\n  found: tables public.orders"
        );
        assert_eq!(
            found[0].hint,
            r#"`projector migrate` does it, or: alter publication "projector" add table "public"."events""#
        );
    }
}
