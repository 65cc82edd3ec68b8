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

use crate::cli::{Context, Exit, Failure, check};
use crate::config::Secret;
use crate::definition::{self, Definition};
use crate::engine::status::{Phase, Status};
use crate::engine::{Board, Engine, EngineError};
use crate::http::{self, Access, AppState, Database};
use crate::metrics::Metrics;
use crate::pg::Settings;
use crate::redact::{RedactRules, Redactor};

/// Everything that was made before the first connection.
pub(super) struct Sidecar {
    engine: Engine,
    listener: TcpListener,
    address: SocketAddr,
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

impl Sidecar {
    /// One that follows the database of `settings` and answers on `listener`.
    pub(super) fn new(
        context: &Context,
        settings: Settings,
        definitions: Vec<Definition>,
        listener: TcpListener,
    ) -> anyhow::Result<Self> {
        let config = context.config();
        let address = listener.local_addr().context("cannot tell the address")?;
        let rules = RedactRules {
            defaults: config.redact.defaults,
            keys: config.redact.keys.clone(),
            paths: config.redact.paths.clone(),
        };
        let redactor = Redactor::new(rules).context("the rules of [redact] cannot be used")?;
        let engine = Engine {
            settings,
            config: Arc::new(config.clone()),
            definitions: definitions.into_iter().map(Arc::new).collect(),
            redactor: Arc::new(redactor),
            metrics: Arc::new(Metrics::new()),
            status: Arc::new(Board::new(config.source.slot.as_str())),
        };
        Ok(Self { engine, listener, address })
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
        let Self { engine, listener, address } = self;
        let config = Arc::clone(&engine.config);
        let state = AppState {
            status: engine.status.subscribe(),
            metrics: Arc::clone(&engine.metrics),
            database: Arc::new(Database::new(engine.settings.clone())),
            schema: config.schema.clone(),
            access: Arc::new(Access::new(
                address,
                config.http.admin_token.as_ref().map(Secret::expose),
            )),
        };
        let http_end = CancellationToken::new();
        let http = tokio::spawn(http::serve(listener, state, http_end.clone()));
        let told = tokio::spawn(tell_systemd(engine.status.subscribe()));
        tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %address, "starting");
        let ended = engine.run(shutdown).await;
        http_end.cancel();
        told.abort();
        match http.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the HTTP server failed"),
            Err(error) => tracing::error!(%error, "the HTTP server broke"),
        }
        ended.map_err(stopped)
    }
}

/// The shipped definitions, for a folder that has none.
const SHIPPED: [(&str, &str); 5] = [
    ("run_status.toml", include_str!("../../projections/run_status.toml")),
    ("step_status.toml", include_str!("../../projections/step_status.toml")),
    ("run_log.toml", include_str!("../../projections/run_log.toml")),
    ("dead_runs.toml", include_str!("../../projections/dead_runs.toml")),
    ("workflow_stats.toml", include_str!("../../projections/workflow_stats.toml")),
];

/// The configured definitions, or the shipped ones where the default folder does not exist; `None`
/// after their problems have been told.
pub(super) fn definitions(context: &Context) -> anyhow::Result<Option<Vec<Definition>>> {
    let folder = &context.config().projections;
    if folder.exists() || folder != Path::new("projections") {
        return check::load(folder, &context.out);
    }
    tracing::info!("no folder `projections` here; using the shipped definitions");
    let files = SHIPPED.map(|(name, text)| (PathBuf::from(name), text.to_owned()));
    let shipped = definition::parse_all(&files);
    Ok(Some(shipped.map_err(|_| Failure::new("the shipped definitions are broken"))?))
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
                Phase::Starting | Phase::Connecting | Phase::Building => NotifyState::Watchdog,
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
    let exit = if error.is_configuration() { Exit::USAGE } else { Exit::FAILED };
    let hint = error.hint();
    Failure::new("projector stopped").hint(hint).exit(exit).caused_by(error)
}
