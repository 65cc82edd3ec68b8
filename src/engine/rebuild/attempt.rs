//! An attempt to build: from an anchor to tables that are nearly up to date.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::apply::control;
use crate::apply::generation::Tables;
use crate::apply::rebuilds::{self, Stage};
use crate::definition::Definition;
use crate::engine::error::EngineError;
use crate::engine::progress::LaneProgress;
use crate::engine::rebuild::{APPLICATION, Rebuilder, disk, log};
use crate::history::anchor::Anchor;
use crate::history::error::BuildError;
use crate::history::fill::{Purpose, fill};
use crate::history::follow::Follower;
use crate::history::key::check_key;
use crate::history::source::{Source, Target};
use crate::history::tape::Tape;
use crate::ident::{Ident, QualifiedName};
use crate::lsn::Lsn;
use crate::pg;

/// How often progress is written down.
const TELL: Duration = Duration::from_secs(1);
/// Log that is followed in no time.
const NEAR_BYTES: u64 = 256 * 1024;
/// After so many rounds that left no less than the one before, what remains grows as fast as it is
/// followed. Then only a lane that stands still can be caught up with.
const VAIN_ROUNDS: u32 = 3;
/// How often it is looked whether the lane has come to the anchor.
const LOOK: Duration = Duration::from_millis(50);

/// Distinguishes the temporary slots of this process.
static ATTEMPTS: AtomicU32 = AtomicU32::new(0);

/// Generations that are made in one pass and swapped together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) names: Vec<String>,
    pub(super) members: Vec<Member>,
    /// What is told of all of them.
    pub(super) ids: Vec<i64>,
    pub(super) parents: Vec<QualifiedName>,
}

/// A generation that is being made.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: i64,
    pub(super) definition: Arc<Definition>,
    pub(super) generation: i32,
    pub(super) table: QualifiedName,
}

/// Tables that a follower keeps up to date.
pub(super) struct Filled {
    pub(super) follower: Follower,
    /// Events that the snapshot saw.
    pub(super) events: u64,
    /// What the snapshot saw ends here.
    anchor: Lsn,
}

/// The name of a temporary slot that nobody else uses.
pub(in crate::engine) fn slot_name() -> Result<Ident, EngineError> {
    let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    Ok(Ident::new(format!("projector_build_{}_{attempt}", std::process::id()))?)
}

impl Rebuilder {
    /// Builds these projections and puts them in place, without those that were given up.
    pub(super) async fn attempt(
        &self,
        source: &Source,
        names: &[String],
        attempt: &CancellationToken,
    ) -> Result<(), EngineError> {
        let client = pg::connect(&self.engine.settings, APPLICATION).await?;
        // what an attempt before has left; nothing else is being built
        rebuilds::sweep(&client).await?;
        let group = self.begin(&client, names).await?;
        if group.members.is_empty() {
            return Ok(());
        }
        disk::ask(&client, &group, self.is_request(&group)).await?;
        for it in &group.members {
            check_key(&client, &self.engine.config.schema, &it.definition).await?;
        }
        let ended = self.carry_out(source, &client, &group, attempt).await;
        if ended.is_err() && !client.is_closed() {
            rebuilds::sweep(&client).await?;
        }
        ended
    }

    async fn carry_out(
        &self,
        source: &Source,
        client: &Client,
        group: &Group,
        attempt: &CancellationToken,
    ) -> Result<(), EngineError> {
        let slot = slot_name()?;
        let (anchor, tape) = tokio::select! {
            taken = Anchor::take(source, &slot) => taken?,
            () = attempt.cancelled() => return Err(BuildError::Canceled.into()),
        };
        // where nothing streams nobody makes the sidecar's slot move
        let followed = (!self.is_alone).then(|| self.engine.config.source.slot.clone());
        let is_request = self.is_request(group);
        let mut allowance = log::Allowance::new(slot, followed, is_request, anchor.lsn);
        let begun = (anchor, tape, &mut allowance);
        let ended = self.make(source, client, group, begun, attempt).await;
        let filled = match ended {
            Ok(filled) => filled,
            Err(error) if attempt.is_cancelled() => return Err(error),
            Err(error) => return Err(allowance.explain(client, error).await),
        };
        for name in &group.names {
            self.engine.status.mend(name);
            self.builds.remove(name);
        }
        if let Err(error) = filled.follower.finish().await {
            tracing::debug!(%error, "the temporary slot goes with its connection");
        }
        Ok(())
    }

