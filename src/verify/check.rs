//! The procedure: history into scratch tables, both brought to one position, and compared.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;
use tokio_postgres::{Client, Error as PgError};
use tokio_util::sync::CancellationToken;

use crate::apply::control::{self, Standing};
use crate::apply::error::WriteError;
use crate::definition::Definition;
use crate::history::anchor::Anchor;
use crate::history::error::BuildError;
use crate::history::fill::{Purpose, drop_tables, fill};
use crate::history::follow::Follower;
use crate::history::source::{BuildProgress, Source, Target};
use crate::ident::{Ident, QualifiedName};
use crate::lsn::Lsn;
use crate::pg;
use crate::verify::compare::{Differences, Parked, compare};
use crate::verify::error::VerifyError;
use crate::verify::shape::Shape;
use crate::verify::{quiet, scratch};

/// How often the server hears of the slot's reader while rows are compared.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// What is being done.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Waits for the slot's beginning, and with it for transactions that are open elsewhere.
    Anchor,
    /// Folds history.
    Fold(BuildProgress),
    /// Waits for the live rows to come to where history was read.
    Wait(Lsn),
    /// Brings history to where the live rows are.
    Follow(Lsn),
    /// Compares a projection's rows.
    Compare {
        /// Whose.
        projection: String,
        /// Rows compared.
        done: u64,
    },
}

/// How a read model compares with history.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The projection.
    pub projection: String,
    /// The position at which both were compared.
    pub lsn: String,
    /// Keys that were left out because their events are set aside.
    pub parked_keys: usize,
    /// What was found.
    #[serde(flatten)]
    pub differences: Differences,
}

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where history is.
    pub source: Source,
    /// The slot that the sidecar follows.
    pub slot: Ident,
    /// Which read models.
    pub definitions: Vec<Arc<Definition>>,
    /// How many differences of each are kept.
    pub limit: usize,
}

/// A projection under comparison.
struct Subject {
    definition: Arc<Definition>,
    shape: Shape,
    parent: QualifiedName,
    scratch: QualifiedName,
    /// The position of its rows in the snapshot that they are read in.
    lsn: Lsn,
    parked: Parked,
}

/// Compares read models with history. Nothing waits for it, but a swap of one of the tables does
/// while its rows are read.
///
/// # Errors
/// See [`VerifyError`]. Whatever it ends with, no slot and no table remains.
pub async fn verify(
    request: &Request,
    mut tell: impl FnMut(Stage) + Send,
    cancel: &CancellationToken,
) -> Result<Vec<Report>, VerifyError> {
    // holds the names of the scratch tables for as long as it lasts
    let client = pg::connect(&request.source.settings, "projector verify").await?;
    scratch::sweep(&client).await?;
    examine(&client, &request.definitions).await?;
    let backend: i32 = client.query_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
    let targets: Result<Vec<_>, VerifyError> = request
        .definitions
        .iter()
        .enumerate()
        .map(|(number, definition)| {
            let table = scratch::name(backend, number)?;
            Ok(Target { definition: Arc::clone(definition), table })
        })
        .collect();
    let targets = targets?;
    let mut request = request.clone();
    let reports = loop {
        let slot = Ident::new(format!("projector_verify_{backend}"))?;
        let work = Work { request: &request, client: &client, targets: &targets, slot };
        // what is dropped in the midst are connections, and the temporary slot with its own
        let reports = tokio::select! {
            reports = work.run(&mut tell, cancel) => reports,
            () = cancel.cancelled() => Err(BuildError::Canceled.into()),
        };
        match reports {
            // rows that the database refuses are set aside one by one
            Err(VerifyError::Build(BuildError::Write(WriteError::Rows { .. })))
                if !request.source.is_careful =>
            {
                request.source.is_careful = true;
            }
            reports => break reports,
        }
    };
    let dropped = drop_tables(&request.source, &targets).await;
    let reports = reports?;
    dropped?;
    Ok(reports)
}

/// That each projection has rows which follow the log and were made by the definition at hand.
async fn examine(client: &Client, definitions: &[Arc<Definition>]) -> Result<(), VerifyError> {
    let standings: BTreeMap<String, Standing> =
        control::standings(client).await?.into_iter().map(|it| (it.name.clone(), it)).collect();
    for definition in definitions {
        let name = definition.name.clone();
        let Some(standing) = standings.get(&name).filter(|it| 0 < it.generation) else {
            return Err(VerifyError::NotBuilt(name));
        };
        if standing.state != "live" {
            let (state, checkpoint) = (standing.state.clone(), standing.checkpoint);
            return Err(VerifyError::NotFollowing { projection: name, state, checkpoint });
        }
        if standing.definition_hash != definition.hash {
            return Err(VerifyError::OtherDefinition(name));
        }
    }
    Ok(())
}

/// A comparison at work.
struct Work<'a> {
    request: &'a Request,
    client: &'a Client,
    targets: &'a [Target],
    slot: Ident,
}

