//! `projector doctor`: everything that keeps us from following the log, each with its fix.

use std::error::Error;
use std::sync::Arc;

use serde::Serialize;
use tokio_postgres::Client;

use crate::cli::context::statement_failed;
use crate::cli::hub::hub;
use crate::cli::out::{BAD, DIM, GOOD, styled};
use crate::cli::sidecar::target;
use crate::cli::{Context, Exit};
use crate::config::RealtimeMode;
use crate::metrics::Metrics;
use crate::migrate::{self, MigrateError, Realtime};
use crate::pg::Settings;
use crate::pg::facts::{self, Wanted};
use crate::pg::findings::{self, Finding, FindingKind};
use crate::realtime::Target;
use crate::realtime::hub::{Hub, USER};
use crate::realtime::sink::{Refusal, Sink};
use crate::wal::conn::ReplicationConnection;
use crate::wal::error::WalError;

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

/// The check that opens a connection of its own.
const REPLICATION: &str = "replication login";

/// The check that asks the target of broadcasts.
const BROADCASTS: &str = "broadcasts";

/// The check that asks what users may hear.
const VIEWERS: &str = "viewers";

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
        Err(error) => not_migrated("schema", &error),
    });
    list.push(match migrate::realtime(&client).await {
        Ok(found) => realtime(found),
        Err(error) => not_migrated("realtime", &error),
    });
    list.push(replication(&settings).await);
    list.extend(broadcasts(context, &settings).await?);
    if config.realtime.mode == Some(RealtimeMode::Embedded) {
        // what is wrong with its keys ends the verb, as it would end `projector run`
        let hub = hub(config, &settings, &Arc::new(Metrics::new()))?;
        list.push(viewers(&hub, &client, &facts).await?);
    }
    show(&list, context)?;
    Ok(if list.iter().all(|it| it.ok) { Exit::DONE } else { Exit::FAILED })
}

fn not_migrated(check: &'static str, error: &MigrateError) -> Diagnosis {
    let hint = error.hint().map(str::to_owned);
    Diagnosis { check, ok: false, what: error.to_string(), found: None, hint }
}

/// Whether members, and only they, receive what is broadcast through Supabase.
fn realtime(found: Realtime) -> Diagnosis {
    match found {
        Realtime::None => good("realtime", "no realtime.messages here".to_owned()),
        Realtime::Bound => {
            good("realtime", "realtime.messages has projector's policies".to_owned())
        }
        Realtime::Unbound(missing) => Diagnosis {
            check: "realtime",
            ok: false,
            what: "realtime.messages lacks policies or grants of projector".to_owned(),
            found: Some(format!("{} missing", missing.len())),
            hint: Some(format!(
                "`projector migrate` does it, or its owner: {}",
                missing.join("; ")
            )),
        },
    }
}

/// Whether the log may be followed: a login of its own, with a line of its own in `pg_hba.conf`.
async fn replication(settings: &Settings) -> Diagnosis {
    let logged_in = async {
        let mut connection = ReplicationConnection::connect(settings, "projector doctor").await?;
        let system = connection.identify_system().await?;
        connection.close().await?;
        Ok::<_, WalError>(system)
    };
    match logged_in.await {
        Ok(system) => good(REPLICATION, format!("the log ends at {}", system.position)),
        Err(error) => {
            let hint = error.hint();
            let found = error.source().map(ToString::to_string);
            Diagnosis { check: REPLICATION, ok: false, what: error.to_string(), found, hint }
        }
    }
}

/// Whether what is broadcast would arrive; nothing where broadcasts are off.
async fn broadcasts(context: &Context, settings: &Settings) -> anyhow::Result<Option<Diagnosis>> {
    let config = context.config();
    if config.realtime.mode == Some(RealtimeMode::Embedded) {
        return Ok(Some(good(BROADCASTS, "to clients of `projector run` itself".to_owned())));
    }
    let Some(target) = target(context, None)? else { return Ok(None) };
    let what = match &target {
        Target::Http(gateway) => gateway.endpoint.clone(),
        Target::Sql | Target::Embedded(_) => "into realtime.messages".to_owned(),
    };
    let refusal = match Sink::new(&target, settings)?.probe(true).await {
        Ok(()) => return Ok(Some(good(BROADCASTS, what))),
        Err(refusal) => refusal,
    };
    let (found, hint) = match refusal {
        Refusal::Operator { reason, hint } => (reason, Some(hint)),
        Refusal::Content(reason) | Refusal::Later { reason, .. } => (reason, None),
    };
    let what = format!("{what}: not taken");
    Ok(Some(Diagnosis { check: BROADCASTS, ok: false, what, found: Some(found), hint }))
}

/// Whether the embedded Realtime can ask what a user may read.
async fn viewers(hub: &Hub, client: &Client, facts: &facts::Facts) -> anyhow::Result<Diagnosis> {
    let Err(error) = hub.probe().await else {
        return Ok(good(VIEWERS, "what a user may hear can be asked".to_owned()));
    };
    // since 16 a member may be one that cannot take the role, or takes it without inheriting
    let (privilege, options) = if 160_000 <= facts.version {
        ("set", " with inherit false, set true")
    } else {
        ("member", "")
    };
    let may = "select pg_has_role(oid, $2) from pg_roles where rolname = $1";
    let rows = client
        .query(may, &[&USER, &privilege])
        .await
        .map_err(|error| statement_failed("cannot look at the roles", error))?;
    let may = rows.first().is_none_or(|it| it.get(0));
    let role = &facts.role;
    let (what, hint) = if may {
        let what = "no user can join a private topic".to_owned();
        let hint = format!(
            "`projector migrate` makes `projector.can_read_topic`, which every role may call; the \
             role `{USER}` must be there"
        );
        (what, hint)
    } else {
        let what = format!("{role} may not become {USER}, so no user can join a private topic");
        let hint = format!(
            "grant {USER} to \"{}\"{options}; what a user may hear is asked in the user's role, as \
             PostgREST asks",
            role.replace('"', "\"\"")
        );
        (what, hint)
    };
    Ok(Diagnosis { check: VIEWERS, ok: false, what, found: Some(error.chain()), hint: Some(hint) })
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