    /// From an anchor to tables that serve.
    async fn make(
        &self,
        source: &Source,
        client: &Client,
        group: &Group,
        begun: (Anchor, Tape, &mut log::Allowance),
        attempt: &CancellationToken,
    ) -> Result<Filled, EngineError> {
        let mut filled = self.fill(source, client, group, begun, attempt).await?;
        self.catch_up(client, group, &mut filled, attempt).await?;
        self.swap(client, group, &mut filled, attempt).await?;
        Ok(filled)
    }

    /// Whether somebody asked for one of them.
    fn is_request(&self, group: &Group) -> bool {
        self.builds.get(&group.names).iter().any(|it| it.is_request)
    }

    /// Says that the builds have begun, and numbers their generations. Those given up end here.
    async fn begin(&self, client: &Client, names: &[String]) -> Result<Group, EngineError> {
        let schema = &self.engine.config.schema;
        let mut members = Vec::with_capacity(names.len());
        let mut parents = Vec::with_capacity(names.len());
        for build in self.builds.get(names) {
            if let Some(why) = &build.given_up {
                self.canceled(client, &build, why).await?;
                continue;
            }
            let definition = Arc::clone(&build.definition);
            let Some(generation) = rebuilds::begin(client, build.id).await? else {
                self.canceled(client, &build, "canceled").await?;
                continue;
            };
            control::set_state(client, &definition.name, "rebuilding", None).await?;
            let tables = Tables::new(&definition, schema);
            parents.push(tables.parent().clone());
            let table = tables.generation(generation)?;
            members.push(Member { id: build.id, definition, generation, table });
        }
        let names = members.iter().map(|it| it.definition.name.clone()).collect();
        let ids = members.iter().map(|it| it.id).collect();
        Ok(Group { names, members, ids, parents })
    }

