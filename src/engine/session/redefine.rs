//! Definitions that change while the session runs.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::apply::control;
use crate::definition::Definition;
use crate::engine::error::EngineError;
use crate::engine::rebuild::GONE;
use crate::engine::session::Session;
use crate::engine::session::prepare::order;
use crate::engine::session::start::Running;

impl Session<'_> {
    /// Does what it takes to come from the definitions of before to those of `now`: what has changed is
    /// built beside, what is gone is left alone. Other lanes than before are a matter of a new
    /// session, and so is what was changed back before it was built.
    pub(super) async fn redefine(
        &mut self,
        client: &Client,
        running: &mut Running,
        now: Vec<Arc<Definition>>,
    ) -> Result<(), EngineError> {
        let before = std::mem::replace(&mut self.definitions, now);
        let standings = control::standings(client).await?;
        let mut wanted = Vec::new();
        for definition in &self.definitions {
            let name = &definition.name;
            let known = before.iter().find(|it| it.name == *name);
            let lane = known.map_or_else(
                || {
                    running
                        .handles
                        .iter()
                        .find(|it| it.name == definition.lane)
                        .map(|it| it.name.as_str())
                },
                |it| Some(it.lane.as_str()),
            );
            if lane != Some(definition.lane.as_str()) {
                return Err(EngineError::Redefined);
            }
            if known.is_some_and(|it| it.hash == definition.hash) {
                control::keep_text(client, name, &definition.hash, &definition.text).await?;
                continue;
            }
            let standing = standings.iter().find(|it| it.name == *name);
            let is_back = standing.is_some_and(|it| it.definition_hash == definition.hash);
            if is_back || standing.is_some_and(|it| it.state == "detached") {
                return Err(EngineError::Redefined);
            }
            self.engine.status.mend(name);
            if running.paused.contains(name) || running.builds.redefine(definition) {
                continue;
            }
            let is_new = standing.is_none_or(|it| it.generation == 0);
            if running.lane_of(name).is_none() {
                self.wait_for_rows(client, definition).await?;
            }
            let reason = if is_new { "new" } else { "definition" };
            wanted.push(order(client, definition, reason).await?);
        }
        running.builds.add(wanted);
        for gone in before {
            if self.definitions.iter().any(|it| it.name == gone.name) {
                continue;
            }
            running.builds.give_up(&gone.name, GONE);
            if !self.leave(running, &gone.name).await? {
                return Err(EngineError::Redefined);
            }
            running.paused.remove(&gone.name);
        }
        self.detach(client).await
    }

    /// Marks what no definition makes any more.
    pub(super) async fn detach(&self, client: &Client) -> Result<(), EngineError> {
        let names: Vec<_> = self.definitions.iter().map(|it| it.name.clone()).collect();
        for name in control::detach_all_but(client, &names).await? {
            self.engine.status.mend(&name);
            tracing::info!(projection = name, "definition gone; its rows stay");
        }
        Ok(())
    }
}
