//! What was measured: medians as tables, everything as JSON.

use std::fmt;

use serde::Serialize;

use crate::args::{Args, Transaction};

/// Everything of one call of the benchmark.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    postgres: String,
    cores: usize,
    options: Args,
    pub(crate) drains: Vec<Drain>,
    pub(crate) latencies: Vec<Latency>,
}

/// A set of projections on a backlog; the runs of the two programs are pairs.
#[derive(Debug, Serialize)]
pub(crate) struct Drain {
    projections: String,
    transaction: Transaction,
    events: u32,
    row_bytes: f64,
    pub(crate) reference: Vec<ReferenceRun>,
    pub(crate) projector: Vec<ProjectorRun>,
}

/// One reading by `pg_recvlogical`, in seconds. All are counted from the start of the process.
#[derive(Debug, Serialize)]
pub(crate) struct ReferenceRun {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) walsender_seconds: f64,
}

/// One draining by projector.
#[derive(Debug, Serialize)]
pub(crate) struct ProjectorRun {
    /// From the start of the process until the rows of all events can be read.
    pub(crate) seconds: f64,
    /// The same from the moment it began to stream.
    pub(crate) seconds_from_ready: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
    pub(crate) walsender_seconds: f64,
    /// The processor time of its other connections' server processes, which write the rows.
    pub(crate) backends_seconds: f64,
}

/// Commit → visible under a steady load.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) wanted_rate: u32,
    pub(crate) rate: f64,
    pub(crate) events: i64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// Processor time of projector over the time of the load; 1 is one core.
    pub(crate) cpu_share: f64,
    pub(crate) peak_mib: f64,
}

impl Report {
    /// Without any measurement yet.
    pub(crate) fn new(args: &Args, postgres: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let (drains, latencies) = (Vec::new(), Vec::new());
        Self { postgres: postgres.to_owned(), cores, options: args.clone(), drains, latencies }
    }
}

impl Drain {
    /// Without any run yet.
    pub(crate) fn new(
        projections: &str,
        transaction: Transaction,
        events: u32,
        row_bytes: f64,
    ) -> Self {
        let projections = projections.to_owned();
        let (reference, projector) = (Vec::new(), Vec::new());
        Self { projections, transaction, events, row_bytes, reference, projector }
    }

    /// Events a second.
    fn rate(&self, seconds: f64) -> f64 {
        f64::from(self.events) / seconds
    }

    /// How many times as fast as the reference of the same pair.
    fn ratio(&self) -> f64 {
        let pairs = self.reference.iter().zip(&self.projector);
        median(pairs.map(|(reference, projector)| reference.seconds / projector.seconds))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "PostgreSQL {}, {} cores; medians", self.postgres, self.cores)?;
        if let Some(first) = self.drains.first() {
            let bytes = first.row_bytes;
            writeln!(f, "\nDrain: {} events of {bytes:.0} bytes. CPU in seconds.\n", first.events)?;
            let head = "| transactions | projections | pg_recvlogical/s | projector/s | ratio \
                        | from ready/s | CPU pg_recvlogical | its walsender | CPU projector \
                        | its walsender | its backends | peak MiB |";
            writeln!(f, "{head}\n|{}", "---|".repeat(12))?;
        }
        for drain in &self.drains {
            let reference = |of: fn(&ReferenceRun) -> f64| median(drain.reference.iter().map(of));
            let projector = |of: fn(&ProjectorRun) -> f64| median(drain.projector.iter().map(of));
            writeln!(
                f,
                "| {} | {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} |",
                drain.transaction,
                drain.projections,
                drain.rate(reference(|it| it.seconds)),
                drain.rate(projector(|it| it.seconds)),
                drain.ratio(),
                drain.rate(projector(|it| it.seconds_from_ready)),
                reference(|it| it.cpu_seconds),
                reference(|it| it.walsender_seconds),
                projector(|it| it.cpu_seconds),
                projector(|it| it.walsender_seconds),
                projector(|it| it.backends_seconds),
                projector(|it| it.peak_mib),
            )?;
        }
        if !self.latencies.is_empty() {
            let head = "| events/s wanted | events/s | events | p50 ms | p90 ms | p99 ms | max ms \
                        | CPU projector | peak MiB |";
            writeln!(f, "\nLatency, commit to visible\n\n{head}\n|{}", "---|".repeat(9))?;
        }
        for it in &self.latencies {
            writeln!(
                f,
                "| {} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} % | {:.0} |",
                it.wanted_rate,
                it.rate,
                it.events,
                it.p50_ms,
                it.p90_ms,
                it.p99_ms,
                it.max_ms,
                100.0 * it.cpu_share,
                it.peak_mib,
            )?;
        }
        Ok(())
    }
}

/// The middle of the values; of an even number the higher one of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
