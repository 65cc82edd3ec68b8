//! A snapshot of everything the engine knows about itself: what `/readyz`, `/api/projections`, the
//! `status` verb and the gauges are made from.
//!
//! The engine publishes one in a watch channel about once a second and on every change. Whether the
//! process is ready is judged here, from positions and times, and not by the tasks that do the work:
//! a task that hangs cannot say so.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::event::Timestamp;
use crate::lsn::Lsn;
use crate::metrics::Metrics;

/// A projection that is further behind than this is not ready, in seconds.
pub const READY_LAG_SECONDS: f64 = 30.0;

/// A snapshot older than this means that the engine hangs, in microseconds.
const STALE_MICROS: i64 = 30_000_000;

/// The engine at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What the process as a whole is doing.
    pub phase: Phase,
    /// Whether [`reasons`](Self::reasons) is empty.
    pub ready: bool,
    /// Why the process is not ready, one line each; see [`readiness`].
    pub reasons: Vec<String>,
    /// The server and the slot that events come from.
    pub source: SourceStatus,
    /// Every projection, by name.
    pub projections: Vec<ProjectionStatus>,
    /// What is told to viewers; `None` when broadcasts are off.
    #[serde(default)]
    pub broadcasts: Option<BroadcastStatus>,
    /// What is wrong with the definitions that were read last, when the ones before are in force.
    pub definitions_error: Option<String>,
    /// When the process started.
    #[serde(with = "rfc3339")]
    pub started_at: Timestamp,
    /// When this snapshot was taken.
    #[serde(with = "rfc3339")]
    pub updated_at: Timestamp,
    /// The version of projector.
    pub version: String,
}

/// What the process as a whole is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading configuration and definitions.
    Starting,
    /// Without a connection to the server: before the first, or after one was lost.
    Connecting,
    /// Another process holds the slot; this one takes over when it goes.
    Standby,
    /// Following the log.
    Streaming,
    /// Told to end: finishing what has been received.
    Draining,
}

/// The server and the slot that events come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The cluster's identity; `None` before the first connection.
    pub system_identifier: Option<String>,
    /// The version of the server, `17.4`; `None` before the first connection.
    pub server_version: Option<String>,
    /// The replication slot.
    pub slot: String,
    /// End of the server's log, as last seen.
    pub head: Lsn,
    /// Up to where the log has been received.
    pub received: Lsn,
    /// Up to where the server may forget it.
    pub acknowledged: Lsn,
    /// Log that the server keeps on its disk for the slot.
    pub retained_bytes: u64,
    /// Log that it may keep before the slot is given up; `None` without a limit.
    pub limit_bytes: Option<u64>,
    /// `pg_replication_slots.wal_status`: reserved, extended, unreserved or lost; `None` without a
    /// slot.
    pub wal_status: Option<String>,
}

/// One projection at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectionStatus {
    /// The name of its definition.
    pub name: String,
    /// The read model.
    pub table: String,
    /// The lane it commits in.
    pub lane: String,
    /// What it is doing.
    pub state: State,
    /// Up to where its rows are complete; `None` before the first build.
    pub checkpoint: Option<Lsn>,
    /// Log between the server's head and what is durably applied.
    pub lag_bytes: u64,
    /// Age of the oldest commit that is not applied; 0 when all is.
    pub lag_seconds: f64,
    /// Events applied over the projection's life.
    pub events_total: u64,
    /// Events applied a second, over the last few seconds.
    pub events_per_second: f64,
    /// Why it failed.
    pub error: Option<String>,
    /// How far a build is, from 0 to 1; `None` when none is under way.
    pub progress: Option<f64>,
    /// Events set aside because a rule could not apply them.
    pub dead_letters: u64,
    /// Rows that wait for them.
    #[serde(default)]
    pub parked_keys: u64,
    /// How long the oldest has been set aside, in seconds; 0 when none is.
    #[serde(default)]
    pub oldest_parked_seconds: f64,
    /// The build of its next generation, while one is wanted or under way.
    pub rebuild: Option<RebuildStatus>,
}

/// Broadcasts at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BroadcastStatus {
    /// Where they go: `http`, `sql` or `embedded`.
    pub target: String,
    /// Whether the target does not take them at the moment; [`last_error`](Self::last_error) says why.
    pub failing: bool,
    /// The names of their definitions.
    pub definitions: Vec<String>,
    /// Up to where everything was delivered, or skipped.
    pub checkpoint: Option<Lsn>,
    /// Age of what has waited longest, about; 0 when nothing waits.
    pub lag_seconds: f64,
    /// Lines, and events not looked at yet, that wait.
    pub backlog_lines: u64,
    /// What they take in memory.
    pub backlog_bytes: u64,
    /// Messages sent since the process started.
    pub sent_total: u64,
    /// Lines skipped since then: clients fetch them.
    pub skipped_total: u64,
    /// Messages that the target has refused for what they are.
    pub refused_total: u64,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// A build of a projection's next generation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RebuildStatus {
    /// `requested`, `snapshot`, `fold`, `catch_up` or `swap`, as in `projector.rebuilds`.
    pub phase: String,
    /// Events folded.
    pub done: u64,
    /// About how many there are; 0 when that is not known yet.
    pub total: u64,
    /// Events folded a second, since it began.
    pub events_per_second: f64,
    /// How long the rest of history will take at this rate.
    pub seconds_left: Option<f64>,
    /// What it waits for.
    pub waiting_for: Option<String>,
}

