//! The tasks of a stream: a lane each, and the reader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::apply::error::WriteError;
use crate::apply::writer::Writer;
use crate::assembler::Assembler;
use crate::config::{Period, Size};
use crate::engine::broadcast::{Broadcaster, Feed, Setup, Telling};
use crate::engine::error::EngineError;
use crate::engine::lane::{Delivery, Departure, Joining, Lane, LaneError, LaneHandle, Shared};
use crate::engine::progress::{LaneProgress, Progress};
use crate::engine::reader::{BatchLimits, Reader, ReaderError};
use crate::engine::rebuild::Rebuilder;
use crate::engine::rebuild::builds::Builds;
use crate::engine::rebuild::thread::Building;
use crate::engine::session::Session;
use crate::engine::session::prepare::Prepared;
use crate::history::pace::Pace;
use crate::history::refold::History;
use crate::history::source::{Source, column_names};
use crate::lsn::Lsn;
use crate::pg;
use crate::realtime::compose::Limits;
use crate::realtime::link::{Link, within};
use crate::realtime::{Target, checkpoint};
use crate::wal::conn::ReplicationConnection;
use crate::wal::error::WalError;
use crate::wal::stream::StreamOptions;

/// Batches that wait for a lane.
const QUEUE: usize = 2;
/// How long lines gather for a message, unless configured.
const WINDOW: Duration = Duration::from_millis(200);
/// The same, where nobody counts messages.
const EMBEDDED_WINDOW: Duration = Duration::from_millis(10);
/// Projections that may fail between two looks, at least.
const DEPARTURES: usize = 64;

/// The tasks of a running stream, and what they work on.
pub(super) struct Running {
    pub(super) progress: Arc<Progress>,
    pub(super) handles: Vec<LaneHandle>,
    /// What is built beside the stream, and who builds it.
    pub(super) builds: Arc<Builds>,
    pub(super) building: Building,
    /// Whether everything has ended that was to be built at the start.
    pub(super) settled: CancellationToken,
    /// Projections that rest.
    pub(super) paused: BTreeSet<String>,
    pub(super) lanes: JoinSet<(String, Result<(), LaneError>)>,
    /// `None` when it has ended.
    pub(super) reader: Option<oneshot::Receiver<Result<(), ReaderError>>>,
    pub(super) departures: mpsc::Receiver<Departure>,
    /// Who tells viewers; `None` when broadcasts are off.
    pub(super) broadcaster: Option<Telling>,
    /// Ends the reading.
    pub(super) stop: CancellationToken,
    /// Says that the lanes are done and the last position may be reported.
    pub(super) drained: CancellationToken,
}

impl Running {
    /// The lane that a projection is in.
    pub(super) fn lane_of(&self, projection: &str) -> Option<String> {
        let mut lanes = self.progress.lanes().iter();
        let lane = lanes.find(|lane| lane.members().iter().any(|it| it.name == projection));
        lane.map(|it| it.name.clone())
    }
}

