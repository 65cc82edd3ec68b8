//! Sample events at a steady rate.
//!
//! Each worker has a connection and runs of its own. What it was not told to be appended it sends
//! again, over a new connection if need be; with the same event ids that does no harm.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::{Client, Statement};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cli::Context;
use crate::cli::dev::pace::Pace;
use crate::engine::now;
use crate::ident::Ident;
use crate::pg::{self, Class, Settings};
use crate::wal::backoff::Backoff;
use crate::workload::{Append, Options, PROJECTS, Simulator};

/// Time between two looks at what is due.
const TICK: Duration = Duration::from_millis(20);

/// Events a second that one connection is trusted with: each append waits for the disk.
const PER_WORKER: u32 = 300;

/// The most connections.
const WORKERS: u32 = 8;

/// Calls under way at once on a connection.
const PIPELINE: usize = 16;

/// The first wait after the database did not answer, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The workload before it starts.
pub(super) struct Workload {
    settings: Settings,
    events_schema: Ident,
    schema: Ident,
    rate: u32,
}

impl Workload {
    /// `rate` events a second; 0 for none.
    pub(super) fn new(context: &Context, settings: Settings, rate: u32) -> Self {
        let config = context.config();
        let (events_schema, schema) = (config.events_schema().clone(), config.schema.clone());
        Self { settings, events_schema, schema, rate }
    }

    /// Appends until `end`, and then has what is under way answered.
    pub(super) async fn run(self, end: CancellationToken) {
        if self.rate == 0 {
            return end.cancelled().await;
        }
        let workers = self.rate.div_ceil(PER_WORKER).min(WORKERS);
        // A run has some 20 events, so that it takes about ten seconds.
        let runs = (self.rate / 2).clamp(4, 500).div_ceil(workers);
        let options = Options { runs: runs.try_into().unwrap_or(usize::MAX), ..Options::default() };
        let mut leftovers = self.leftovers().await;
        let work = (0..workers).map(|_| {
            let worker = Worker {
                settings: self.settings.clone(),
                schema: self.events_schema.clone(),
                connection: None,
                // Another seed each time: the same runs cannot begin twice.
                simulator: Simulator::new(fastrand::u64(..), options.clone()),
                pace: Pace::new(f64::from(self.rate) / f64::from(workers)),
                unanswered: std::mem::take(&mut leftovers),
                told: String::new(),
            };
            worker.run(end.clone())
        });
        join_all(work).await;
    }

    /// Ends the runs that an earlier start has left in flight: nobody else would. What it cannot
    /// find out it leaves as it is.
    async fn leftovers(&self) -> VecDeque<Append> {
        let sql = format!(
            "select project_id, run_id, version
             from {}.run_status
             where status in ('running', 'paused') and project_id = any ($1)",
            self.schema
        );
        let Ok(client) = pg::connect(&self.settings, "projector dev workload").await else {
            return VecDeque::new();
        };
        let rows = client.query(&sql, &[&PROJECTS.as_slice()]).await;
        let rows = rows.unwrap_or_else(|error| {
            // On the first start the read model is yet to be made.
            tracing::debug!(%error, "no runs to end");
            Vec::new()
        });
        let cancel = |row: &tokio_postgres::Row| Append {
            project_id: row.get(0),
            run_id: row.get(1),
            expected_version: row.get(2),
            events: vec![json!({
                "type": "run_canceled",
                "payload": { "reason": "the sample workload was stopped" },
                "event_id": Uuid::new_v4(),
            })],
        };
        rows.iter().map(cancel).collect()
    }
}

/// One connection and its runs.
struct Worker {
    settings: Settings,
    schema: Ident,
    connection: Option<(Client, Statement)>,
    simulator: Simulator,
    pace: Pace,
    /// Handed out by the simulator, and not known to be appended; in order.
    unanswered: VecDeque<Append>,
    /// The last problem, which is told once.
    told: String,
}

impl Worker {
    async fn run(mut self, end: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::new(WAITS.0, WAITS.1, fastrand::u64(..));
        let mut before = Instant::now();
        while !end.is_cancelled() {
            ticks.tick().await;
            let at = Instant::now();
            self.pace.elapsed(at - before);
            before = at;
            while self.pace.is_due() {
                let append = self.simulator.next_append(now());
                self.pace.spend(append.events.len().try_into().unwrap_or(u32::MAX));
                self.unanswered.push_back(append);
            }
            while !self.unanswered.is_empty() {
                let Err(problem) = self.send().await else {
                    backoff.reset();
                    self.told.clear();
                    continue;
                };
                self.connection = None;
                self.tell(problem);
                tokio::select! {
                    () = end.cancelled() => return,
                    () = tokio::time::sleep(backoff.wait()) => {}
                }
            }
        }
    }

    /// Sends the first of what is unanswered, no run twice: then it does not matter which call gets
    /// there first. An error is the database's, and what it left unanswered stays to be sent again.
    async fn send(&mut self) -> anyhow::Result<()> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.settings, &self.schema).await?,
        };
        let (client, statement) = self.connection.insert(connection);
        let mut runs = HashSet::new();
        let mut together = self.unanswered.iter().take(PIPELINE);
        let count = together.by_ref().take_while(|it| runs.insert(it.run_id)).count();
        let calls = self.unanswered.iter().take(count).map(|it| call(client, statement, it));
        let answers = join_all(calls).await;
        let mut refused = None;
        let mut broken = None;
        let mut again = VecDeque::new();
        for (append, answer) in self.unanswered.drain(..count).zip(answers) {
            match answer {
                Ok(()) => {}
                Err(error) if is_conflict(&error) => {
                    // Somebody else has written to the run, which then is theirs.
                    tracing::debug!(run_id = %append.run_id, "a sample run has moved on");
                }
                Err(error) if pg::class(&error) == Class::Transient => {
                    again.push_back(append);
                    broken = Some(error);
                }
                Err(error) => refused = Some(error),
            }
        }
        again.append(&mut self.unanswered);
        self.unanswered = again;
        if let Some(error) = refused {
            self.tell(error.into());
        }
        broken.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Logs a problem when it is another one than before.
    fn tell(&mut self, problem: anyhow::Error) {
        let text = format!("{problem:#}");
        if self.told != text {
            tracing::warn!(error = text, "the sample workload cannot append");
            self.told = text;
        }
    }
}

async fn connect(settings: &Settings, schema: &Ident) -> anyhow::Result<(Client, Statement)> {
    let client = pg::connect(settings, "projector dev workload").await?;
    let sql = format!("select from {schema}.append_events($1, $2, $3, $4)");
    let statement = client.prepare(&sql).await?;
    Ok((client, statement))
}

async fn call(
    client: &Client,
    statement: &Statement,
    append: &Append,
) -> Result<(), tokio_postgres::Error> {
    let Append { project_id, run_id, expected_version, events } = append;
    let events = Value::Array(events.clone());
    client.execute(statement, &[project_id, run_id, expected_version, &events]).await?;
    Ok(())
}

fn is_conflict(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::T_R_SERIALIZATION_FAILURE)
}
