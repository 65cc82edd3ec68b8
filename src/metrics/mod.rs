//! Every metric: its name, its labels, its meaning. Names appear nowhere else.
//!
//! A field of [`Metrics`] is a metric: `lag_bytes` is published as `projector_lag_bytes`, and the
//! field's doc comment is its help. `docs/reference/metrics.md` is generated from the same place, and
//! a test holds the dashboard and the alerts to it.
//!
//! Metrics are touched once a batch, never once an event. No label grows without bound: projections,
//! lanes and error classes are few; runs and tenants are never labels.

mod process;

use std::fmt::Write as _;

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// What the text is served as.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Before every name.
const NAMESPACE: &str = "projector";

/// Upper bounds of `batch_seconds`: from a single event (tens of microseconds) to a statement that
/// waits for a lock.
const BATCH_SECONDS: &[f64] =
    &[0.000_1, 0.000_3, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// A metric as the reference page and the tests need it.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// The full name, `projector_lag_bytes`.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// A struct whose fields are metrics, with a constructor and a list that describes them.
macro_rules! metrics {
    (
        $(#[$struct_meta:meta])*
        pub struct $struct:ident {
            $( $(#[doc = $help:literal])+ $name:ident: $kind:ident [$($label:literal),*], )+
        }
    ) => {
        $(#[$struct_meta])*
        pub struct $struct {
            registry: Registry,
            $( $(#[doc = $help])+ pub $name: $kind, )+
        }

        impl $struct {
            /// What each of the fields is, in their order.
            const FIELDS: &'static [Described] = &[
                $( Described {
                    name: concat!("projector_", stringify!($name)),
                    kind: <$kind as Metric>::KIND,
                    labels: &[$($label),*],
                    help: concat!($($help),+).trim_ascii(),
                }, )+
            ];

            fn register() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let help = concat!($($help),+).trim_ascii();
                    let options = Opts::new(stringify!($name), help).namespace(NAMESPACE);
                    let $name = <$kind as Metric>::create(options, &[$($label),*])?;
                    registry.register(Box::new($name.clone()))?;
                )+
                registry.register(Box::new(process::Process))?;
                Ok(Self { registry, $($name),+ })
            }
        }
    };
}

metrics! {
    /// All metrics of a process, with a registry of their own.
    pub struct Metrics {
        /// Position up to which the log has been received, as a number.
        received_lsn_bytes: IntGauge[],
        /// Position that the slot has been told it may forget, as a number.
        acknowledged_lsn_bytes: IntGauge[],
        /// Log between the head of the server and what a projection has durably applied.
        lag_bytes: IntGaugeVec["projection"],
        /// Age of the oldest commit that a projection has not applied; 0 when it has applied all.
        lag_seconds: GaugeVec["projection"],
        /// Events that a projection has applied since the process started.
        events_total: IntCounterVec["projection"],
        /// Source transactions received since the process started, those without events left out.
        transactions_total: IntCounter[],
        /// Rows written to a projection's table, by operation: upsert or delete.
        rows_total: IntCounterVec["projection", "op"],
        /// Time a batch takes in a stage: decode, fold, apply, commit.
        batch_seconds: HistogramVec["lane", "stage"],
        /// Batches waiting for a lane.
        queue_batches: IntGaugeVec["lane"],
        /// Time the reader has waited because a lane's queue was full.
        queue_full_seconds_total: CounterVec["lane"],
        /// Events set aside because a rule could not apply them.
        dead_letters: IntGaugeVec["projection"],
        /// Rows that take no event until what was set aside of them is settled.
        parked_keys: IntGaugeVec["projection"],
        /// Age of the first event that was set aside and is not settled; 0 when there is none.
        oldest_dead_letter_seconds: GaugeVec["projection"],
        /// Failures to apply, by class: transient, lost, poison, refused, config, bug.
        errors_total: IntCounterVec["projection", "class"],
        /// Log that the server keeps on its disk for the slot.
        slot_retained_bytes: IntGauge[],
        /// Log that the server may keep for the slot before it gives the slot up; 0 without a limit.
        slot_limit_bytes: IntGauge[],
        /// Replication connections opened again, by what ended the one before.
        reconnects_total: IntCounterVec["reason"],
        /// How far a rebuild is, from 0 to 1; 1 when none is under way.
        rebuild_progress_ratio: GaugeVec["projection"],
        /// 1 for the state that a projection is in, 0 for every other.
        projection_state: IntGaugeVec["projection", "state"],
        /// Commit time of the last event received, in seconds since 1970.
        last_event_timestamp_seconds: Gauge[],
        /// Messages to viewers, by target and result: sent, refused for what they are, failed for now.
        broadcasts_total: IntCounterVec["target", "result"],
        /// Lines that no message carries, by why: backlog when too much waited, rule when one failed.
        broadcast_lines_skipped_total: IntCounterVec["target", "reason"],
        /// Lines, and events not looked at yet, that wait to be broadcast.
        broadcast_backlog_lines: IntGaugeVec["target"],
        /// What they take in memory.
        broadcast_backlog_bytes: IntGaugeVec["target"],
        /// Time that the target takes for a request.
        broadcast_send_seconds: HistogramVec["target"],
        /// Clients connected to the embedded Realtime.
        realtime_sockets: IntGauge[],
        /// Topics that clients of the embedded Realtime have joined, each counted for each client.
        realtime_channels: IntGauge[],
        /// Broadcasts put into the queue of a client of the embedded Realtime, counted for each client.
        realtime_deliveries_total: IntCounter[],
        /// Clients of the embedded Realtime that were cut off because they read too slowly.
        realtime_slow_sockets_total: IntCounter[],
        /// Joins that the embedded Realtime refused, by reason: token, forbidden, database, limit,
        /// sockets.
        realtime_refused_joins_total: IntCounterVec["reason"],
        /// 1 when the process is ready, 0 when `/readyz` gives a reason why not.
        ready: IntGauge[],
        /// Always 1; its labels say what is running.
        build_info: IntGaugeVec["version", "commit", "postgres"],
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    #[expect(clippy::new_without_default, reason = "a registry is made once, and by name")]
    pub fn new() -> Self {
        Self::register().expect("names are valid and differ, as a test makes sure")
    }

    /// Messages came to this.
    pub fn broadcasts(&self, target: &str, result: &str, messages: usize) {
        let counter = self.broadcasts_total.with_label_values(&[target, result]);
        counter.inc_by(messages as u64);
    }

    /// Lines are not broadcast, for this reason.
    pub fn lines_skipped(&self, target: &str, reason: &str, lines: u64) {
        self.broadcast_lines_skipped_total.with_label_values(&[target, reason]).inc_by(lines);
    }

    /// Every metric there is, process metrics last.
    pub fn described() -> impl Iterator<Item = &'static Described> {
        Self::FIELDS.iter().chain(process::ALL)
    }

    /// All values in Prometheus' text format, [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.registry.gather(), &mut text)
            .expect("families of a registry are consistent");
        text
    }

    /// The reference page, in Markdown.
    pub fn reference() -> String {
        let mut page = String::from(
            "# Metrics\n\n\
             Served at `/metrics` in Prometheus' text format. A counter starts at zero with the \
             process.\nA metric with labels appears once it has its first value.\n\n\
             This page is generated from `src/metrics/mod.rs`; \
             `PROJECTOR_UPDATE=1 cargo test --lib metrics` writes it.\n\n\
             | metric | kind | labels | meaning |\n|---|---|---|---|\n",
        );
        for it in Self::described() {
            let labels: Vec<_> = it.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind, labels) = (it.name, it.kind, labels.join(", "));
            writeln!(page, "| `{name}` | {kind} | {labels} | {} |", it.help)
                .expect("a string takes any text");
        }
        page
    }
}

/// What [`metrics!`] needs of a kind of metric.
trait Metric: Collector + Clone + Sized {
    const KIND: &'static str;

    fn create(options: Opts, labels: &[&str]) -> prometheus::Result<Self>;
}

macro_rules! metric {
    ($kind:ident, $name:literal, |$options:ident, $labels:ident| $create:expr) => {
        impl Metric for $kind {
            const KIND: &'static str = $name;

            fn create($options: Opts, $labels: &[&str]) -> prometheus::Result<Self> {
                $create
            }
        }
    };
}

metric!(IntGauge, "gauge", |options, _labels| Self::with_opts(options));
metric!(Gauge, "gauge", |options, _labels| Self::with_opts(options));
metric!(IntCounter, "counter", |options, _labels| Self::with_opts(options));
metric!(IntGaugeVec, "gauge", |options, labels| Self::new(options, labels));
metric!(GaugeVec, "gauge", |options, labels| Self::new(options, labels));
metric!(IntCounterVec, "counter", |options, labels| Self::new(options, labels));
metric!(CounterVec, "counter", |options, labels| Self::new(options, labels));
metric!(HistogramVec, "histogram", |options, labels| {
    Self::new(HistogramOpts::from(options).buckets(BATCH_SECONDS.to_vec()), labels)
});

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_metric_can_be_registered_and_printed() {
        let metrics = Metrics::new();
        metrics.lag_bytes.with_label_values(&["run_status"]).set(42);

        let text = metrics.encode();

        assert!(text.contains("projector_lag_bytes{projection=\"run_status\"} 42\n"), "{text}");
        assert!(text.contains("# TYPE projector_received_lsn_bytes gauge\n"), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        }
    }

    #[test]
    fn names_follow_the_naming_guide() {
        for it in Metrics::described() {
            assert_eq!(it.kind == "counter", it.name.ends_with("_total"), "{}", it.name);
            assert!(it.help.ends_with('.') && !it.help.contains('|'), "{}", it.name);
        }
    }

    #[test]
    fn the_reference_page_is_the_one_generated_from_here() {
        let path = root().join("docs/reference/metrics.md");
        if std::env::var_os("PROJECTOR_UPDATE").is_some() {
            std::fs::write(&path, Metrics::reference()).unwrap();
        }

        let page = std::fs::read_to_string(&path).unwrap_or_default();

        assert!(
            page == Metrics::reference(),
            "stale: `PROJECTOR_UPDATE=1 cargo test --lib metrics` writes {}",
            path.display()
        );
    }

    #[test]
    fn dashboard_and_alerts_ask_only_for_metrics_that_exist() {
        let known: Vec<_> = Metrics::described().map(|it| it.name).collect();
        for file in ["ops/prometheus/alerts.yml", "ops/grafana/projector.json"] {
            let text = std::fs::read_to_string(root().join(file)).unwrap();

            let used: Vec<_> = text
                .split(|it: char| !it.is_ascii_alphanumeric() && it != '_')
                .filter(|word| word.starts_with("projector_") || word.starts_with("process_"))
                .collect();

            assert!(3 < used.len(), "{file} asks for nothing");
            for word in used {
                let series = ["_bucket", "_sum", "_count"];
                let name = series.iter().find_map(|it| word.strip_suffix(it)).unwrap_or(word);
                assert!(known.contains(&name), "{file}: there is no metric `{word}`");
            }
        }
    }

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }
}
