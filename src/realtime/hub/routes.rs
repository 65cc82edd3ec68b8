//! The addresses of the hub: the WebSocket, and sending over HTTP. Any site's page may use them, as
//! with Supabase: what counts is the token, which no browser sends by itself.

use axum::Json;
use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::post;
use super::server::{Hub, NoPlace, STANDS_BY};
use super::socket;
use super::token;
use super::version::Version;

/// The largest body of a request that sends, in bytes.
const BODY_LIMIT: usize = 3_000_000;

/// The largest frame of a client, in bytes.
const FRAME_LIMIT: usize = 256 * 1024;

/// What is read and written at once. Small, since there is one each per socket.
const BUFFER: usize = 4 * 1024;

/// Who may ask for what, from another site's page.
const ALLOWED: [(HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, apikey, content-type, x-client-info"),
    (header::ACCESS_CONTROL_MAX_AGE, "86400"),
];

impl Hub {
    /// Its routes: those of a Supabase gateway, and the WebSocket's of Realtime itself.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/realtime/v1/websocket", get(connect))
            .route("/socket/websocket", get(connect))
            .route("/realtime/v1/api/broadcast", post(post::batch))
            .route("/realtime/v1/api/broadcast/{topic}/events/{event}", post(post::single))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .layer(middleware::from_fn(allow_all))
            .with_state(self.clone())
    }
}

#[derive(Deserialize)]
struct Handshake {
    apikey: Option<String>,
    vsn: Option<String>,
}

/// Opens a WebSocket, for whoever has a token that counts.
async fn connect(
    State(hub): State<Hub>,
    Query(Handshake { apikey, vsn }): Query<Handshake>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let Some(version) = Version::read(vsn.as_deref()) else {
        return refuse(StatusCode::BAD_REQUEST, "`vsn` is 1.0.0 or 2.0.0");
    };
    let header = headers.get("x-api-key").and_then(|it| it.to_str().ok());
    let Some(key) = header.or(apikey.as_deref()) else {
        return refuse(StatusCode::UNAUTHORIZED, "API key is missing");
    };
    let token = match hub.keys().check(key, token::now()).await {
        Ok(token) => token,
        Err(error) => return refuse(StatusCode::UNAUTHORIZED, &error.handshake()),
    };
    let place = match hub.place() {
        Ok(place) => place,
        Err(NoPlace::StandsBy) => return refuse(StatusCode::SERVICE_UNAVAILABLE, STANDS_BY),
        Err(NoPlace::Full) => {
            hub.metrics().realtime_refused_joins_total.with_label_values(&["sockets"]).inc();
            return refuse(StatusCode::TOO_MANY_REQUESTS, "Too many connected users");
        }
    };
    upgrade
        .max_message_size(FRAME_LIMIT)
        .max_frame_size(FRAME_LIMIT)
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .on_upgrade(move |socket| async move {
            let sockets = hub.metrics().realtime_sockets.clone();
            sockets.inc();
            hub.track(socket::serve(hub.clone(), socket, version, token, place)).await;
            sockets.dec();
        })
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

async fn allow_all(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in ALLOWED {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
