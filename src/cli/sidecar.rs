//! The sidecar in one process: engine, HTTP server, signals. What `run` is, and half of `dev`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::{Context, Exit, Failure, check, hub, reload};
use crate::config::{RealtimeMode, Secret};
use crate::definition::{self, Definition, Definitions, Problem};
use crate::engine::status::{Phase, Status};
use crate::engine::{Engine, EngineError, Reload};
use crate::http::{self, Access, AppState, Database, Live};
use crate::pg::Settings;
use crate::realtime::Target;
use crate::realtime::hub::Hub;
use crate::redact::Redactor;
use crate::replay::Archive;

/// Everything that was made before the first connection.
pub(super) struct Sidecar {
    engine: Engine,
    reload: Reload,
    listener: TcpListener,
    address: SocketAddr,
    hub: Option<Hub>,
}

/// Takes the port of the HTTP server, so that a second start fails at once and by name.
pub(super) async fn listen(context: &Context) -> Result<TcpListener, Failure> {
    let address = context.config().http.listen;
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(format!("cannot listen on {address}"))
            .hint("another projector may be running; choose an address with --listen".to_owned())
            .caused_by(error)
    })
}

/// An engine that has not begun.
pub(super) fn engine(
    context: &Context,
    settings: Settings,
    definitions: impl Into<Definitions>,
) -> anyhow::Result<Engine> {
    Engine::new(settings, context.config().clone(), definitions)
        .context("the rules of [redact] cannot be used")
}

/// Where broadcasts go. `hub` serves the clients of this process, where that is configured.
pub(super) fn target(context: &Context, hub: Option<&Hub>) -> Result<Option<Target>, Failure> {
    Target::of(&context.config().realtime, hub).map_err(|error| {
        let hint = error.hint();
        Failure::new("broadcasts cannot be sent").hint(hint).exit(Exit::USAGE).caused_by(error)
    })
}

impl Sidecar {
    /// One that follows the database of `settings` and answers on `listener`.
    pub(super) fn new(
        context: &Context,
        settings: Settings,
        definitions: Definitions,
        listener: TcpListener,
    ) -> anyhow::Result<Self> {
        let config = context.config();
        let address = listener.local_addr().context("cannot tell the address")?;
        let mut engine = engine(context, settings, definitions)?;
        let is_embedded = config.realtime.mode == Some(RealtimeMode::Embedded);
        let make = || hub::hub(config, &engine.settings, &engine.metrics);
        let hub = is_embedded.then(make).transpose()?;
        engine.realtime = target(context, hub.as_ref())?;
        let folder = config.projections.clone();
        let redactor = Arc::clone(&engine.redactor);
        let load = move || read(&folder, &redactor);
        let (catalogue, board) = (engine.definitions.clone(), Arc::clone(&engine.status));
        let reload = Reload::new(catalogue, board, Arc::new(load));
        Ok(Self { engine, reload, listener, address, hub })
    }

    /// Reads the definitions again.
    pub(super) fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Where the HTTP server listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the engine publishes.
    pub(super) fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.engine.status.subscribe()
    }

    /// Works until `shutdown`, then in good order to the end.
    pub(super) async fn run(self, shutdown: CancellationToken) -> Result<(), Failure> {
        let Self { engine, reload: again, listener, address, hub } = self;
        let config = Arc::clone(&engine.config);
        let archive = Archive {
            schema: config.schema.clone(),
            events: config.events_table(),
            columns: config.source.columns.clone(),
            redactor: Arc::clone(&engine.redactor),
            definitions: Vec::new(),
        };
        let state = AppState {
            archive,
            definitions: engine.definitions.clone(),
            status: engine.status.subscribe(),
            metrics: Arc::clone(&engine.metrics),
            database: Arc::new(Database::new(engine.settings.clone())),
            schema: config.schema.clone(),
            access: Arc::new(Access::new(
                address,
                config.http.admin_token.as_ref().map(Secret::expose),
            )),
            reload: again.clone(),
            commits: engine.status.commits(),
            live: Arc::new(Live::default()),
            hub: hub.clone(),
        };
        let http_end = CancellationToken::new();
        let http = tokio::spawn(http::serve(listener, state, http_end.clone()));
        let told = tokio::spawn(tell_systemd(engine.status.subscribe()));
        let hangups = tokio::spawn(reload::on_hangup(again));
        tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %address, "starting");
        let ended = engine.run(shutdown).await;
        http_end.cancel();
        if let Some(hub) = hub {
            // After the engine, whose last messages they still hear.
            hub.shutdown().await;
        }
        told.abort();
        hangups.abort();
        match http.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the HTTP server failed"),
            Err(error) => tracing::error!(%error, "the HTTP server broke"),
        }
        ended.map_err(stopped)
    }
}

