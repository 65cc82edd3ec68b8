//! What operators want of projections: looked for in the control tables at every tick, whoever has
//! written it there.

use std::sync::Arc;

use tokio::time::{Duration, timeout};
use tokio_postgres::Client;

use crate::apply::control;
use crate::apply::rebuilds::{self, Unfinished, Wish};
use crate::definition::Definition;
use crate::engine::alone::undefined;
use crate::engine::error::EngineError;
use crate::engine::lane::{Change, Held};
use crate::engine::rebuild::PAUSED;
use crate::engine::rebuild::builds::Build;
use crate::engine::session::Session;
use crate::engine::session::prepare::{made_by, order};
use crate::engine::session::start::Running;

/// How long to wait for a lane to come to a boundary; the next tick tries again.
const PATIENCE: Duration = Duration::from_secs(2);

impl Session<'_> {
    /// Carries out what is wanted now.
    pub(super) async fn fulfil(
        &self,
        client: &Client,
        running: &mut Running,
    ) -> Result<(), EngineError> {
        let mut wanted = Vec::new();
        for wish in rebuilds::wishes(client).await? {
            let name = wish.projection.as_str();
            let Some(definition) = self.definitions.iter().find(|it| it.name == name) else {
                if let Some(it) = &wish.rebuild {
                    rebuilds::end(client, it.id, "failed", Some(&undefined(name))).await?;
                }
                continue;
            };
            if wish.is_paused {
                self.pause(client, running, &wish).await?;
            } else if running.paused.contains(name) {
                self.resume(client, running, definition).await?;
            } else if let Some(rebuild) = &wish.rebuild {
                wanted.extend(requested(running, rebuild, definition));
            }
        }
        running.builds.add(wanted);
        Ok(())
    }

    /// A projection leaves its lane at a boundary. Its checkpoint stays, and does not hold the slot.
    async fn pause(
        &self,
        client: &Client,
        running: &mut Running,
        wish: &Wish,
    ) -> Result<(), EngineError> {
        let name = wish.projection.as_str();
        running.builds.give_up(name, PAUSED);
        if running.lane_of(name).is_some() && !self.leave(running, name).await? {
            return Ok(());
        }
        if running.paused.insert(name.to_owned()) {
            tracing::info!(projection = name, "paused");
        }
        if wish.state.as_deref() != Some("paused") {
            control::set_state(client, name, "paused", None).await?;
        }
        Ok(())
    }

    /// A projection goes on from its checkpoint when its lane has passed over nothing since, and from
    /// history otherwise.
    async fn resume(
        &self,
        client: &Client,
        running: &mut Running,
        definition: &Arc<Definition>,
    ) -> Result<(), EngineError> {
        let name = definition.name.as_str();
        // the build that the pause has ended is on its way out
        if running.builds.has(name) {
            return Ok(());
        }
        let standings = control::standings(client).await?;
        let standing = standings.iter().find(|it| it.name == name);
        let current = standing
            .filter(|it| 0 < it.generation && it.has_table && made_by(it, definition).is_some());
        let Some(held) = self.hold(running, &definition.lane).await? else { return Ok(()) };
        let current = current.filter(|it| it.checkpoint.is_some_and(|at| held.position <= at));
        self.engine.status.mend(name);
        running.paused.remove(name);
        let Some((standing, by)) = current.and_then(|it| Some((it, made_by(it, definition)?)))
        else {
            drop(held);
            self.wait_for_rows(client, definition).await?;
            running.builds.add(vec![order(client, definition, "resume").await?]);
            return Ok(());
        };
        control::set_state(client, name, "live", None).await?;
        let is_current = by.hash == definition.hash;
        held.release(vec![Change::Put(self.joining(standing, by)?)]);
        tracing::info!(projection = name, "resumed");
        if !is_current {
            running.builds.add(vec![order(client, definition, "definition").await?]);
        }
        Ok(())
    }

    /// Takes a projection out of its lane; false when the lane has not come to a boundary in time.
    pub(super) async fn leave(
        &self,
        running: &Running,
        projection: &str,
    ) -> Result<bool, EngineError> {
        let Some(lane) = running.lane_of(projection) else { return Ok(true) };
        let Some(held) = self.hold(running, &lane).await? else { return Ok(false) };
        held.release(vec![Change::Remove(projection.to_owned())]);
        Ok(true)
    }

    pub(super) async fn hold(
        &self,
        running: &Running,
        lane: &str,
    ) -> Result<Option<Held>, EngineError> {
        let handle = running.handles.iter().find(|it| it.name == lane);
        let Some(handle) = handle else { return Err(EngineError::Redefined) };
        match timeout(PATIENCE, handle.hold()).await {
            Ok(Some(held)) => Ok(Some(held)),
            // why the lane has ended is told by its task
            Ok(None) | Err(_) => Ok(None),
        }
    }
}

/// The build that somebody has asked for, when nobody has begun it. One that is to be canceled is.
fn requested(
    running: &Running,
    rebuild: &Unfinished,
    definition: &Arc<Definition>,
) -> Option<Build> {
    let name = &definition.name;
    if rebuild.is_canceled {
        running.builds.give_up(name, "canceled");
        return None;
    }
    if !rebuild.is_requested || running.builds.has(name) {
        return None;
    }
    tracing::info!(projection = name, reason = "request", "is to be built from history");
    Some(Build::new(rebuild.id, Arc::clone(definition), true))
}
