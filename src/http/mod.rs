//! The HTTP face: health, metrics, an API over the shipped read models, an operator's verbs, a status
//! page.
//!
//! | route | answers |
//! |---|---|
//! | `/` | a page that shows what is below |
//! | `/healthz` | 200 while the process lives; never asks Postgres, so that its outage restarts nobody |
//! | `/readyz` | 200, or 503 with a reason a line; `?verbose` adds what is well |
//! | `/metrics` | Prometheus' text format |
//! | `/api/projections`, `/api/projections/{name}` | the engine's [`Status`], from memory |
//! | `/api/projections/{name}/wait?lsn=&timeout=` | 200 once its rows include what was committed before |
//! | `POST /api/projections/{name}/` `rebuild`, `cancel`, `pause`, `resume` | what was noted down |
//! | `POST /api/reload` | which definitions changed, after all were read again |
//! | `/api/projections/{name}/dead-letters` (`POST …/retry`, `POST …/discard`, with `?key=`) | what is set aside |
//! | `/api/runs?status=&workflow=&project=&q=&before=&limit=` | `run_status`, the latest start first, by page |
//! | `/api/runs/counts?project=` | how many runs of each status there are |
//! | `/api/runs/{id}` | a run and its steps |
//! | `/api/runs/{id}/log?after=VERSION&limit=` | its log, in order, by page |
//! | `/api/runs/{id}/state?version=&until=&projection=&diff=1` | its read models at a moment, from history |
//! | `/api/tables/{table}/explain?key=` | the events that made a row what it is |
//! | `/api/live?topic=` | what happens, as server-sent events |
//! | `/realtime/v1/…`, `/socket/websocket` | the embedded Realtime, a [`Hub`], where there is one |
//!
//! Errors are `{"error": {"code", "message", "hint"}}`; what the database said is logged and never
//! sent. Who may read `/api` is [`Access`]' to say, and a member of a project may read its runs, with a
//! token that the hub would take. There is no CORS, but for the
//! hub's routes, where a token counts: no other site's page reads this.

mod access;
mod api;
mod control;
mod database;
mod error;
mod health;
mod live;
mod member;
mod page;
mod parameters;
mod runs;
mod travel;

pub use self::access::Access;
pub use self::database::Database;
pub use self::live::Live;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::error::ApiError;
use crate::engine::status::Status;
use crate::engine::{Catalogue, Reload};
use crate::ident::Ident;
use crate::metrics::Metrics;
use crate::realtime::hub::Hub;
use crate::replay::Archive;

/// The longest a request may take. Longer than the database's own limit, whose error says more, and
/// than the longest wait for a projection.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The largest body that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// How long requests may go on after the end was asked for.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What the routes answer from.
#[derive(Clone)]
pub struct AppState {
    /// The engine's latest snapshot.
    pub status: watch::Receiver<Arc<Status>>,
    /// What `/metrics` prints.
    pub metrics: Arc<Metrics>,
    /// Where the read models are.
    pub database: Arc<Database>,
    /// The schema they are in.
    pub schema: Ident,
    /// Where history is; what projections mean comes from `definitions`.
    pub archive: Archive,
    /// What projections mean now.
    pub definitions: Catalogue,
    /// Who may read `/api`.
    pub access: Arc<Access>,
    /// Reads the definitions again.
    pub reload: Reload,
    /// Changes after each commit of the engine.
    pub commits: watch::Receiver<u64>,
    /// Who listens to what happens.
    pub live: Arc<Live>,
    /// Who serves the clients of Supabase Realtime, where this process does.
    pub hub: Option<Hub>,
}

impl AppState {
    /// Where history is, and what projections mean now.
    fn archive(&self) -> Archive {
        Archive { definitions: self.definitions.now(), ..self.archive.clone() }
    }
}

/// Answers on `listener` until `shutdown`, then lets open requests end, for two seconds at most.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let drained = {
        let (shutdown, live) = (shutdown.clone(), Arc::clone(&state.live));
        async move {
            shutdown.cancelled().await;
            // streams would go on for ever
            live.ended.cancel();
            tokio::time::sleep(DRAIN_LIMIT).await;
        }
    };
    let feed = state.clone();
    let server =
        axum::serve(listener, router(state)).with_graceful_shutdown(shutdown.cancelled_owned());
    tokio::select! {
        // Dropping the other sides is right either way: it has ended, or its time is up.
        ended = server => ended,
        () = drained => Ok(()),
        () = feed.live.feed(&feed) => Ok(()),
    }
}

/// All routes.
pub fn router(state: AppState) -> Router {
    let api = Router::new()
        .route("/projections", get(api::projections))
        .route("/projections/{name}", get(api::projection))
        .route("/projections/{name}/wait", get(control::wait))
        .route("/tables/{table}/explain", get(travel::explain))
        .route("/live", get(live::live))
        .route_layer(middleware::from_fn_with_state(state.clone(), access::guard));
    let runs = Router::new()
        .route("/runs", get(runs::runs))
        .route("/runs/counts", get(runs::counts))
        .route("/runs/{id}", get(api::run))
        .route("/runs/{id}/log", get(api::log))
        .route("/runs/{id}/state", get(travel::state))
        .route_layer(middleware::from_fn_with_state(state.clone(), member::guard));
    let verbs = Router::new()
        .route("/projections/{name}/rebuild", post(control::rebuild))
        .route("/projections/{name}/cancel", post(control::cancel))
        .route("/projections/{name}/pause", post(control::pause))
        .route("/projections/{name}/resume", post(control::resume))
        .route("/reload", post(control::reload))
        .route("/projections/{name}/dead-letters", get(control::dead_letters))
        .route("/projections/{name}/dead-letters/retry", post(control::retry))
        .route("/projections/{name}/dead-letters/discard", post(control::discard))
        .route_layer(middleware::from_fn_with_state(state.clone(), access::guard_operator));
    let realtime = state.hub.as_ref().map_or_else(Router::new, Hub::router);
    Router::new()
        .route("/", get(page::html))
        .route("/console/{file}", get(page::file))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .nest("/api", api.merge(runs).merge(verbs))
        .fallback(|| async { ApiError::no_such_route() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .with_state(state)
        .merge(realtime)
        .layer(middleware::from_fn(limit_time))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::timeout().into_response(),
    }
}
