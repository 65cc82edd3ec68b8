//! `projector doctor`: everything that keeps us from following the log, each with its fix.

use serde::Serialize;

use crate::cli::context::statement_failed;
use crate::cli::out::{BAD, DIM, GOOD, styled};
use crate::cli::{Context, Exit};
use crate::migrate;
use crate::pg::facts::{self, Wanted};
use crate::pg::findings::{self, Finding, FindingKind};

/// A condition and how it is met.
#[derive(Debug, Serialize)]
struct Diagnosis {
    check: &'static str,
    ok: bool,
    /// How things are, or what is wrong.
    what: String,
    found: Option<String>,
    hint: Option<String>,
}

/// What is looked at, in the order in which it is mended.
const CHECKS: [(FindingKind, &str); 9] = [
    (FindingKind::Pooler, "direct connection"),
    (FindingKind::Version, "server version"),
    (FindingKind::WalLevel, "wal_level"),
    (FindingKind::Privilege, "privileges"),
    (FindingKind::SlotsFull, "replication slots"),
    (FindingKind::SendersFull, "walsenders"),
    (FindingKind::Table, "events table"),
    (FindingKind::Publication, "publication"),
    (FindingKind::Slot, "slot"),
];

pub(super) async fn run(context: &Context) -> anyhow::Result<Exit> {
    let settings = context.settings()?;
    let client = context.connect("doctor").await?;
    let config = context.config();
    let source = &config.source;
    let table = config.events_table();
    let columns = source.columns.types();
    let wanted = Wanted {
        slot: &source.slot,
        publication: &source.publication,
        table: &table,
        columns: &columns,
    };
    let facts = facts::gather(&client, &wanted)
        .await
        .map_err(|error| statement_failed("cannot examine the database", error))?;
    let mut findings = findings::findings(&facts, &wanted);
    findings.extend(findings::pooler_suspected(&settings));

    let mut list = vec![good("connection", format!("as {} to {}", facts.role, settings.database))];
    for (kind, check) in CHECKS {
        let before = list.len();
        list.extend(findings.iter().filter(|it| it.kind == kind).map(|it| bad(check, it)));
        if list.len() == before {
            list.push(good(check, as_it_is(kind, &facts, &wanted)));
        }
    }
    list.push(match migrate::require_current(&client, config.events_schema()).await {
        Ok(()) => good("schema", "up to date".to_owned()),
        Err(error) => Diagnosis {
            check: "schema",
            ok: false,
            what: error.to_string(),
            found: None,
            hint: error.hint().map(str::to_owned),
        },
    });
    show(&list, context)?;
    Ok(if list.iter().all(|it| it.ok) { Exit::DONE } else { Exit::FAILED })
}

fn good(check: &'static str, what: String) -> Diagnosis {
    Diagnosis { check, ok: true, what, found: None, hint: None }
}

fn bad(check: &'static str, finding: &Finding) -> Diagnosis {
    let Finding { what, found, hint, .. } = finding.clone();
    Diagnosis { check, ok: false, what, found, hint: Some(hint) }
}

/// A condition that is met, in words.
fn as_it_is(kind: FindingKind, facts: &facts::Facts, wanted: &Wanted<'_>) -> String {
    match kind {
        FindingKind::Pooler => "no pooler in sight".to_owned(),
        FindingKind::Version => {
            format!("PostgreSQL {}.{}", facts.version / 10_000, facts.version % 10_000)
        }
        FindingKind::WalLevel => facts.wal_level.clone(),
        FindingKind::Privilege => format!("{} may replicate", facts.role),
        FindingKind::SlotsFull => format!("{} of {} in use", facts.slots.used, facts.slots.limit),
        FindingKind::SendersFull => {
            format!("{} of {} in use", facts.senders.used, facts.senders.limit)
        }
        FindingKind::Table => format!("{} has every column", wanted.table),
        FindingKind::Publication => format!("{} publishes it", wanted.publication),
        FindingKind::Slot => match facts.slot.as_ref().map(|it| it.retained_bytes) {
            None => format!("{} will be made by `projector run`", wanted.slot),
            Some(bytes) => {
                format!("{} keeps {} KiB of WAL", wanted.slot, bytes.unwrap_or_default() / 1024)
            }
        },
    }
}

fn show(list: &[Diagnosis], context: &Context) -> anyhow::Result<()> {
    let out = &context.out;
    if out.is_json() {
        out.json(&list)?;
        return Ok(());
    }
    for it in list {
        let mark = if it.ok { styled(GOOD, "ok     ") } else { styled(BAD, "problem") };
        out.line(format_args!("{mark}  {:<18} {}", it.check, it.what))?;
        if let Some(found) = &it.found {
            out.line(format_args!("         {} {found}", styled(DIM, "found:")))?;
        }
        if let Some(hint) = &it.hint {
            out.line(format_args!("         {} {hint}", styled(DIM, "fix:")))?;
        }
    }
    Ok(())
}