impl Work<'_> {
    async fn run(
        &self,
        tell: &mut (impl FnMut(Stage) + Send),
        cancel: &CancellationToken,
    ) -> Result<Vec<Report>, VerifyError> {
        let source = &self.request.source;
        tell(Stage::Anchor);
        let (anchor, mut tape) = Anchor::take(source, &self.slot).await?;
        let read = anchor.lsn;
        let told = |progress| tell(Stage::Fold(progress));
        tokio::select! {
            filled = fill(source, &anchor, self.targets, Purpose::Compare, told, cancel) => filled?,
            Err(error) = tape.record() => return Err(error.into()),
        };
        // the server need not keep what only history had to see
        drop(anchor);
        tell(Stage::Wait(read));
        let (is_followed, live, mut subjects) = tokio::select! {
            ready = self.ready(read) => ready?,
            Err(error) = tape.record() => return Err(error.into()),
        };
        subjects.sort_by_key(|it| it.lsn);
        let mut follower = Follower::start(source, tape, self.targets).await?;
        let mut reports = Vec::with_capacity(subjects.len());
        for subject in &subjects {
            if is_followed {
                tell(Stage::Follow(subject.lsn));
                follower.to(subject.lsn).await?;
            }
            let mut comparing = pin!(self.compare(&live, subject, tell));
            let report = loop {
                tokio::select! {
                    report = &mut comparing => break report?,
                    () = sleep(KEEP_ALIVE) => follower.keep_alive().await?,
                }
            };
            reports.push(report);
            follower.keep_alive().await?;
        }
        // gone with its connection otherwise, a moment later
        follower.finish().await?;
        reports.sort_by(|a, b| a.projection.cmp(&b.projection));
        Ok(reports)
    }

    /// The moment to compare at: whether somebody follows the log, and the live rows as they are then.
    async fn ready(&self, read: Lsn) -> Result<(bool, Client, Vec<Subject>), VerifyError> {
        let is_followed = self.wait(read).await?;
        let live = pg::connect(&self.request.source.settings, "projector verify").await?;
        let subjects = self.snapshot(&live).await?;
        Ok((is_followed, live, subjects))
    }

    /// Waits until all rows are complete up to `read`. False when nobody follows the log, but nothing
    /// has happened since.
    async fn wait(&self, read: Lsn) -> Result<bool, VerifyError> {
        const LOOK: Duration = Duration::from_millis(50);
        const ROUNDS_BETWEEN_NUDGES: u32 = 20;
        let Request { slot, definitions, source, .. } = self.request;
        let names: Vec<_> = definitions.iter().map(|it| it.name.as_str()).collect();
        let behind = "select projection, lsn from projector.checkpoints
             where projection = any ($1) and lsn < $2 order by lsn limit 1";
        for round in 0_u32.. {
            let Some(row) = self.client.query_opt(behind, &[&names, &read]).await? else { break };
            let (projection, checkpoint) = (row.try_get(0)?, row.try_get(1)?);
            examine(self.client, definitions).await?;
            if round.is_multiple_of(ROUNDS_BETWEEN_NUDGES) {
                if !quiet::is_followed(self.client, slot).await? {
                    if quiet::is_quiet(self.client, slot, &source.publication, checkpoint).await? {
                        return Ok(false);
                    }
                    return Err(VerifyError::NotFollowed { projection, checkpoint });
                }
                // in a quiet database checkpoints move only now and then, unless somebody asks
                let nudge = "select projector.wait_for($1, $2, '10 milliseconds')";
                self.client.query_one(nudge, &[&projection, &read]).await?;
            }
            sleep(LOOK).await;
        }
        Ok(true)
    }

    /// Fixes the moment at which the live rows are read, and reads their positions at it.
    async fn snapshot(&self, live: &Client) -> Result<Vec<Subject>, VerifyError> {
        let source = &self.request.source;
        let parent = |it: &Definition| QualifiedName {
            schema: source.schema.clone(),
            name: it.table.clone(),
        };
        // locked before the snapshot is taken: a table whose partition was swapped after that would
        // be read without its rows
        let parents: Vec<_> =
            self.request.definitions.iter().map(|it| parent(it).to_string()).collect();
        let begin = format!(
            "set row_security = off; begin isolation level repeatable read read only;
             lock table {} in access share mode",
            parents.join(", ")
        );
        live.batch_execute(&begin).await?;
        examine(live, &self.request.definitions).await?;
        let mut subjects = Vec::with_capacity(self.targets.len());
        for target in self.targets {
            let definition = &target.definition;
            let lsn = "select lsn from projector.checkpoints where projection = $1";
            let shape = Shape::of(definition);
            let parent = parent(definition);
            let parked = parked(live, &shape, &parent, &definition.name).await?;
            subjects.push(Subject {
                definition: Arc::clone(definition),
                shape,
                parent,
                scratch: target.table.clone(),
                lsn: live.query_one(lsn, &[&definition.name]).await?.try_get(0)?,
                parked,
            });
        }
        Ok(subjects)
    }

    async fn compare(
        &self,
        live: &Client,
        subject: &Subject,
        tell: &mut (impl FnMut(Stage) + Send),
    ) -> Result<Report, VerifyError> {
        const ROWS_A_TELL: u64 = 10_000;
        let Subject { definition, shape, parent, scratch, lsn, parked } = subject;
        self.client.batch_execute(&format!("analyze {scratch}")).await?;
        let mut parked = parked.clone();
        parked.extend(self::parked(self.client, shape, parent, &scratch.to_string()).await?);
        let stored = live.copy_out(&shape.copy(parent)).await?;
        let history = self.client.copy_out(&shape.copy(scratch)).await?;
        let told = |done: u64| {
            if done.is_multiple_of(ROWS_A_TELL) {
                tell(Stage::Compare { projection: definition.name.clone(), done });
            }
        };
        let limit = self.request.limit;
        let differences = compare(shape, stored, history, &parked, limit, told).await?;
        Ok(Report {
            projection: definition.name.clone(),
            lsn: lsn.to_string(),
            parked_keys: parked.len(),
            differences,
        })
    }
}

/// The keys whose events are set aside: of a projection, or of a table that is not its own.
async fn parked(
    client: &Client,
    shape: &Shape,
    parent: &QualifiedName,
    owner: &str,
) -> Result<Parked, PgError> {
    let keys = shape.select_keys(&format!(
        "(select jsonb_populate_record(null::{parent}, row_key) as r
          from projector.dead_letters
          where projection = $1 and row_key is not null) as letters"
    ));
    let rows = client.query(&keys, &[&owner]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