/// The shipped definitions, for a folder that has none.
const SHIPPED: [(&str, &str); 7] = [
    ("run_status.toml", include_str!("../../projections/run_status.toml")),
    ("step_status.toml", include_str!("../../projections/step_status.toml")),
    ("run_log.toml", include_str!("../../projections/run_log.toml")),
    ("dead_runs.toml", include_str!("../../projections/dead_runs.toml")),
    ("workflow_stats.toml", include_str!("../../projections/workflow_stats.toml")),
    ("live_log.toml", include_str!("../../projections/live_log.toml")),
    ("run_events.toml", include_str!("../../projections/run_events.toml")),
];

/// The configured definitions, or the shipped ones where the default folder does not exist; `None`
/// after their problems have been told.
pub(super) fn all_definitions(context: &Context) -> anyhow::Result<Option<Definitions>> {
    let folder = &context.config().projections;
    let redactor = context.redactor()?;
    let ruled = |it: Definitions| it.under(&redactor);
    if !is_shipped(folder) {
        return Ok(check::load(folder, &context.out)?.map(ruled));
    }
    tracing::info!("no folder `projections` here; using the shipped definitions");
    let shipped = shipped();
    Ok(Some(ruled(shipped.map_err(|_| Failure::new("the shipped definitions are broken"))?)))
}

/// The projections among them.
pub(super) fn definitions(context: &Context) -> anyhow::Result<Option<Vec<Definition>>> {
    Ok(all_definitions(context)?.map(|it| it.projections))
}

/// The definitions as they are now in `folder`, or the shipped ones.
fn read(folder: &Path, redactor: &Redactor) -> Result<Definitions, Vec<Problem>> {
    let found = if is_shipped(folder) { shipped() } else { definition::load_all(folder) };
    Ok(found?.under(redactor))
}

/// Whether the shipped definitions stand in for those of `folder`.
fn is_shipped(folder: &Path) -> bool {
    !folder.exists() && folder == Path::new("projections")
}

fn shipped() -> Result<Definitions, Vec<Problem>> {
    let files = SHIPPED.map(|(name, text)| (PathBuf::from(name), text.to_owned()));
    definition::parse_files(&files)
}

/// A token that SIGTERM and Ctrl-C cancel. The second of them ends the process at once.
pub(super) fn shutdown_on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping: finishing what has been received; once more to stop at once");
        cancelled.cancel();
        either(&mut terminate, &mut interrupt).await;
        tracing::warn!("stopped at once");
        #[expect(clippy::exit, reason = "the user asked twice; everything durable is durable")]
        std::process::exit(1);
    });
    Ok(token)
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! { _ = one.recv() => {}, _ = other.recv() => {} }
}

/// Tells systemd when there is progress to tell of; without systemd this does nothing.
async fn tell_systemd(mut status: watch::Receiver<Arc<Status>>) {
    let mut phase = None;
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().phase;
        if phase != Some(now) {
            phase = Some(now);
            let text = format!("{now:?}").to_lowercase();
            let state = match now {
                Phase::Streaming | Phase::Standby => NotifyState::Ready,
                Phase::Draining => NotifyState::Stopping,
                Phase::Starting | Phase::Connecting => NotifyState::Watchdog,
            };
            // without a socket to notify there is nobody to tell
            drop(sd_notify::notify(&[state, NotifyState::Status(&text)]));
        } else {
            drop(sd_notify::notify(&[NotifyState::Watchdog]));
        }
    }
}

/// Why the engine stopped, as the user reads it.
fn stopped(error: EngineError) -> Failure {
    explain("projector stopped", error)
}

/// An error of the engine with what to do about it.
pub(super) fn explain(what: &str, error: EngineError) -> Failure {
    let exit = if error.is_configuration() { Exit::USAGE } else { Exit::FAILED };
    let hint = error.hint();
    Failure::new(what).hint(hint).exit(exit).caused_by(error)
}
