//! How a finished generation begins to serve, between two transactions of its lane.
//!
//! ```text
//! are readers out of the way? ─▶ hold the lane at P ─▶ follow exactly to P ─▶ lock ─▶ swap ─▶ release
//!        │ no: wait, longer each time                                          │ no
//!        ◀─────────────────────────────────────────────────────────────────────┘ release
//! ```
//!
//! The lane is held before the lock is taken, never after it: a statement of the lane may need the
//! parent (to read its partition's bounds anew, after a vacuum), and would wait for a lock that waits
//! for the lane. So that the lane is not held while somebody reads for long, the lock is tried before.
//!
//! A transaction that sees the database as it was before the tables were filled, and reads the read
//! model for the first time after the swap, would find it empty: rows are seen by the snapshot, the
//! partition by the catalogue of now. So that is waited for, too, though not for ever.
//!
//! The commit that swaps also ends the rows in `projector.rebuilds`, and only when they still are this
//! process' own: a process that was thought dead changes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::apply::rebuilds;
use crate::engine::error::EngineError;
use crate::engine::lane::{Change, Held, Joining};
use crate::engine::rebuild::Rebuilder;
use crate::engine::rebuild::attempt::{Filled, Group};
use crate::history::error::BuildError;
use crate::history::install::{Install, install, lock};
use crate::ident::QualifiedName;
use crate::lsn::Lsn;

/// How long readers may hold up the lock at a time, while the lane works: others queue behind us.
const PATIENCE: Duration = Duration::from_millis(500);
/// And while the lane is held.
const PATIENCE_HELD: Duration = Duration::from_millis(50);
/// How long to wait for a lane to come to a boundary.
const PATIENCE_LANE: Duration = Duration::from_secs(5);
/// How long readers are left alone after that, at first and at last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How long to wait for transactions that would find the new tables empty.
const PATIENCE_OLD: Duration = Duration::from_secs(600);

/// What keeps a swap from happening now.
enum Obstacle {
    /// Somebody reads the tables.
    Readers,
    /// Somebody's snapshot is older than the new tables.
    Old(String),
    Lane,
}

