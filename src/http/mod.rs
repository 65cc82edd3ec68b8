//! The HTTP face: health, metrics, a read-only API over the shipped read models, a status page.
//!
//! | route | answers |
//! |---|---|
//! | `/` | a page that shows what is below |
//! | `/healthz` | 200 while the process lives; never asks Postgres, so that its outage restarts nobody |
//! | `/readyz` | 200, or 503 with a reason a line; `?verbose` adds what is well |
//! | `/metrics` | Prometheus' text format |
//! | `/api/projections`, `/api/projections/{name}` | the engine's [`Status`], from memory |
//! | `/api/runs?status=&workflow=&project=&before=&limit=` | `run_status`, latest activity first, by page |
//! | `/api/runs/{id}` | a run and its steps |
//! | `/api/runs/{id}/log?after=VERSION&limit=` | its log, in order, by page |
//!
//! Errors are `{"error": {"code", "message", "hint"}}`; what the database said is logged and never
//! sent. Who may read `/api` is [`Access`]' to say. There is no CORS: no other site's page reads this.

mod access;
mod api;
mod database;
mod error;
mod health;
mod page;
mod parameters;

pub use self::access::Access;
pub use self::database::Database;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::error::ApiError;
use crate::engine::status::Status;
use crate::ident::Ident;
use crate::metrics::Metrics;

/// The longest a request may take. Longer than the database's own limit, whose error says more.
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
    /// Who may read `/api`.
    pub access: Arc<Access>,
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
        let shutdown = shutdown.clone();
        async move {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN_LIMIT).await;
        }
    };
    let server =
        axum::serve(listener, router(state)).with_graceful_shutdown(shutdown.cancelled_owned());
    tokio::select! {
        // Dropping the other side is right either way: it has ended, or its time is up.
        ended = server => ended,
        () = drained => Ok(()),
    }
}

/// All routes.
pub fn router(state: AppState) -> Router {
    let api = Router::new()
        .route("/projections", get(api::projections))
        .route("/projections/{name}", get(api::projection))
        .route("/runs", get(api::runs))
        .route("/runs/{id}", get(api::run))
        .route("/runs/{id}/log", get(api::log))
        .route_layer(middleware::from_fn_with_state(state.clone(), access::guard));
    Router::new()
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::script))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .nest("/api", api)
        .fallback(|| async { ApiError::no_such_route() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(middleware::from_fn(limit_time))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(state)
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::timeout().into_response(),
    }
}