impl Session<'_> {
    pub(super) async fn start(
        &self,
        prepared: Prepared,
        confirmed: Lsn,
        silence: Duration,
    ) -> Result<Running, EngineError> {
        let engine = self.engine;
        // a lane without projections waits for those that are being built
        let mut by_lane: BTreeMap<String, Vec<Joining>> = BTreeMap::new();
        for it in &self.definitions {
            by_lane.entry(it.lane.clone()).or_default();
        }
        for it in prepared.ready {
            by_lane.entry(it.definition.lane.clone()).or_default().push(it);
        }
        let lanes = by_lane
            .iter()
            .map(|(name, members)| {
                let committed = members.iter().map(|it| it.checkpoint).min().unwrap_or(confirmed);
                LaneProgress::new(name.clone(), committed)
            })
            .collect();
        let progress = Arc::new(Progress::new(confirmed, lanes));
        let (departed, departures) = mpsc::channel(DEPARTURES.max(self.definitions.len()));
        let shared = Shared {
            progress: Arc::clone(&progress),
            metrics: Arc::clone(&engine.metrics),
            redactor: Arc::clone(&engine.redactor),
            departures: departed,
            pending_limit: engine.pending_limit(),
            history: Arc::new(History {
                events: engine.config.events_table(),
                columns: engine.config.source.columns.clone(),
            }),
            care: Arc::clone(&engine.status.care),
            commits: engine.status.commits.clone(),
            parked_limit: engine.config.limits.parked_keys.get(),
        };
        let events = engine.config.events_table();
        let (mut queues, mut handles) = (Vec::new(), Vec::new());
        let mut tasks = JoinSet::new();
        for (number, (name, members)) in by_lane.into_iter().enumerate() {
            let client = pg::connect(&engine.settings, &format!("projector lane {name}")).await?;
            let explain = |source: WriteError| EngineError::Lane {
                lane: name.clone(),
                source: source.into(),
            };
            let source = (&events, &engine.config.source.columns);
            let mut writer = Writer::prepare(client, &[], source).await.map_err(explain)?;
            let (sender, queue) = mpsc::channel(QUEUE);
            queues.push(sender);
            let (handle, commands) = LaneHandle::new(name.clone());
            handles.push(handle);
            let mut lane = Lane::new(number, queue, commands, shared.clone());
            for joining in members {
                lane.put(&mut writer, joining).await.map_err(explain)?;
            }
            tasks.spawn(async move { (name, lane.run(writer).await) });
        }
        let (stop, drained) = (CancellationToken::new(), CancellationToken::new());
        let (feed, broadcaster) = match self.broadcaster(&progress).await? {
            Some((feed, broadcaster, finish)) => {
                let report = Arc::clone(&engine.status.report);
                (Some(feed), Some(Telling::start(broadcaster.run(), finish, report)))
            }
            None => (None, None),
        };
        let queues = (queues, feed);
        let reader =
            self.spawn_reader(queues, Arc::clone(&progress), silence, (&stop, &drained)).await?;
        let builds = Arc::new(Builds::default());
        builds.add(prepared.builds);
        let settled = CancellationToken::new();
        let served = Arc::clone(&progress);
        let pace = Pace::new(move || served.is_serving());
        let building = Building::start(|folding| Rebuilder {
            engine: engine.clone(),
            source: Source { pace, ..engine.history() },
            folding,
            lanes: handles.clone(),
            progress: Arc::clone(&progress),
            builds: Arc::clone(&builds),
            stop: CancellationToken::new(),
            settled: settled.clone(),
            is_alone: false,
        })?;
        Ok(Running {
            progress,
            handles,
            builds,
            building,
            settled,
            paused: prepared.paused,
            lanes: tasks,
            reader: Some(reader),
            departures,
            broadcaster,
            stop,
            drained,
        })
    }

    /// Who tells viewers what is committed, and from where on.
    async fn broadcaster(
        &self,
        progress: &Arc<Progress>,
    ) -> Result<Option<(Arc<Feed>, Broadcaster, CancellationToken)>, EngineError> {
        let engine = self.engine;
        let Some(target) = engine.realtime.clone() else { return Ok(None) };
        let mut link = Link::new(engine.settings.clone());
        let client = link.take().await?;
        let config = &engine.config.realtime;
        let usual = match target {
            Target::Embedded(_) => EMBEDDED_WINDOW,
            Target::Http(_) | Target::Sql => WINDOW,
        };
        let backlog = size(config.max_backlog);
        let feed = Arc::new(Feed::new(backlog));
        let finish = CancellationToken::new();
        let checkpoint = within(checkpoint::load(&client)).await?;
        link.put(client);
        tracing::info!(target_kind = target.name(), lsn = %checkpoint, "broadcasting");
        let setup = Setup {
            target,
            settings: engine.settings.clone(),
            limits: Limits {
                window: config.window.map_or(usual, Period::duration),
                message_bytes: usize::try_from(config.message_bytes.bytes()).unwrap_or(usize::MAX),
                beacon: Some(config.beacon.duration()).filter(|it| !it.is_zero()),
            },
            rate: config.rate.get(),
            definitions: engine.definitions.broadcasts(),
            feed: Arc::clone(&feed),
            ahead: backlog / 4,
            progress: Arc::clone(progress),
            redactor: Arc::clone(&engine.redactor),
            metrics: Arc::clone(&engine.metrics),
            report: Arc::clone(&engine.status.report),
            checkpoint,
            finish: finish.clone(),
        };
        Ok(Some((feed, Broadcaster::new(setup, link)?, finish)))
    }

    /// The reader has a thread and a runtime of its own, so that it may sleep. It connects there: a
    /// socket stays with the runtime that opened it, and would wake that for every row.
    ///
    /// Returns when the stream has begun.
    pub(super) async fn spawn_reader(
        &self,
        queues: (Vec<mpsc::Sender<Delivery>>, Option<Arc<Feed>>),
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
        let board = Arc::clone(&self.engine.status);
        let (begun, has_begun) = oneshot::channel();
        let (ended, receiver) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let result = runtime.block_on(async {
                let connection = ReplicationConnection::connect(&settings, "projector").await;
                let connection = connection.map_err(WalError::from)?;
                let stream = connection.start(&slot, Lsn::ZERO, &options).await?;
                board.backends.reader.store(stream.process().unwrap_or_default(), Relaxed);
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
}

/// A configured size as a length in memory.
pub(in crate::engine) fn size(it: Size) -> usize {
    usize::try_from(it.bytes()).unwrap_or(usize::MAX)
}