impl Rebuilder {
    /// Puts the tables of a group in place, whenever readers let it.
    pub(super) async fn swap(
        &self,
        client: &Client,
        group: &Group,
        filled: &mut Filled,
        attempt: &CancellationToken,
    ) -> Result<(), EngineError> {
        self.builds.enter(&group.names, "swap");
        let position = self.position(client, group).await?;
        self.write_down(client, group, Some(position)).await?;
        let mut pause = PAUSES.0;
        let mut told = false;
        let begun = Instant::now();
        // a transaction that begins from here on sees what was filled and followed so far
        let next = "select (pg_snapshot_xmax(pg_current_snapshot())::xid)::text";
        let seen_from: String = client.query_one(next, &[]).await?.try_get(0)?;
        loop {
            if attempt.is_cancelled() {
                return Err(BuildError::Canceled.into());
            }
            let old = match old_snapshots(client, &seen_from).await? {
                Some(_) if PATIENCE_OLD <= begun.elapsed() => None,
                old => old,
            };
            let tried = match old {
                Some(who) => {
                    filled.follower.to(self.position(client, group).await?).await?;
                    Err(Obstacle::Old(who))
                }
                None => self.try_swap(client, group, filled).await?,
            };
            let Err(obstacle) = tried else { return Ok(()) };
            let what = match obstacle {
                Obstacle::Old(who) => format!("transactions that began before, those of {who}"),
                Obstacle::Readers => readers(client, group).await?,
                Obstacle::Lane => "its lane to come to the end of a transaction".to_owned(),
            };
            let projections = group.names.join(",");
            if told {
                tracing::debug!(projections, waiting_for = what, "the swap still waits");
            } else {
                tracing::warn!(projections, waiting_for = what, "the swap waits");
            }
            told = true;
            self.builds.wait_for(&group.names, Some(&what));
            let position = self.position(client, group).await?;
            self.write_down(client, group, Some(position)).await?;
            tokio::select! {
                () = attempt.cancelled() => {}
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn try_swap(
        &self,
        client: &Client,
        group: &Group,
        filled: &mut Filled,
    ) -> Result<Result<(), Obstacle>, EngineError> {
        if !lock(client, &group.parents, PATIENCE).await? {
            // the server hangs up on a stream that says nothing
            filled.follower.to(self.position(client, group).await?).await?;
            return Ok(Err(Obstacle::Readers));
        }
        client.batch_execute("rollback").await?;
        let position = self.position(client, group).await?;
        filled.follower.to(position).await?;
        let mut held = if self.is_alone {
            None
        } else {
            let Some(held) = self.hold(group).await? else { return Ok(Err(Obstacle::Lane)) };
            Some(held)
        };
        // what fails before the commit drops `held`, and the lane goes on as it was
        let started = Instant::now();
        let position = held.as_ref().map_or(position, |it| it.position);
        let placed = self.put_in_place(client, group, filled, position, held.as_mut()).await?;
        let Some((limit, changes)) = placed else { return Ok(Err(Obstacle::Readers)) };
        if let Some(held) = held {
            held.release(changes);
        }
        tracing::info!(
            projections = group.names.join(","),
            events = filled.events + filled.follower.events(),
            lsn = %limit,
            held_ms = started.elapsed().as_millis(),
            "built from history; the new rows serve"
        );
        Ok(Ok(()))
    }

    /// Holds the lane of a group; nothing when it does not come to a boundary in time.
    async fn hold(&self, group: &Group) -> Result<Option<Held>, EngineError> {
        let name = &self.lane(group)?.name;
        let handle = self.lanes.iter().find(|it| it.name == *name);
        let handle = handle.ok_or(EngineError::Vanished("lane"))?;
        match timeout(PATIENCE_LANE, handle.hold()).await {
            Ok(Some(held)) => Ok(Some(held)),
            Ok(None) => Err(EngineError::Vanished("lane")),
            Err(_) => Ok(None),
        }
    }

    /// Brings the tables to where the lane stands, and swaps. Gives the position and what the lane
    /// is to do from now on, or nothing when a reader was in the way.
    async fn put_in_place(
        &self,
        client: &Client,
        group: &Group,
        filled: &mut Filled,
        position: Lsn,
        mut held: Option<&mut Held>,
    ) -> Result<Option<(Lsn, Vec<Change>)>, EngineError> {
        // the lane stands still, so the checkpoints do. One may be ahead of the lane's position, when
        // the stream has not come to it yet.
        let checkpoints = checkpoints(client, &group.names).await?;
        let limit = checkpoints.values().copied().fold(position, Ord::max);
        filled.follower.to(limit).await?;
        if !lock(client, &group.parents, PATIENCE_HELD).await? {
            return Ok(None);
        }
        let events = filled.events + filled.follower.events();
        let own: Vec<_> = group.members.iter().map(|it| (it.id, it.generation)).collect();
        if !rebuilds::succeed(client, &own, limit, events).await? {
            client.batch_execute("rollback").await?;
            return Err(EngineError::Vanished("rebuild"));
        }
        let installs: Vec<_> = group
            .members
            .iter()
            .map(|it| Install {
                definition: &it.definition,
                generation: it.generation,
                table: &it.table,
                checkpoint: limit,
                events,
                expected: checkpoints.get(&it.definition.name).copied(),
            })
            .collect();
        // without an answer to the commit nobody knows which generation serves. The lane must not move
        // a checkpoint over events that only the new rules take, so these projections leave it.
        if let Some(held) = &mut held {
            held.if_dropped(group.names.iter().cloned().map(Change::Remove).collect());
        }
        if let Err(error) = install(client, &self.engine.config.schema, &installs).await {
            let lost = client.is_closed()
                || matches!(&error, BuildError::Read(it) if it.as_db_error().is_none());
            if lost {
                return Err(EngineError::Unsure(Box::new(error)));
            }
            if let Some(held) = held {
                held.if_dropped(Vec::new());
            }
            return Err(error.into());
        }
        let put = group.members.iter().map(|it| {
            Change::Put(Joining {
                definition: it.definition.clone(),
                table: it.table.clone(),
                checkpoint: limit,
                events,
            })
        });
        Ok(Some((limit, put.collect())))
    }
}

/// The checkpoints of those projections that have one.
async fn checkpoints(
    client: &Client,
    names: &[String],
) -> Result<BTreeMap<String, Lsn>, EngineError> {
    let sql = "select projection, lsn from projector.checkpoints where projection = any ($1)";
    let rows = client.query(sql, &[&names]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Who sees the database as it was before transaction `seen_from`, in a line.
async fn old_snapshots(client: &Client, seen_from: &str) -> Result<Option<String>, EngineError> {
    let sql = format!(
        "select {WHO} from pg_stat_activity a
         where a.pid <> pg_backend_pid() and a.datname = current_database()
           and a.backend_type = 'client backend' and age($1::text::xid) < age(a.backend_xmin)
         order by a.xact_start limit 3"
    );
    let rows = client.query(&sql, &[&seen_from]).await?;
    let who = rows.iter().map(|row| row.try_get::<_, String>(0)).collect::<Result<Vec<_>, _>>()?;
    Ok((!who.is_empty()).then(|| who.join(", ")))
}

/// A backend in a few words.
const WHO: &str = "format('pid %s (%s, %s since %s)', a.pid,
     coalesce(nullif(a.application_name, ''), a.usename, 'unknown'),
     coalesce(a.state, 'at work'), to_char(coalesce(a.xact_start, a.query_start), 'HH24:MI:SS'))";

/// Who holds the tables, in a line.
async fn readers(client: &Client, group: &Group) -> Result<String, EngineError> {
    let names: Vec<_> = group.parents.iter().map(ToString::to_string).collect();
    let plain = |it: &QualifiedName| format!("{}.{}", it.schema.as_str(), it.name.as_str());
    let tables: Vec<_> = group.parents.iter().map(plain).collect();
    let sql = format!(
        "select {WHO} from pg_stat_activity a
         where a.pid <> pg_backend_pid() and a.pid in (
           select l.pid from pg_locks l
           where l.granted and l.relation in (select to_regclass(it) from unnest($1::text[]) it))
         order by a.xact_start limit 3"
    );
    let rows = client.query(&sql, &[&names]).await?;
    let who = rows.iter().map(|row| row.try_get::<_, String>(0)).collect::<Result<Vec<_>, _>>()?;
    let who = if who.is_empty() { "readers".to_owned() } else { who.join(", ") };
    Ok(format!("a lock on {}, held by {who}", tables.join(", ")))
}
