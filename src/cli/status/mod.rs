//! `projector status`: what each projection is doing, how far it is behind, what the slot keeps.
//!
//! The database is asked for what is true ([`Report::gather`]): checkpoints, the head of the log, the
//! slot. The running sidecar, where it answers, adds what only it knows ([`Report::add`]): rates and
//! seconds. Without it the table is still right, so that the verb helps when it is needed most.

mod report;
mod sidecar;
mod table;
mod verb;

pub use self::report::Report;
pub use self::sidecar::Sidecar;
pub use self::table::render;
pub(super) use self::verb::run;

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::MissedTickBehavior;

use crate::ident::Ident;
use crate::pg::SharedClient;

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

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A table of at most 80 columns.
    Text,
    /// The same over the one before it: for a terminal.
    Redrawn,
    /// A JSON document on one line.
    Json,
}

/// Where reports come from.
pub struct Sources {
    /// The database.
    pub database: SharedClient,
    /// The configured replication slot.
    pub slot: Ident,
    /// `limits.max_slot_lag`, in bytes.
    pub limit_bytes: Option<u64>,
    /// The sidecar, which may not be running.
    pub sidecar: Sidecar,
}

impl Sources {
    /// Makes one report.
    ///
    /// # Errors
    /// When the database does not answer, or has not been migrated.
    pub async fn report(&self) -> anyhow::Result<Report> {
        let client = self.database.get().await?;
        let mut report = Report::gather(&client, self.slot.as_str(), self.limit_bytes)
            .await
            .context("cannot read the control tables; `projector migrate` makes them")?;
        match self.sidecar.status().await {
            Ok(status) => report.add(&status),
            // It may not run, run elsewhere, or want a token: the database's answer stands alone.
            Err(error) => {
                let error = format!("{error:#}");
                tracing::debug!(error, "the sidecar adds nothing to the status");
            }
        }
        Ok(report)
    }
}

/// Prints one report.
///
/// # Errors
/// When there is none, or `print` fails.
pub async fn show(
    sources: &Sources,
    form: Form,
    print: impl Fn(String) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let report = sources.report().await?;
    print(match form {
        Form::Text => render(&report),
        Form::Redrawn => format!("{CLEAR}{}", render(&report)),
        Form::Json => serde_json::to_string(&report)? + "\n",
    })
}

/// Prints a report every second. Ends only by an error; Ctrl-C is the caller's to wait for, and
/// dropping this is safe at any time.
///
/// # Errors
/// When there is no report, or `print` fails.
pub async fn watch(
    sources: &Sources,
    form: Form,
    print: impl Fn(String) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        show(sources, form, &print).await?;
    }
}
