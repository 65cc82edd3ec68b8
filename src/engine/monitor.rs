//! Watches from outside: lag is the head of the server's log minus what is applied, asked of the
//! server and not of the tasks that do the work.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tokio_postgres::{Client, Error as PgError};

use crate::apply::letters::Aside;
use crate::definition::Definition;
use crate::engine::now;
use crate::engine::progress::{LaneProgress, MemberProgress, Progress};
use crate::engine::status::{ProjectionStatus, RebuildStatus, SourceStatus, State, Status};
use crate::engine::{Engine, Failure};
use crate::event::Timestamp;
use crate::lsn::Lsn;

/// Log that has no event for us yet counts as lag only beyond this: our own commits are log too.
const NOISE_BYTES: u64 = 1024 * 1024;

/// What the server was last asked, and the counts before.
pub(super) struct Monitor {
    progress: Arc<Progress>,
    definitions: Vec<Arc<Definition>>,
    source: SourceStatus,
    counted: HashMap<String, (Instant, u64, f64)>,
    publication: String,
    /// As it was at the first look.
    publication_oid: Option<Option<u32>>,
}

/// What the server was seen to be like.
pub(super) struct Seen {
    /// How much log the server keeps for the slot, in bytes: what the slot's limit is about.
    pub(super) kept_bytes: u64,
    /// Whether the publication is there and is the one of the first look. From version 18 on the
    /// server passes over the changes of a publication that is missing, without an error.
    pub(super) same_publication: bool,
}

/// What the lanes do not tell.
pub(super) struct Outside<'a> {
    pub(super) failures: BTreeMap<String, Failure>,
    pub(super) rebuilds: BTreeMap<String, RebuildStatus>,
    /// Projections that are to rest.
    pub(super) paused: &'a BTreeSet<String>,
    /// What is set aside.
    pub(super) aside: Vec<Aside>,
}

impl Monitor {
    pub(super) fn new(
        engine: &Engine,
        progress: Arc<Progress>,
        system_identifier: &str,
        server_version: &str,
    ) -> Self {
        let source = SourceStatus {
            system_identifier: Some(system_identifier.to_owned()),
            server_version: Some(server_version.to_owned()),
            slot: engine.config.source.slot.as_str().to_owned(),
            limit_bytes: Some(engine.config.limits.max_slot_lag.bytes()),
            ..SourceStatus::default()
        };
        let definitions = engine.definitions.now();
        let publication = engine.config.source.publication.as_str().to_owned();
        let counted = HashMap::new();
        Self { progress, definitions, source, counted, publication, publication_oid: None }
    }

    /// Asks the server.
    pub(super) async fn look(&mut self, client: &Client) -> Result<Seen, PgError> {
        let sql = "select pg_current_wal_flush_lsn(), s.restart_lsn, s.wal_status,
               (select oid from pg_publication where pubname = $2::text::name)
             from (values (1)) one left join pg_replication_slots s on s.slot_name = $1::text::name";
        let row = client.query_one(sql, &[&self.source.slot, &self.publication]).await?;
        let publication: Option<u32> = row.try_get(3)?;
        let known = *self.publication_oid.get_or_insert(publication);
        let head: Lsn = row.try_get(0)?;
        let restart: Option<Lsn> = row.try_get(1)?;
        self.source.head = head;
        self.progress.flush(head);
        self.source.wal_status = row.try_get(2)?;
        self.source.retained_bytes = restart.map_or(0, |it| head.bytes_since(it));
        Ok(Seen {
            kept_bytes: self.source.retained_bytes,
            same_publication: publication.is_some() && publication == known,
        })
    }

