//! `projector status`: what each projection is doing, how far it is behind, what the slot keeps.
//!
//! The database is asked for what is true ([`Report::gather`]): checkpoints, the head of the log, the
//! slot. The running sidecar, where it answers, adds what only it knows ([`Report::add`]): rates and
//! seconds. Without it the table is still right, so that the verb helps when it is needed most.

mod report;
mod sidecar;
mod table;

pub use self::report::Report;
pub use self::sidecar::Sidecar;
pub use self::table::render;

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use anyhow::Context as _;
use tokio_postgres::Client;

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Moves to the top left corner and clears from there.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show each projection's state, checkpoint, lag and rate, and what the slot keeps
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_long_help = "\
Examples:
  projector status
  projector status --watch --output json | jq -c '.projections[] | [.name, .lag_bytes]'
  projector status --check     exit 0 when ready, 1 when not: for a container's health check")]
pub struct StatusArgs {
    /// Show it again every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Only ask the running sidecar whether it is ready: exit 0, or 1 with the reasons on stderr
    #[arg(long, conflicts_with = "watch")]
    pub check: bool,
}

/// How the report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A table of at most 80 columns.
    Text,
    /// One JSON document; with `--watch`, one a line.
    Json,
}

/// Writes one report.
///
/// # Errors
/// When the database does not answer, or `out` takes no more.
pub async fn show(
    client: &Client,
    slot: &str,
    sidecar: &Sidecar,
    form: Form,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let text = match form {
        Form::Text => render(&report(client, slot, sidecar).await?),
        Form::Json => serde_json::to_string_pretty(&report(client, slot, sidecar).await?)? + "\n",
    };
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a report every second: over the last one on a terminal, below it otherwise. Ends only by an
/// error; Ctrl-C is the caller's to wait for, and dropping this is safe.
///
/// # Errors
/// When the database does not answer, or stdout takes no more.
pub async fn watch(
    client: &Client,
    slot: &str,
    sidecar: &Sidecar,
    form: Form,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let redraw = form == Form::Text && out.is_terminal();
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let report = report(client, slot, sidecar).await?;
        let text = match form {
            Form::Text if redraw => format!("{CLEAR}{}", render(&report)),
            Form::Text => render(&report) + "\n",
            Form::Json => serde_json::to_string(&report)? + "\n",
        };
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
}

async fn report(client: &Client, slot: &str, sidecar: &Sidecar) -> anyhow::Result<Report> {
    let mut report = Report::gather(client, slot).await.context("reading the status failed")?;
    match sidecar.status().await {
        Ok(status) => report.add(&status),
        // It may not run, run elsewhere, or want a token: the database's answer stands by itself.
        Err(error) => {
            tracing::debug!(error = format!("{error:#}"), "the sidecar adds nothing to the status");
        }
    }
    Ok(report)
}
