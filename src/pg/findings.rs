//! Judgement on a server's facts: what must change before its log can be followed. Pure.

use std::fmt;

use crate::ident::QualifiedName;
use crate::pg::error::POOLER_HINT;
use crate::pg::facts::{Facts, Usage, Wanted};
use crate::pg::settings::{Address, Settings};

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
    use crate::ident::Ident;
    use crate::pg::facts::PublicationFacts;

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
