//! What somebody wants done about events that were set aside, done while their lane is held.

use tokio_postgres::Client;

use crate::apply::control;
use crate::apply::generation::Tables;
use crate::apply::letters::{self, Aside};
use crate::engine::error::EngineError;
use crate::engine::lane::Change;
use crate::engine::session::Session;
use crate::engine::session::prepare::made_by;
use crate::engine::session::start::Running;
use crate::history::retry::carry_out;

impl Session<'_> {
    /// Tries again, or gives up, what is requested.
    pub(super) async fn settle_letters(
        &self,
        client: &Client,
        running: &Running,
        aside: &[Aside],
    ) -> Result<(), EngineError> {
        for it in aside.iter().filter(|it| it.is_requested) {
            let name = it.projection.as_str();
            // one that is in no lane is looked at again when it is back
            let Some(lane) = running.lane_of(name) else { continue };
            let definition = self.definitions.iter().find(|it| it.name == name);
            let Some(definition) = definition else { continue };
            let standings = control::standings(client).await?;
            let Some(standing) = standings.iter().find(|it| it.name == name) else { continue };
            let Some(by) = made_by(standing, definition) else { continue };
            let Some(held) = self.hold(running, &lane).await? else { continue };
            let member = running
                .progress
                .lanes()
                .iter()
                .find_map(|lane| lane.members().into_iter().find(|member| member.name == name));
            let Some(expected) = member.map(|it| it.checkpoint()) else { continue };
            let tables = Tables::new(&by, &self.engine.config.schema);
            let table = tables.generation(standing.generation)?;
            let source = self.engine.history();
            let done = carry_out(&source, &by, &table, expected).await;
            // whatever came of it, the lane is to know what is parked now
            held.release(vec![Change::Parked(name.to_owned())]);
            match done {
                Ok(done) => tracing::info!(
                    projection = name,
                    freed = done.freed,
                    parked = done.parked,
                    "dead letters were dealt with"
                ),
                Err(error) => {
                    let error = EngineError::from(error).chain();
                    tracing::warn!(
                        projection = name,
                        error,
                        "dead letters could not be dealt with"
                    );
                    // who asked may ask again
                    letters::withdraw(client, name).await?;
                }
            }
        }
        Ok(())
    }
}
