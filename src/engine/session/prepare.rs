//! Which projections go on from their checkpoint, and which need new rows first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::Client;

use crate::apply::control::{self, Standing};
use crate::apply::generation::Tables;
use crate::apply::rebuilds;
use crate::definition::{Definition, hash_without_rules, parse};
use crate::engine::error::EngineError;
use crate::engine::lane::Joining;
use crate::engine::rebuild::builds::Build;
use crate::engine::session::Session;
use crate::lsn::Lsn;

/// Who does what from the start of a session.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Those that follow.
    pub(super) ready: Vec<Joining>,
    /// Those that are built beside the stream; one that follows may be among them.
    pub(super) builds: Vec<Build>,
    /// Those that rest.
    pub(super) paused: BTreeSet<String>,
}

impl Session<'_> {
    /// Sorts the projections. One whose checkpoint is `within` what the slot can give goes on from
    /// there, by the definition that made its rows; what its definition says now is built beside.
    pub(super) async fn prepare(
        &self,
        client: &Client,
        within: impl Fn(Lsn) -> bool,
    ) -> Result<Prepared, EngineError> {
        let standings: BTreeMap<String, Standing> =
            control::standings(client).await?.into_iter().map(|it| (it.name.clone(), it)).collect();
        let failures = self.engine.status.failures();
        let mut prepared = Prepared::default();
        for definition in &self.definitions {
            let name = &definition.name;
            let failure = failures.get(name);
            let standing = standings.get(name);
            if standing.is_some_and(|it| it.is_paused) {
                control::set_state(client, name, "paused", None).await?;
                prepared.paused.insert(name.clone());
                continue;
            }
            let is_out = failure.is_some_and(|it| !it.follows);
            if is_out && failure.is_some_and(|it| it.hash == definition.hash) {
                continue;
            }
            let usable = standing.filter(|it| !is_out && 0 < it.generation && it.has_table);
            let usable = usable.filter(|it| it.checkpoint.is_some_and(&within));
            let follows = usable.and_then(|it| Some((it, made_by(it, definition)?)));
            let is_current = standing.is_some_and(|it| it.definition_hash == definition.hash);
            if let Some((standing, definition)) = &follows {
                let error = failure.map(|it| it.error.as_str());
                if standing.state != "live" {
                    control::set_state(client, name, "live", error).await?;
                }
                prepared.ready.push(self.joining(standing, Arc::clone(definition))?);
            }
            if is_current {
                if failure.is_some_and(|it| it.hash != definition.hash) {
                    // the definition that failed is gone
                    self.engine.status.mend(name);
                }
                control::keep_text(client, name, &definition.hash, &definition.text).await?;
            }
            // what could not be built is not tried again while there is something that follows
            let is_hopeless =
                follows.is_some() && failure.is_some_and(|it| it.hash == definition.hash);
            if (is_current && follows.is_some()) || is_hopeless {
                continue;
            }
            let reason = match standing {
                Some(it) if it.generation != 0 && !is_current => "definition",
                Some(it) if it.generation != 0 && it.state == "paused" => "resume",
                Some(it) if it.generation != 0 => "slot",
                _ => "new",
            };
            if follows.is_none() {
                self.wait_for_rows(client, definition).await?;
            }
            prepared.builds.push(order(client, definition, reason).await?);
        }
        Ok(prepared)
    }

    /// A projection that goes on from where the control tables say.
    pub(super) fn joining(
        &self,
        standing: &Standing,
        definition: Arc<Definition>,
    ) -> Result<Joining, EngineError> {
        let tables = Tables::new(&definition, &self.engine.config.schema);
        Ok(Joining {
            table: tables.generation(standing.generation)?,
            checkpoint: standing.checkpoint.unwrap_or_default(),
            events: u64::try_from(standing.events).unwrap_or(0),
            definition,
        })
    }

    /// A projection that does not follow until it is built.
    pub(super) async fn wait_for_rows(
        &self,
        client: &Client,
        definition: &Definition,
    ) -> Result<(), EngineError> {
        let Definition { name, table, lane, .. } = definition;
        control::introduce(client, name, table.as_str(), lane).await?;
        control::set_state(client, name, "rebuilding", None).await?;
        Ok(())
    }
}

/// Enters a build that is needed.
pub(super) async fn order(
    client: &Client,
    definition: &Arc<Definition>,
    reason: &str,
) -> Result<Build, EngineError> {
    let id = rebuilds::open(client, &definition.name, reason).await?;
    tracing::info!(projection = definition.name, reason, "is to be built from history");
    Ok(Build::new(id, Arc::clone(definition), false))
}

/// The definition that made a projection's rows: the one of now, or the one that was kept with them.
pub(super) fn made_by(standing: &Standing, now: &Arc<Definition>) -> Option<Arc<Definition>> {
    if standing.definition_hash == now.hash {
        return Some(Arc::clone(now));
    }
    let text = standing.definition_text.as_deref()?;
    let mut before = parse(&now.file, text).ok()?;
    // rows of it are written together with those of the lane that it will be in
    before.lane.clone_from(&now.lane);
    // what it redacts, it redacts by the rules of now, and is still not what is wanted
    let made = &standing.definition_hash;
    let is_same = before.hash == hash_without_rules(made);
    before.hash.clone_from(made);
    (is_same && before.table == now.table && before.is_complete()).then(|| Arc::new(before))
}
