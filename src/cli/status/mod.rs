//! `projector status`: what each projection is doing, how far it is behind, what the slot keeps.
//!
//! The database is asked for what is true ([`Report::gather`]): checkpoints, the head of the log, the
//! slot. The running sidecar, where it answers, adds what only it knows ([`Report::add`]): rates and
//! seconds. Without it the table is still right, so that the verb helps when it is needed most.

mod report;
mod sidecar;
mod table;

use std::io::IsTerminal as _;
use std::time::Duration;

use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::cli::context::{cannot_connect, statement_failed};
use crate::cli::status::report::Report;
use crate::cli::status::sidecar::Sidecar;
use crate::cli::status::table::render;
use crate::cli::{Context, Exit, StatusArgs};
use crate::config::Secret;
use crate::pg::SharedClient;

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Moves to the top left corner and clears from there.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) async fn run(args: StatusArgs, context: &Context) -> anyhow::Result<Exit> {
    let http = &context.config().http;
    let sidecar = Sidecar::new(http.listen, http.admin_token.as_ref().map(Secret::expose))?;
    if args.check {
        return check(&sidecar, context).await;
    }
    let database = SharedClient::new(context.settings()?, "projector status");
    if !args.watch {
        let report = report(&database, &sidecar, context).await?;
        return print(&report, "", context);
    }
    tokio::select! {
        // It only reads: there is nothing to be left half done.
        ended = watch(&database, &sidecar, context) => ended,
        end = tokio::signal::ctrl_c() => Ok(end.map(|()| Exit::DONE)?),
    }
}

/// Asks `/readyz` and nothing else: a health check must not depend on what it does not judge.
async fn check(sidecar: &Sidecar, context: &Context) -> anyhow::Result<Exit> {
    let reasons = sidecar.reasons().await;
    let ready = reasons.is_empty();
    if context.out.is_json() {
        context.out.json(&json!({ "ready": ready, "reasons": reasons }))?;
    } else if ready {
        context.out.line("ready")?;
    } else {
        context.out.complain(reasons.join("\n") + "\n");
    }
    Ok(if ready { Exit::DONE } else { Exit::FAILED })
}

/// A report every second: over the last one on a terminal, below it otherwise.
async fn watch(
    database: &SharedClient,
    sidecar: &Sidecar,
    context: &Context,
) -> anyhow::Result<Exit> {
    let before = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let report = report(database, sidecar, context).await?;
        print(&report, before, context)?;
    }
}

fn print(report: &Report, before: &str, context: &Context) -> anyhow::Result<Exit> {
    if context.out.is_json() {
        context.out.json(report)?;
    } else {
        context.out.write(format_args!("{before}{}", render(report)))?;
    }
    Ok(Exit::DONE)
}

async fn report(
    database: &SharedClient,
    sidecar: &Sidecar,
    context: &Context,
) -> anyhow::Result<Report> {
    let config = context.config();
    let limit_bytes = config.limits.max_slot_lag.bytes();
    let client = database.get().await.map_err(cannot_connect)?;
    let mut report = Report::gather(&client, config.source.slot.as_str(), limit_bytes)
        .await
        .map_err(|error| statement_failed("cannot read the control tables", error))?;
    match sidecar.status().await {
        Ok(status) => report.add(&status),
        // It may not run, run elsewhere, or want a token: the database's answer stands by itself.
        Err(error) => {
            let error = format!("{error:#}");
            tracing::debug!(error, "the sidecar adds nothing to the status");
        }
    }
    Ok(report)
}
