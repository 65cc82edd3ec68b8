//! A session: from the first connection to the end of the stream.
//!
//! 1. Lead: one process works for a slot; the others stand by on an advisory lock.
//! 2. Slot: there, or made anew.
//! 3. Build from history what the slot cannot give: projections that are new, changed, or behind
//!    what the slot has confirmed.
//! 4. Stream: a reader on its own thread, a task a lane.
//!
//! Whatever fails ends the session; the next begins from what is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::apply::control::{self, Source, Standing};
use crate::apply::generation::Tables;
use crate::apply::writer::{WriteError, Writer};
use crate::assembler::Assembler;
use crate::config::{Columns, Size};
use crate::definition::Definition;
use crate::engine::Engine;
use crate::engine::error::{EngineError, Unfit, is_of_the_rows};
use crate::engine::lane::{Delivery, Departure, Lane, LaneError, Shared};
use crate::engine::monitor::Monitor;
use crate::engine::progress::{LaneProgress, MemberProgress, Progress};
use crate::engine::reader::{BatchLimits, Reader, ReaderError};
use crate::engine::status::Phase;
use crate::fold::Fold;
use crate::history::build::{BuildError, Builder, Order};
use crate::history::refold::History;
use crate::ident::Ident;
use crate::lsn::Lsn;
use crate::migrate;
use crate::pg;
use crate::pg::facts::{self, Wanted};
use crate::pg::findings::{self, FindingKind};
use crate::pgoutput::ColumnNames;
use crate::wal::conn::ReplicationConnection;
use crate::wal::error::{Reason, WalError};
use crate::wal::slot::Ensured;
use crate::wal::stream::StreamOptions;

/// Batches that wait for a lane.
const QUEUE: usize = 2;
/// How long making a slot may wait for transactions that are open elsewhere.
const SLOT_WAIT: Duration = Duration::from_secs(30);
/// How long a lane or the reader may take to finish when the process ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// How often the server is asked for what the stream does not tell.
const MONITOR_PERIOD: Duration = Duration::from_secs(1);
/// How long a server may be silent that does not say what it thinks of that (`wal_sender_timeout`).
const SILENCE: Duration = Duration::from_secs(60);
/// How often the partitions of the events table are looked after.
const PARTITIONS_PERIOD: Duration = Duration::from_secs(3600);

/// One attempt to follow the log.
pub(super) struct Session<'a> {
    engine: &'a Engine,
    has_streamed: bool,
}

/// A projection that can take part in the stream.
struct Ready {
    definition: Arc<Definition>,
    generation: i32,
    checkpoint: Lsn,
    events: u64,
}

/// The tasks of a running stream.
struct Running {
    progress: Arc<Progress>,
    lanes: JoinSet<(String, Result<(), LaneError>)>,
    /// `None` when it has ended.
    reader: Option<oneshot::Receiver<Result<(), ReaderError>>>,
    departures: mpsc::Receiver<Departure>,
    /// Ends the reading.
    stop: CancellationToken,
    /// Says that the lanes are done and the last position may be reported.
    drained: CancellationToken,
}

