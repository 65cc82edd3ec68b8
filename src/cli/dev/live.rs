//! What is going on, until the end: a line that is drawn again, a line now and then, or JSON.

use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cli::Context;
use crate::cli::dev::counts::{self, Counts};
use crate::cli::figure::{bytes, duration, float, thousands};
use crate::cli::out::{BAD, DIM, GOOD, Out, OutError, WARN};
use crate::engine::status::{Phase, Status};
use crate::ident::Ident;
use crate::pg::Settings;

/// Where figures come from, and where they go.
pub(super) struct Live {
    out: Out,
    status: watch::Receiver<Arc<Status>>,
    settings: Settings,
    schema: Ident,
}

/// One moment, as JSON has it.
#[derive(Debug, Serialize)]
struct Moment {
    kind: &'static str,
    phase: Phase,
    ready: bool,
    /// Why it is not ready.
    reasons: Vec<String>,
    events_per_second: f64,
    /// Events that the read models hold.
    events_total: u64,
    lag_seconds: f64,
    lag_bytes: u64,
    /// Runs by status.
    runs: Counts,
}

impl Live {
    pub(super) fn new(
        context: &Context,
        status: watch::Receiver<Arc<Status>>,
        settings: Settings,
    ) -> Self {
        let schema = context.config().schema.clone();
        Self { out: context.out.clone(), status, settings, schema }
    }

    /// Shows figures for ever. May be cancelled.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub(super) async fn show(&self) -> Result<(), OutError> {
        let (sender, counts) = watch::channel(Counts::default());
        tokio::select! {
            shown = self.tick(&counts) => shown,
            () = counts::watch(self.settings.clone(), self.schema.clone(), sender) => Ok(()),
        }
    }

    async fn tick(&self, counts: &watch::Receiver<Counts>) -> Result<(), OutError> {
        let (json, draws) = (self.out.is_json(), self.out.draws());
        let period = match (json, draws) {
            (true, _) => Duration::from_secs(1),
            (_, true) => Duration::from_millis(250),
            (_, false) => Duration::from_secs(5),
        };
        let line = Line(self.out.bar(None, "{spinner} {wide_msg}"));
        // At first there is nothing to tell yet.
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let moment = Moment::of(&self.status.borrow(), &counts.borrow());
            if json {
                self.out.json(&moment)?;
            } else if draws {
                line.0.set_message(moment.text(&self.out));
                line.0.tick();
            } else {
                self.out.line(moment.text(&self.out))?;
            }
        }
    }
}

/// The line on the terminal, gone with its value.
struct Line(ProgressBar);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Moment {
    /// The projection that is furthest behind speaks for all.
    fn of(status: &Status, counts: &Counts) -> Self {
        let all = &status.projections;
        Self {
            kind: "status",
            phase: status.phase,
            ready: status.ready,
            reasons: status.reasons.clone(),
            events_per_second: all.iter().map(|it| it.events_per_second).fold(0.0, f64::max),
            events_total: all.iter().map(|it| it.events_total).max().unwrap_or(0),
            lag_seconds: all.iter().map(|it| it.lag_seconds).fold(0.0, f64::max),
            lag_bytes: all.iter().map(|it| it.lag_bytes).max().unwrap_or(0),
            runs: counts.clone(),
        }
    }

    /// Within 78 columns as long as the figures have three digits and a unit.
    fn text(&self, out: &Out) -> String {
        if let Some(reason) = self.reasons.first() {
            return out.painted(WARN, reason);
        }
        let rate = thousands(self.events_per_second);
        let total = match self.events_total {
            few @ 0..100_000 => few.to_string(),
            many => thousands(float(many)),
        };
        let lag = format!("lag {} {}", duration(self.lag_seconds), bytes(self.lag_bytes));
        let mut parts = vec![format!("{rate}/s"), format!("{total} events"), lag];
        let count = |name: &str, status: &str, style| {
            let count = self.runs.of(status);
            let text = format!("{} {name}", thousands(float(count)));
            if count == 0 { out.painted(DIM, text) } else { out.painted(style, text) }
        };
        if !self.runs.is_empty() {
            let plain = anstyle::Style::new();
            let runs = [
                count("running", "running", plain),
                count("paused", "paused", WARN),
                count("ok", "succeeded", GOOD),
                count("failed", "failed", BAD),
            ];
            parts.push(runs.join(" "));
        }
        parts.join("  ")
    }
}