    /// Fills the tables with history.
    async fn fill(
        &self,
        source: &Source,
        client: &Client,
        group: &Group,
        (anchor, mut tape, allowance): (Anchor, Tape, &mut log::Allowance),
        attempt: &CancellationToken,
    ) -> Result<Filled, EngineError> {
        let projections = group.names.join(",");
        let (lsn, started) = (anchor.lsn, Instant::now());
        tracing::info!(projections, %lsn, "building from history");
        self.builds.enter(&group.names, "fold");
        let target = |it: &Member| Target {
            definition: Arc::clone(&it.definition),
            table: it.table.clone(),
        };
        let targets: Vec<_> = group.members.iter().map(target).collect();
        let (builds, names) = (Arc::clone(&self.builds), group.names.clone());
        let tell = move |progress| builds.fold(&names, progress);
        let mut tick = interval(TELL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let filling = {
            let (source, targets, attempt) = (source.clone(), targets.clone(), attempt.clone());
            async move {
                let filled = fill(&source, &anchor, &targets, Purpose::Serve, tell, &attempt).await;
                // the server need not keep what only history had to see
                drop(anchor);
                filled
            }
        };
        let mut filling = AbortOnDropHandle::new(self.folding.spawn(filling));
        let filled = loop {
            tokio::select! {
                filled = &mut filling => break filled.map_err(BuildError::from)??,
                Err(error) = tape.record() => return Err(error.into()),
                _ = tick.tick() => {
                    let bytes = allowance.ask(client).await?;
                    source.pace.allow(bytes);
                    self.builds.wait_for(&group.names, (bytes == 0).then_some(log::WAITS));
                    self.write_down(client, group, Some(lsn)).await?;
                }
            }
        };
        let events = filled.events;
        let duration_ms = started.elapsed().as_millis();
        tracing::info!(projections, events, %lsn, duration_ms, "history folded; catching up");
        self.builds.enter(&group.names, "catch_up");
        tokio::select! {
            come = self.come_to(client, group, lsn, attempt) => come?,
            Err(error) = tape.record() => return Err(error.into()),
        }
        let follower = Follower::start(source, tape, &targets).await?;
        Ok(Filled { follower, events, anchor: lsn })
    }

    /// Waits for a lane that has not come to the anchor yet: the new rows must not be ahead of those
    /// they replace, nor of their neighbours.
    async fn come_to(
        &self,
        client: &Client,
        group: &Group,
        anchor: Lsn,
        attempt: &CancellationToken,
    ) -> Result<(), EngineError> {
        let mut tick = interval(TELL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.position(client, group).await? < anchor {
            tokio::select! {
                () = attempt.cancelled() => return Err(BuildError::Canceled.into()),
                () = sleep(LOOK) => {}
                _ = tick.tick() => {
                    self.write_down(client, group, Some(anchor)).await?;
                    // a lane in a quiet database moves when it is spoken to
                    self.nudge(client).await?;
                }
            }
        }
        Ok(())
    }

    /// Follows until the tables are about where their lane is.
    async fn catch_up(
        &self,
        client: &Client,
        group: &Group,
        filled: &mut Filled,
        attempt: &CancellationToken,
    ) -> Result<(), EngineError> {
        self.write_down(client, group, Some(filled.anchor)).await?;
        let mut told = Instant::now();
        let (mut least, mut in_vain) = (u64::MAX, 0);
        loop {
            if attempt.is_cancelled() {
                return Err(BuildError::Canceled.into());
            }
            let position = self.position(client, group).await?;
            if TELL <= told.elapsed() {
                told = Instant::now();
                self.write_down(client, group, Some(position)).await?;
            }
            filled.follower.to(position).await?;
            let remaining = self.position(client, group).await?.bytes_since(position);
            if remaining < NEAR_BYTES {
                return Ok(());
            }
            in_vain = if remaining < least { 0 } else { in_vain + 1 };
            least = least.min(remaining);
            if VAIN_ROUNDS <= in_vain {
                tracing::warn!(
                    projections = group.names.join(","),
                    remaining_bytes = remaining,
                    "events come as fast as the new rows follow; the lane is held for the rest"
                );
                return Ok(());
            }
        }
    }

    /// Lets the lanes' positions come up to the end of the log, where nothing else is on its way.
    async fn nudge(&self, client: &Client) -> Result<(), EngineError> {
        let sql = "select pg_logical_emit_message(false, 'projector', 'wait')";
        client.execute(sql, &[]).await?;
        Ok(())
    }

    /// Where the lane of a group is; where there are no lanes, the end of the log.
    pub(super) async fn position(
        &self,
        client: &Client,
        group: &Group,
    ) -> Result<Lsn, EngineError> {
        if !self.is_alone {
            return Ok(self.lane(group)?.committed());
        }
        let row = client.query_one("select pg_current_wal_flush_lsn()", &[]).await?;
        Ok(row.try_get(0)?)
    }

    /// The lane of a group.
    pub(super) fn lane(&self, group: &Group) -> Result<&LaneProgress, EngineError> {
        let name = group.members.first().map(|it| it.definition.lane.as_str());
        let lane = self.progress.lanes().iter().find(|it| Some(it.name.as_str()) == name);
        lane.ok_or(EngineError::Vanished("lane"))
    }

    /// Writes down how far the builds of a group are.
    pub(super) async fn write_down(
        &self,
        client: &Client,
        group: &Group,
        lsn: Option<Lsn>,
    ) -> Result<(), EngineError> {
        let statuses = self.builds.statuses();
        let Some(status) = group.names.iter().find_map(|it| statuses.get(it)) else {
            return Ok(());
        };
        let stage = Stage {
            phase: &status.phase,
            done: status.done,
            total: (status.total != 0).then_some(status.total),
            lsn,
            waiting_for: status.waiting_for.as_deref(),
        };
        rebuilds::tell(client, &group.ids, &stage).await?;
        Ok(())
    }
}