impl<'a> Session<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self { engine, has_streamed: false }
    }

    /// Whether it came as far as the stream.
    pub(super) fn has_streamed(&self) -> bool {
        self.has_streamed
    }

    /// Works until `shutdown`.
    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> Result<(), EngineError> {
        let engine = self.engine;
        let client = pg::connect(&engine.settings, "projector").await?;
        migrate::require_current(&client, engine.config.events_schema()).await?;
        self.examine(&client).await?;
        self.lead(&client).await?;
        let mut connection = ReplicationConnection::connect(&engine.settings, "projector")
            .await
            .map_err(WalError::from)?;
        let system = connection.identify_system().await?;
        let slot = &engine.config.source.slot;
        let source = Source {
            system_identifier: system.system_identifier.clone(),
            timeline: system.timeline,
        };
        let same_source = self.recognise(&client, &source).await?;
        let confirmed = match connection.ensure_slot(slot, SLOT_WAIT).await? {
            Ensured::Existed { confirmed_flush } => confirmed_flush,
            Ensured::Created { consistent_point } => {
                tracing::info!(slot = slot.as_str(), lsn = %consistent_point, "slot created");
                consistent_point
            }
        };
        let names: Vec<_> = engine.definitions.iter().map(|it| it.name.clone()).collect();
        for name in control::detach_all_but(&client, &names).await? {
            tracing::info!(projection = name, "definition gone; its rows stay");
        }
        let within = |it: Lsn| confirmed <= it && it <= system.position && same_source;
        let ready = self.prepare(&client, within).await?;
        // only now do all checkpoints speak of this server's log
        control::remember_source(&client, slot.as_str(), &source).await?;
        connection.close().await?;
        let silence = silence(&client).await?;
        let mut running = match self.start(ready, confirmed, silence).await {
            Ok(running) => running,
            Err(error) => {
                self.clean_up(&client, &error).await;
                return Err(error);
            }
        };
        self.has_streamed = true;
        let version =
            client.query_one("show server_version", &[]).await?.try_get::<_, String>(0)?;
        let monitor = Monitor::new(
            engine,
            Arc::clone(&running.progress),
            &system.system_identifier,
            &version,
        );
        tracing::info!(slot = slot.as_str(), lsn = %confirmed, "ready");
        let ended = self.watch(&client, &mut running, monitor, silence, shutdown).await;
        match ended {
            Ok(()) => self.drain(&client, running).await,
            Err(error) => {
                running.stop.cancel();
                running.drained.cancel();
                running.lanes.shutdown().await;
                // the reader ends by itself when its lanes are gone
                if running.reader.is_some() {
                    drop(timeout(DRAIN_LIMIT, reader_ended(&mut running.reader)).await);
                }
                self.clean_up(&client, &error).await;
                Err(error)
            }
        }
    }

    /// Everything that must be right before the log can be followed.
    async fn examine(&self, client: &Client) -> Result<(), EngineError> {
        let config = &self.engine.config;
        let table = config.events_table();
        let columns = config.source.columns.types();
        let wanted = Wanted {
            slot: &config.source.slot,
            publication: &config.source.publication,
            table: &table,
            columns: &columns,
        };
        let facts = facts::gather(client, &wanted).await?;
        let mut findings = findings::findings(&facts, &wanted);
        if facts.slot.as_ref().is_some_and(|it| it.wal_status.as_deref() == Some("lost")) {
            // what an invalidated slot has lost is in the events table
            let drop_slot = "select pg_drop_replication_slot($1::text::name)";
            client.execute(drop_slot, &[&config.source.slot.as_str()]).await?;
            tracing::warn!(
                slot = config.source.slot.as_str(),
                "slot was invalidated; making a new one"
            );
            findings.retain(|it| it.kind != FindingKind::Slot);
        }
        if findings.is_empty() {
            return Ok(());
        }
        Err(EngineError::Server(Box::new(Unfit(findings))))
    }

    /// Takes the lead for the slot, for as long as the connection lasts.
    async fn lead(&self, client: &Client) -> Result<(), EngineError> {
        let slot = self.engine.config.source.slot.as_str();
        let lock = "select pg_try_advisory_lock(hashtext('projector'), hashtext($1))";
        if client.query_one(lock, &[&slot]).await?.try_get(0)? {
            return Ok(());
        }
        Err(EngineError::Standby(slot.to_owned()))
    }

    /// Whether the checkpoints speak of this server's log.
    async fn recognise(&self, client: &Client, now: &Source) -> Result<bool, EngineError> {
        let slot = self.engine.config.source.slot.as_str();
        let before = control::source(client, slot).await?;
        let same = before.is_none_or(|it| it.system_identifier == now.system_identifier);
        if !same {
            tracing::warn!(slot, "another server than before; read models are made anew");
        }
        Ok(same)
    }

    /// Sorts the projections: those that can go on from their checkpoint, and those that are built
    /// from history first. One that cannot be built is left out.
    async fn prepare(
        &self,
        client: &Client,
        within: impl Fn(Lsn) -> bool,
    ) -> Result<Vec<Ready>, EngineError> {
        let standings: BTreeMap<String, Standing> =
            control::standings(client).await?.into_iter().map(|it| (it.name.clone(), it)).collect();
        let failures = self.engine.status.failures();
        let mut ready = Vec::new();
        let mut orders = Vec::new();
        for definition in &self.engine.definitions {
            if failures.contains_key(&definition.name) {
                continue;
            }
            let standing = standings.get(&definition.name);
            let usable = standing.and_then(|it| Some((it, it.checkpoint?))).filter(|(it, lsn)| {
                it.definition_hash == definition.hash
                    && 0 < it.generation
                    && it.has_table
                    && within(*lsn)
            });
            match usable {
                Some((standing, checkpoint)) => {
                    if standing.state != "live" {
                        control::set_state(client, &definition.name, "live", None).await?;
                    }
                    ready.push(Ready {
                        definition: Arc::clone(definition),
                        generation: standing.generation,
                        checkpoint,
                        events: u64::try_from(standing.events).unwrap_or(0),
                    });
                }
                None => orders.push(Order {
                    definition: Arc::clone(definition),
                    generation: standing.map_or(0, |it| it.generation),
                }),
            }
        }
        self.build(client, orders, &mut ready).await?;
        ready.sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
        Ok(ready)
    }

    async fn build(
        &self,
        client: &Client,
        mut orders: Vec<Order>,
        ready: &mut Vec<Ready>,
    ) -> Result<(), EngineError> {
        let engine = self.engine;
        for order in &orders {
            let Definition { name, table, lane, .. } = &*order.definition;
            control::introduce(client, name, table.as_str(), lane).await?;
            control::set_state(client, name, "rebuilding", None).await?;
        }
        while !orders.is_empty() {
            engine.status.enter(Phase::Building);
            match self.build_once(&orders).await {
                Ok((checkpoint, events)) => {
                    ready.extend(orders.into_iter().map(|order| Ready {
                        definition: order.definition,
                        generation: order.generation + 1,
                        checkpoint,
                        events,
                    }));
                    return Ok(());
                }
                Err(EngineError::Build(error)) if is_own_fault(&error) => {
                    let name = error.projection().unwrap_or_default().to_owned();
                    orders.retain(|it| it.definition.name != name);
                    self.out(client, &name, &EngineError::Build(error).chain()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn build_once(&self, orders: &[Order]) -> Result<(Lsn, u64), EngineError> {
        let engine = self.engine;
        let mut connection = ReplicationConnection::connect(&engine.settings, "projector build")
            .await
            .map_err(WalError::from)?;
        let slot = Ident::new(format!("projector_build_{}", std::process::id()))?;
        let snapshot = connection.create_temporary_slot(&slot, SLOT_WAIT).await?;
        let names: Vec<_> = orders.iter().map(|it| it.definition.name.as_str()).collect();
        tracing::info!(projections = names.join(","), lsn = %snapshot.consistent_point, "building from history");
        let events_table = engine.config.events_table();
        let builder = Builder {
            reader: pg::connect(&engine.settings, "projector history").await?,
            writer: pg::connect(&engine.settings, "projector build").await?,
            snapshot: &snapshot.name,
            consistent_point: snapshot.consistent_point,
            events: &events_table,
            columns: &engine.config.source.columns,
            schema: &engine.config.schema,
            redactor: &engine.redactor,
            pending_limit: self.pending_limit(),
        };
        let names: Vec<_> = orders.iter().map(|it| it.definition.name.clone()).collect();
        let events = builder
            .build(orders, |progress| {
                engine.status.update(|it| Monitor::building(it, &names, progress));
            })
            .await?;
        tracing::info!(events, lsn = %snapshot.consistent_point, "built from history");
        // the temporary slot goes with its connection
        connection.close().await?;
        Ok((snapshot.consistent_point, events))
    }

    /// A projection leaves: it is said in the control tables, the status and the log.
    async fn out(&self, client: &Client, projection: &str, error: &str) -> Result<(), EngineError> {
        tracing::error!(projection, error, "projection failed; the others go on");
        self.engine.status.fail(projection, error);
        self.engine.metrics.errors_total.with_label_values(&[projection, "poison"]).inc();
        control::set_state(client, projection, "failed", Some(error)).await?;
        Ok(())
    }

    async fn start(
        &self,
        ready: Vec<Ready>,
        confirmed: Lsn,
        silence: Duration,
    ) -> Result<Running, EngineError> {
        let engine = self.engine;
        let mut by_lane: BTreeMap<String, Vec<Ready>> = BTreeMap::new();
        for it in ready {
            by_lane.entry(it.definition.lane.clone()).or_default().push(it);
        }
        let lanes = by_lane
            .iter()
            .map(|(name, members)| {
                let committed = members.iter().map(|it| it.checkpoint).min().unwrap_or(confirmed);
                let members = members.iter().map(|it| {
                    MemberProgress::new(it.definition.name.clone(), it.checkpoint, it.events)
                });
                LaneProgress::new(name.clone(), members.collect(), committed)
            })
            .collect();
        let progress = Arc::new(Progress::new(confirmed, lanes));
        let (departed, departures) = mpsc::channel(engine.definitions.len().max(1));
        let shared = Shared {
            progress: Arc::clone(&progress),
            metrics: Arc::clone(&engine.metrics),
            redactor: Arc::clone(&engine.redactor),
            departures: departed,
            pending_limit: self.pending_limit(),
            history: Arc::new(History {
                events: engine.config.events_table(),
                columns: engine.config.source.columns.clone(),
            }),
        };
        let events = engine.config.events_table();
        let mut queues = Vec::new();
        let mut tasks = JoinSet::new();
        for (number, (name, members)) in by_lane.into_iter().enumerate() {
            let client = pg::connect(&engine.settings, &format!("projector lane {name}")).await?;
            let mut targets = Vec::new();
            for it in &members {
                let tables = Tables::new(&it.definition, &engine.config.schema);
                targets.push((Arc::clone(&it.definition), tables.generation(it.generation)?));
            }
            let source = (&events, &engine.config.source.columns);
            let writer = Writer::prepare(client, &targets, source)
                .await
                .map_err(|error| EngineError::Lane { lane: name.clone(), source: error.into() })?;
            let (sender, queue) = mpsc::channel(QUEUE);
            queues.push(sender);
            let folds = members.into_iter().map(|it| (Fold::new(it.definition), it.checkpoint));
            let lane = Lane::new(number, folds.collect(), queue, shared.clone());
            tasks.spawn(async move { (name, lane.run(writer).await) });
        }
        let (stop, drained) = (CancellationToken::new(), CancellationToken::new());
        let reader =
            self.spawn_reader(queues, Arc::clone(&progress), silence, (&stop, &drained)).await?;
        Ok(Running { progress, lanes: tasks, reader: Some(reader), departures, stop, drained })
    }

    /// The reader has a thread and a runtime of its own, so that it may sleep. It connects there: a
    /// socket stays with the runtime that opened it, and would wake that for every row.
    ///
    /// Returns when the stream has begun.
    async fn spawn_reader(
        &self,
        queues: Vec<mpsc::Sender<Delivery>>,
        progress: Arc<Progress>,
        silence: Duration,
        (stop, drained): (&CancellationToken, &CancellationToken),
    ) -> Result<oneshot::Receiver<Result<(), ReaderError>>, EngineError> {
        let config = &self.engine.config;
        let limits = BatchLimits {
            events: config.limits.batch_events.get(),
            bytes: size(config.limits.batch_bytes),
        };
        let assembler = Assembler::new(config.events_table(), column_names(&config.source.columns));
        let metrics = Arc::clone(&self.engine.metrics);
        let (stop, drained) = (stop.clone(), drained.clone());
        let settings = self.engine.settings.clone();
        let slot = config.source.slot.clone();
        let options = StreamOptions::new(config.source.publication.clone());
        let (begun, has_begun) = oneshot::channel();
        let (ended, receiver) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let result = runtime.block_on(async {
                let connection = ReplicationConnection::connect(&settings, "projector").await;
                let connection = connection.map_err(WalError::from)?;
                let stream = connection.start(&slot, Lsn::ZERO, &options).await?;
                // nobody listens any more when the session has already given up
                begun.send(()).unwrap_or_default();
                let shared = (progress, metrics);
                let reader = Reader::new(stream, assembler, queues, shared, limits, silence, stop);
                reader.run(drained).await
            });
            // nor here
            drop(ended.send(result));
        };
        std::thread::Builder::new().name("reader".to_owned()).spawn(work)?;
        if has_begun.await.is_err() {
            return Err(match receiver.await {
                Ok(Err(error)) => EngineError::Reader(error),
                Ok(Ok(())) | Err(_) => EngineError::Vanished("reader"),
            });
        }
        Ok(receiver)
    }

    /// Waits for the first thing that ends the session.
    async fn watch(
        &self,
        client: &Client,
        running: &mut Running,
        mut monitor: Monitor,
        silence: Duration,
        shutdown: &CancellationToken,
    ) -> Result<(), EngineError> {
        let engine = self.engine;
        let mut tick = interval(MONITOR_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut partitions = interval(PARTITIONS_PERIOD);
        engine.status.enter(Phase::Streaming);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(departure) = running.departures.recv() => {
                    self.out(client, &departure.projection, &departure.error.to_string()).await?;
                }
                Some(ended) = running.lanes.join_next() => {
                    return Err(cause(ended, &mut running.reader).await);
                }
                error = reader_ended(&mut running.reader) => {
                    // a lane that ended is the cause, and its reader only noticed
                    let lane = timeout(Duration::from_millis(100), running.lanes.join_next()).await;
                    return Err(match (error, lane) {
                        (EngineError::Reader(ReaderError::LaneEnded(_)), Ok(Some(ended))) => lane_ended(ended),
                        (error, _) => error,
                    });
                }
                _ = tick.tick() => {
                    let looked = timeout(silence, monitor.look(client)).await;
                    let seen = looked.map_err(|_| ReaderError::Silent(silence))??;
                    engine.status.update(|status| monitor.describe(status, &engine.status.failures()));
                    let limit = engine.config.limits.max_slot_lag.bytes();
                    if !seen.same_publication {
                        let publication = engine.config.source.publication.as_str().to_owned();
                        return Err(EngineError::PublicationGone(publication));
                    }
                    let lag = seen.slot_lag;
                    if limit < lag {
                        let slot = engine.config.source.slot.as_str().to_owned();
                        return Err(EngineError::SlotTooFar { slot, kept: lag, limit });
                    }
                }
                _ = partitions.tick() => {
                    if let Err(error) = client.execute("select projector.ensure_partitions()", &[]).await {
                        tracing::warn!(%error, "the events table's partitions could not be looked after");
                    }
                }
            }
        }
    }

    /// Ends in good order: what has been received is written, made durable and acknowledged.
    async fn drain(&self, client: &Client, mut running: Running) -> Result<(), EngineError> {
        let board = &self.engine.status;
        board.enter(Phase::Draining);
        running.stop.cancel();
        let lanes = async {
            while let Some(ended) = running.lanes.join_next().await {
                match ended {
                    Ok((_, Ok(()))) => {}
                    other => return Err(lane_ended(other)),
                }
            }
            Ok(())
        };
        timeout(DRAIN_LIMIT, lanes).await.map_err(|_| EngineError::Vanished("drain"))??;
        // a synchronous commit flushes the log with every commit before it, provided that it has
        // written something itself
        client
            .batch_execute(
                "set synchronous_commit = on; select pg_logical_emit_message(true, 'projector', 'drained')",
            )
            .await?;
        let flushed = client.query_one("select pg_current_wal_flush_lsn()", &[]).await?;
        running.progress.flush(flushed.try_get(0)?);
        running.drained.cancel();
        let reported = async {
            match running.reader.take() {
                Some(reader) => matches!(reader.await, Ok(Ok(()))),
                None => false,
            }
        };
        if !timeout(DRAIN_LIMIT, reported).await.unwrap_or(false) {
            tracing::warn!("the last position was not reported");
        }
        tracing::info!(lsn = %running.progress.acknowledged(), "stopped");
        Ok(())
    }

    /// What must be put right before the next session. Its failure shows there.
    async fn clean_up(&self, client: &Client, error: &EngineError) {
        let result = match error {
            EngineError::Lane {
                source: LaneError::Write(WriteError::Rows { projection, source }),
                ..
            } if is_of_the_rows(source) => self.out(client, projection, &error.chain()).await,
            EngineError::Wal(cause) | EngineError::Reader(ReaderError::Wal(cause))
                if cause.reason() == Some(Reason::PublicationMissing) =>
            {
                self.forsake_slot(client).await
            }
            EngineError::Lane { source: LaneError::Write(WriteError::Fold(fold)), .. } => {
                self.out(client, &fold.projection, &fold.to_string()).await
            }
            EngineError::SlotTooFar { .. } | EngineError::PublicationGone(_) => {
                self.drop_slot(client).await
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(error = %error.chain(), "cleaning up failed");
        }
    }

    /// Drops the slot, once its last walsender has let go of it.
    async fn drop_slot(&self, client: &Client) -> Result<(), EngineError> {
        let slot = self.engine.config.source.slot.as_str();
        let end = "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots
             where slot_name = $1::text::name and active";
        client.execute(end, &[&slot]).await?;
        let drop_slot = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
             where slot_name = $1::text::name";
        client.execute(drop_slot, &[&slot]).await?;
        Ok(())
    }

    /// The log between the loss of the publication and its return cannot be decoded, not even when it
    /// is there again: then a new slot begins after that, and history has what lies between.
    async fn forsake_slot(&self, client: &Client) -> Result<(), EngineError> {
        let source = &self.engine.config.source;
        let (slot, publication) = (source.slot.as_str(), source.publication.as_str());
        let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
             where slot_name = $1::text::name and not active
               and exists (select from pg_publication where pubname = $2::text::name)";
        if 0 < client.execute(sql, &[&slot, &publication]).await? {
            tracing::warn!(slot, publication, "the publication was away; the slot is made anew");
        }
        Ok(())
    }

    /// A quarter of the memory is for rows that gather, and as much for those that are being written.
    /// Each projection keeps the memory that it once needed, so that together they may hold twice that.
    fn pending_limit(&self) -> usize {
        size(self.engine.config.limits.memory) / 4
    }
}

/// A configured size as a length in memory.
fn size(it: Size) -> usize {
    usize::try_from(it.bytes()).unwrap_or(usize::MAX)
}

/// After how long without a byte this server counts as gone.
async fn silence(client: &Client) -> Result<Duration, EngineError> {
    let sql = "select setting::bigint from pg_settings where name = 'wal_sender_timeout'";
    let millis = client.query_one(sql, &[]).await?.try_get::<_, i64>(0)?;
    let limit = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    Ok(if limit.is_zero() { SILENCE } else { limit })
}

/// Whether the projection is at fault, and not the connection.
fn is_own_fault(error: &BuildError) -> bool {
    match error {
        BuildError::Fold(_) => true,
        BuildError::Write(WriteError::Rows { source, .. }) | BuildError::Tables { source, .. } => {
            is_of_the_rows(source)
        }
        _ => false,
    }
}

/// Why the reader ended, once it has; never, where that has been told.
async fn reader_ended(
    reader: &mut Option<oneshot::Receiver<Result<(), ReaderError>>>,
) -> EngineError {
    let Some(running) = reader else { return std::future::pending().await };
    let ended = running.await;
    *reader = None;
    match ended {
        Ok(Err(error)) => EngineError::Reader(error),
        Ok(Ok(())) | Err(_) => EngineError::Vanished("reader"),
    }
}

/// Why a lane ended. One that ended well was left by its reader, which then knows the cause.
async fn cause(
    ended: Result<(String, Result<(), LaneError>), tokio::task::JoinError>,
    reader: &mut Option<oneshot::Receiver<Result<(), ReaderError>>>,
) -> EngineError {
    let is_left = matches!(ended, Ok((_, Ok(()))));
    let known = is_left.then_some(timeout(Duration::from_secs(1), reader_ended(reader)));
    match known {
        Some(error) => error.await.unwrap_or_else(|_| lane_ended(ended)),
        None => lane_ended(ended),
    }
}

fn lane_ended(
    ended: Result<(String, Result<(), LaneError>), tokio::task::JoinError>,
) -> EngineError {
    match ended {
        Ok((lane, Err(source))) => EngineError::Lane { lane, source },
        Ok((_, Ok(()))) => EngineError::Vanished("lane"),
        Err(error) => {
            tracing::error!(%error, "a lane's task broke");
            EngineError::Vanished("lane")
        }
    }
}

fn column_names(columns: &Columns) -> ColumnNames {
    let name = |it: &Ident| it.as_str().to_owned();
    ColumnNames {
        position: name(&columns.position),
        project_id: name(&columns.project_id),
        run_id: name(&columns.run_id),
        version: name(&columns.version),
        event_id: name(&columns.event_id),
        kind: name(&columns.kind),
        payload: name(&columns.payload),
        metadata: name(&columns.metadata),
        recorded_at: name(&columns.recorded_at),
    }
}
