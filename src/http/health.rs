//! `/healthz`, `/readyz`, `/metrics`: for orchestrators and Prometheus. Open to everyone who can reach
//! the listener, and answered from memory.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::AppState;
use crate::engine::status::Status;
use crate::event::Timestamp;
use crate::metrics;

/// The process lives. Anything more would let an outage of Postgres restart every projector.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 `ready`, or 503 with a reason a line. With `?verbose`, each projection's line follows.
pub(super) async fn readyz(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    let status = latest(&state);
    let mut text =
        if status.ready { "ready\n".to_owned() } else { lines(status.reasons.iter().cloned()) };
    let parameters = query.as_deref().unwrap_or_default().split('&');
    if parameters.into_iter().any(|it| it.split('=').next() == Some("verbose")) {
        text.push_str(&lines(status.projections.iter().map(|it| {
            format!("{} {} lag {} bytes {:.1} s", it.name, it.state, it.lag_bytes, it.lag_seconds)
        })));
    }
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(header::CACHE_CONTROL, "no-store")], text)
}

/// All metrics, with the gauges set from the latest snapshot.
pub(super) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    latest(&state).publish(&state.metrics);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], state.metrics.encode())
}

/// The engine's latest snapshot, judged at this moment: an engine that hangs cannot publish that it
/// does.
pub(super) fn latest(state: &AppState) -> Status {
    let status = Status::clone(&state.status.borrow());
    status.judged(now())
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
}

fn lines(texts: impl Iterator<Item = String>) -> String {
    // A projection's error may have several lines; a reason is one.
    texts.map(|it| it.replace(['\n', '\r'], " ") + "\n").collect()
}
