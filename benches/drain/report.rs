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
    pub(crate) broadcasts: Vec<Broadcasts>,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) rebuilds: Vec<Rebuild>,
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
    /// What it had broadcast by then, if it did.
    pub(crate) told: Option<Told>,
}

/// What was broadcast.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    pub(crate) messages: u64,
    /// Lines that were skipped because too many waited.
    pub(crate) skipped: u64,
    /// Lines that had still to be sent.
    pub(crate) waiting: u64,
}

/// All five read models on a backlog, without broadcasts and with them; the runs are pairs.
#[derive(Debug, Serialize)]
pub(crate) struct Broadcasts {
    transaction: Transaction,
    events: u32,
    pub(crate) off: Vec<ProjectorRun>,
    pub(crate) on: Vec<ProjectorRun>,
}

/// Commit → visible under a steady load.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) wanted_rate: u32,
    pub(crate) rate: f64,
    pub(crate) events: i64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// How long a writer waits for its own commit.
    pub(crate) append_p50_ms: f64,
    pub(crate) append_p99_ms: f64,
    /// Processor time of projector over the time of the load; 1 is one core.
    pub(crate) cpu_share: f64,
    pub(crate) peak_mib: f64,
    /// How many rebuilds of another read model ran meanwhile, one after the other.
    pub(crate) rebuilds: u32,
}

/// A rebuild of some read models, and the set-based statements that compute the same rows.
#[derive(Debug, Serialize)]
pub(crate) struct Rebuild {
    pub(crate) projections: String,
    pub(crate) reference_seconds: f64,
    /// From the request until the new rows serve, keys and indexes included.
    pub(crate) seconds: f64,
    pub(crate) peak_mib: f64,
}

impl Report {
    /// Without any measurement yet.
    pub(crate) fn new(args: &Args, postgres: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let (drains, broadcasts) = (Vec::new(), Vec::new());
        let (latencies, rebuilds) = (Vec::new(), Vec::new());
        Self {
            postgres: postgres.to_owned(),
            cores,
            options: args.clone(),
            drains,
            broadcasts,
            latencies,
            rebuilds,
        }
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

impl Broadcasts {
    /// Without any run yet.
    pub(crate) fn new(transaction: Transaction, events: u32) -> Self {
        Self { transaction, events, off: Vec::new(), on: Vec::new() }
    }

    fn row(&self) -> String {
        let rate = |runs: &[ProjectorRun]| {
            f64::from(self.events) / median(runs.iter().map(|it| it.seconds))
        };
        let pairs = self.off.iter().zip(&self.on);
        let ratio = median(pairs.map(|(off, on)| off.seconds / on.seconds));
        let told = |of: fn(&Told) -> u64| {
            let counts = self.on.iter().filter_map(|it| it.told.as_ref());
            counts.map(of).max().unwrap_or_default()
        };
        format!(
            "| {} | {:.0} | {:.0} | {ratio:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {} | {} | {} |",
            self.transaction,
            rate(&self.off),
            rate(&self.on),
            median(self.off.iter().map(|it| it.cpu_seconds)),
            median(self.on.iter().map(|it| it.cpu_seconds)),
            median(self.off.iter().map(|it| it.peak_mib)),
            median(self.on.iter().map(|it| it.peak_mib)),
            told(|it| it.messages),
            told(|it| it.skipped),
            told(|it| it.waiting),
        )
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
        for (number, it) in self.rebuilds.iter().enumerate() {
            if number == 0 {
                writeln!(
                    f,
                    "\nRebuild, in seconds.\n\n| projections | one statement a table | rebuild | ratio | peak MiB |\n|---|---|---|---|---|"
                )?;
            }
            let Rebuild { projections, reference_seconds, seconds, peak_mib } = it;
            let ratio = seconds / reference_seconds;
            writeln!(
                f,
                "| {projections} | {reference_seconds:.1} | {seconds:.1} | {ratio:.2} | {peak_mib:.0} |"
            )?;
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
        for (number, it) in self.broadcasts.iter().enumerate() {
            if number == 0 {
                let head = "| transactions | off, events/s | on, events/s | ratio | CPU s off \
                            | CPU s on | peak MiB off | peak MiB on | messages | lines skipped \
                            | lines left |";
                writeln!(f, "\nBroadcasts, {} events, all five.\n", it.events)?;
                writeln!(f, "{head}\n|{}", "---|".repeat(11))?;
            }
            writeln!(f, "{}", it.row())?;
        }
        if !self.latencies.is_empty() {
            let head = "| events/s wanted | events/s | events | p50 ms | p90 ms | p99 ms | max ms \
                        | append p50 ms | append p99 ms | CPU projector | peak MiB | beside rebuilds |";
            writeln!(f, "\nLatency, commit to visible\n\n{head}\n|{}", "---|".repeat(12))?;
        }
        for it in &self.latencies {
            writeln!(
                f,
                "| {} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} % | {:.0} | {} |",
                it.wanted_rate,
                it.rate,
                it.events,
                it.p50_ms,
                it.p90_ms,
                it.p99_ms,
                it.max_ms,
                it.append_p50_ms,
                it.append_p99_ms,
                100.0 * it.cpu_share,
                it.peak_mib,
                it.rebuilds,
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