/// What a projection is doing: the states of `projector.projections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Follows the log.
    Live,
    /// Follows the log, with some events set aside. Stored as `live`: what is set aside tells.
    Degraded,
    /// Applies what it has missed.
    CatchingUp,
    /// Its next generation is being filled from history.
    Rebuilding,
    /// Stopped by an operator.
    Paused,
    /// Stopped by an error.
    Failed,
    /// Its rows exist, its definition is gone.
    Detached,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Live,
        Self::Degraded,
        Self::CatchingUp,
        Self::Rebuilding,
        Self::Paused,
        Self::Failed,
        Self::Detached,
    ];

    /// As the database, JSON and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Degraded => "degraded",
            Self::CatchingUp => "catching_up",
            Self::Rebuilding => "rebuilding",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Detached => "detached",
        }
    }

    /// The state that is spelled so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Status {
    /// A process that has just begun.
    pub fn starting(slot: &str, now: Timestamp) -> Self {
        Self {
            phase: Phase::Starting,
            ready: false,
            reasons: Vec::new(),
            source: SourceStatus { slot: slot.to_owned(), ..SourceStatus::default() },
            projections: Vec::new(),
            broadcasts: None,
            definitions_error: None,
            started_at: now,
            updated_at: now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
        .judged(now)
    }

    /// The same with `ready` and `reasons` as [`readiness`] sees them at `now`.
    #[must_use]
    pub fn judged(mut self, now: Timestamp) -> Self {
        self.reasons = readiness(&self, now);
        self.ready = self.reasons.is_empty();
        self
    }

    /// Sets the gauges that this snapshot knows the values of. Counters and histograms belong to the
    /// tasks that do the work.
    pub fn publish(&self, metrics: &Metrics) {
        let postgres = self.source.server_version.as_deref().unwrap_or("unknown");
        let commit = option_env!("PROJECTOR_COMMIT").unwrap_or("unknown");
        // The server may have been upgraded since: only what is running now is 1.
        metrics.build_info.reset();
        metrics.build_info.with_label_values(&[&self.version, commit, postgres]).set(1);
        metrics.ready.set(i64::from(self.ready));
        metrics.received_lsn_bytes.set(gauge(self.source.received.0));
        metrics.acknowledged_lsn_bytes.set(gauge(self.source.acknowledged.0));
        metrics.slot_retained_bytes.set(gauge(self.source.retained_bytes));
        metrics.slot_limit_bytes.set(gauge(self.source.limit_bytes.unwrap_or(0)));
        for it in &self.projections {
            let name = [it.name.as_str()];
            metrics.lag_bytes.with_label_values(&name).set(gauge(it.lag_bytes));
            metrics.lag_seconds.with_label_values(&name).set(it.lag_seconds);
            metrics.dead_letters.with_label_values(&name).set(gauge(it.dead_letters));
            metrics.parked_keys.with_label_values(&name).set(gauge(it.parked_keys));
            let age = it.oldest_parked_seconds;
            metrics.oldest_dead_letter_seconds.with_label_values(&name).set(age);
            let progress = it.progress.unwrap_or(1.0);
            metrics.rebuild_progress_ratio.with_label_values(&name).set(progress);
            for state in State::ALL {
                let gauge = metrics.projection_state.with_label_values(&[name[0], state.as_str()]);
                gauge.set(i64::from(state == it.state));
            }
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Why a process in this state is not ready at `now`, one line a reason; empty when it is.
///
/// A paused projection is no reason: somebody wanted it so, and restarting or bypassing the process
/// would not help. A detached one has no definition to follow.
pub fn readiness(status: &Status, now: Timestamp) -> Vec<String> {
    let mut reasons = Vec::new();
    let slot = &status.source.slot;
    match status.phase {
        Phase::Starting => reasons.push("starting".to_owned()),
        Phase::Connecting => reasons.push("not connected to Postgres".to_owned()),
        Phase::Standby => {
            reasons.push(format!("standby: another process holds the slot `{slot}`"));
        }
        Phase::Streaming => {}
        Phase::Draining => reasons.push("shutting down".to_owned()),
    }
    // What a process in stand-by last knew about projections is another process' to report.
    if status.phase != Phase::Standby {
        reasons.extend(status.projections.iter().filter_map(projection_reason));
    }
    if status.source.wal_status.as_deref() == Some("lost") {
        reasons.push(format!("slot `{slot}` is lost: the server has removed log it needed"));
    }
    let age = now.0.saturating_sub(status.updated_at.0);
    if STALE_MICROS < age {
        reasons.push(format!("no sign of life from the engine for {} s", age / 1_000_000));
    }
    reasons
}

fn projection_reason(projection: &ProjectionStatus) -> Option<String> {
    let name = &projection.name;
    let state = match projection.state {
        State::Failed => {
            let error = projection.error.as_deref().unwrap_or("see the log");
            return Some(format!("projection `{name}` failed: {error}"));
        }
        State::Rebuilding if projection.checkpoint.is_none() => "is being built",
        State::CatchingUp => "is catching up",
        State::Live | State::Degraded | State::Rebuilding
            if READY_LAG_SECONDS < projection.lag_seconds =>
        {
            let seconds = projection.lag_seconds;
            return Some(format!("projection `{name}` is {seconds:.0} s behind"));
        }
        // the rows that wait are told of; restarting would free none of them
        State::Live | State::Degraded | State::Rebuilding | State::Paused | State::Detached => {
            return None;
        }
    };
    let progress = projection.progress.map(|it| format!(": {:.0} %", it * 100.0));
    Some(format!("projection `{name}` {state}{}", progress.unwrap_or_default()))
}

/// Moments as `2026-01-31T12:00:00.123456Z`.
mod rfc3339 {
    use super::{Deserialize, Deserializer, Serializer, Timestamp, de};

    pub(super) fn serialize<S: Serializer>(
        moment: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let moment = jiff::Timestamp::from_microsecond(moment.0).unwrap_or_default();
        serializer.collect_str(&moment)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(Timestamp(moment.as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn streaming(projections: Vec<ProjectionStatus>) -> Status {
        Status { phase: Phase::Streaming, projections, ..Status::starting("projector", NOW) }
    }

    fn projection(state: State) -> ProjectionStatus {
        ProjectionStatus {
            name: "run_status".to_owned(),
            table: "run_status".to_owned(),
            lane: "default".to_owned(),
            state,
            checkpoint: Some(Lsn(16)),
            lag_bytes: 0,
            lag_seconds: 0.0,
            events_total: 7,
            events_per_second: 1.5,
            error: None,
            progress: None,
            dead_letters: 0,
            parked_keys: 0,
            oldest_parked_seconds: 0.0,
            rebuild: None,
        }
    }

    #[test]
    fn a_status_survives_json() {
        let status = streaming(vec![projection(State::CatchingUp)]).judged(NOW);

        let json = serde_json::to_string(&status).unwrap();

        assert!(json.contains(r#""state":"catching_up""#), "{json}");
        assert!(json.contains(r#""started_at":"2027-01-15T08:00:00Z""#), "{json}");
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }

    #[test]
    fn a_process_that_follows_with_live_and_paused_projections_is_ready() {
        let states = [State::Live, State::Paused, State::Degraded];
        let status = streaming(states.map(projection).into());

        assert_eq!(readiness(&status, NOW), Vec::<String>::new());
    }

    #[test]
    fn each_cause_gives_its_reason() {
        let failed = ProjectionStatus {
            error: Some("division by zero".to_owned()),
            ..projection(State::Failed)
        };
        let building = ProjectionStatus {
            checkpoint: None,
            progress: Some(0.614),
            ..projection(State::Rebuilding)
        };
        let late = ProjectionStatus { lag_seconds: 31.4, ..projection(State::Live) };

        assert_eq!(
            readiness(&streaming(vec![failed, building, late]), NOW),
            [
                "projection `run_status` failed: division by zero",
                "projection `run_status` is being built: 61 %",
                "projection `run_status` is 31 s behind",
            ]
        );
    }

    #[test]
    fn a_standby_gives_only_that_reason() {
        let status =
            Status { phase: Phase::Standby, ..streaming(vec![projection(State::CatchingUp)]) };

        assert_eq!(
            readiness(&status, NOW),
            ["standby: another process holds the slot `projector`"]
        );
    }

    #[test]
    fn an_engine_that_hangs_is_not_ready() {
        let later = Timestamp(NOW.0 + 31_000_000);

        assert_eq!(
            readiness(&streaming(Vec::new()), later),
            ["no sign of life from the engine for 31 s"]
        );
    }

    #[test]
    fn a_status_sets_the_gauges() {
        let metrics = Metrics::new();

        streaming(vec![projection(State::Failed)]).judged(NOW).publish(&metrics);

        let text = metrics.encode();
        let failed = r#"projector_projection_state{projection="run_status",state="failed"} 1"#;
        assert!(text.contains(failed), "{text}");
        assert!(text.contains("projector_ready 0"), "{text}");
    }
}