    /// Writes down what is known now.
    pub(super) fn describe(&mut self, status: &mut Status, outside: Outside<'_>) {
        let Outside { failures, mut rebuilds, paused, aside } = outside;
        self.source.received = self.progress.received();
        self.source.acknowledged = self.progress.acknowledged();
        status.source = self.source.clone();
        let mut list = Vec::with_capacity(self.definitions.len());
        for definition in &self.definitions.clone() {
            let named = |it: &Arc<MemberProgress>| it.name == definition.name;
            let lanes = self.progress.lanes();
            let member = lanes
                .iter()
                .find_map(|lane| lane.members().into_iter().find(named).map(|it| (lane, it)));
            let failure = failures.get(&definition.name);
            let mut entry = blank(definition);
            if let Some((lane, member)) = member {
                (entry.lag_bytes, entry.lag_seconds) = self.lag(lane, &member);
                entry.state = if self.is_behind(lane) { State::CatchingUp } else { State::Live };
                entry.checkpoint = Some(member.checkpoint());
                entry.events_total = member.events();
            }
            if let Some(aside) = aside.iter().find(|it| it.projection == definition.name) {
                entry.dead_letters = aside.letters;
                entry.parked_keys = aside.keys;
                entry.oldest_parked_seconds = aside.oldest_seconds;
                if entry.state == State::Live {
                    entry.state = State::Degraded;
                }
            }
            entry.rebuild = rebuilds.remove(&definition.name);
            if entry.rebuild.is_some() {
                entry.state = State::Rebuilding;
                entry.progress = entry.rebuild.as_ref().map(progress);
            } else if paused.contains(&definition.name) {
                entry.state = State::Paused;
            } else if failure.is_some_and(|it| !it.follows) {
                entry.state = State::Failed;
            }
            entry.error = failure.map(|it| it.error.clone());
            entry.events_per_second = self.rate(&definition.name, entry.events_total);
            list.push(entry);
        }
        status.projections = list;
    }

    /// Other definitions from now on.
    pub(super) fn redefine(&mut self, definitions: Vec<Arc<Definition>>) {
        self.definitions = definitions;
    }

    /// Bytes and seconds between the head and a projection. Log that was received and held nothing
    /// for us is applied in the sense that nothing of it is missing.
    fn lag(&self, lane: &LaneProgress, member: &MemberProgress) -> (u64, f64) {
        let applied = if self.progress.is_idle() {
            member.checkpoint().max(self.progress.received())
        } else {
            member.checkpoint()
        };
        let bytes = self.source.head.bytes_since(applied);
        if bytes < NOISE_BYTES && self.progress.is_idle() {
            return (bytes, 0.0);
        }
        let seconds = lane.applied_at().map_or(0.0, |at| seconds_between(at, now()));
        (bytes, seconds)
    }

    fn is_behind(&self, lane: &LaneProgress) -> bool {
        let applied = lane.committed().max(if self.progress.is_idle() {
            self.progress.received()
        } else {
            Lsn::ZERO
        });
        16 * NOISE_BYTES < self.source.head.bytes_since(applied)
    }

    /// Events a second, smoothed over a few looks.
    fn rate(&mut self, name: &str, events: u64) -> f64 {
        let at = Instant::now();
        let known = self.counted.get(name).copied();
        let rate = known.map_or(0.0, |(before, count, rate)| {
            let seconds = at.duration_since(before).as_secs_f64();
            let new = ratio(events.saturating_sub(count), 1) / seconds.max(0.001);
            0.5 * rate + 0.5 * new
        });
        let rate = if rate < 0.05 { 0.0 } else { rate };
        self.counted.insert(name.to_owned(), (at, events, rate));
        rate
    }
}

fn blank(definition: &Definition) -> ProjectionStatus {
    let mut entry = unknown(&definition.name);
    definition.table.as_str().clone_into(&mut entry.table);
    entry.lane.clone_from(&definition.lane);
    entry
}

fn unknown(name: &str) -> ProjectionStatus {
    ProjectionStatus {
        name: name.to_owned(),
        table: name.to_owned(),
        lane: "default".to_owned(),
        state: State::Rebuilding,
        checkpoint: None,
        lag_bytes: 0,
        lag_seconds: 0.0,
        events_total: 0,
        events_per_second: 0.0,
        error: None,
        progress: None,
        dead_letters: 0,
        parked_keys: 0,
        oldest_parked_seconds: 0.0,
        rebuild: None,
    }
}

fn progress(it: &RebuildStatus) -> f64 {
    if it.total == 0 { 0.0 } else { ratio(it.done, it.total).min(1.0) }
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> f64 {
    let micros = u64::try_from(later.0.saturating_sub(earlier.0)).unwrap_or(0);
    std::time::Duration::from_micros(micros).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact beyond 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
