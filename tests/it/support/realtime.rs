//! A Realtime as the real one answers over HTTP, and a viewer as the client recipe has it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use crate::support::eventually::eventually;

/// What the stub does with its next request instead of what the real server would do.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// Answers this: status, a header, body.
    Answer(u16, Option<(&'static str, &'static str)>, &'static str),
    /// Closes the connection.
    Reset,
    /// Never answers.
    Hang,
}

/// How the stub's project is set up.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    /// The Host header's first label, where there is no gateway.
    pub(crate) tenant: Option<&'static str>,
    /// The only key.
    pub(crate) key: &'static str,
    /// Whether the key's role may send private messages.
    pub(crate) may_send: bool,
    /// The most bytes of a body.
    pub(crate) body: usize,
    /// The most bytes of a payload.
    pub(crate) payload: usize,
    /// The most messages in a batch.
    pub(crate) batch: usize,
}

impl Default for Project {
    fn default() -> Self {
        Self {
            tenant: None,
            key: "sb_secret_test",
            may_send: true,
            body: 8_000_000,
            payload: 256_000,
            batch: 100,
        }
    }
}

/// The stub: answers, and remembers what it has taken.
#[derive(Clone)]
pub(crate) struct Realtime {
    shared: Arc<Mutex<Shared>>,
    port: u16,
}

#[derive(Default)]
struct Shared {
    project: Project,
    next: VecDeque<Next>,
    /// Answers everything so, until told otherwise.
    always: Option<Next>,
    asked: usize,
    canaries: usize,
    taken: Vec<Value>,
}

impl Realtime {
    /// Listens on a free port.
    pub(crate) async fn start(project: Project) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let it = Self { shared: Arc::default(), port };
        it.shared.lock().unwrap().project = project;
        let router = Router::new()
            .route("/realtime/v1/api/broadcast", post(batch))
            .route("/realtime/v1/api/broadcast/{topic}/events/{event}", post(single))
            .route("/api/broadcast", post(batch))
            .route("/api/broadcast/{topic}/events/{event}", post(single))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(it.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        it
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it does with the next requests for batches.
    pub(crate) fn then(&self, next: impl IntoIterator<Item = Next>) {
        self.shared.lock().unwrap().next.extend(next);
    }

    /// What it does with all requests, until `None`.
    pub(crate) fn always(&self, next: Option<Next>) {
        self.shared.lock().unwrap().always = next;
    }

    /// The messages it has taken, in order.
    pub(crate) fn taken(&self) -> Vec<Value> {
        self.shared.lock().unwrap().taken.clone()
    }

    /// How often it was asked, and how often by a canary.
    pub(crate) fn asked(&self) -> (usize, usize) {
        let shared = self.shared.lock().unwrap();
        (shared.asked, shared.canaries)
    }

    /// Waits until it has taken so many lines of an event.
    pub(crate) async fn takes(&self, event: &str, lines: usize) -> Vec<Value> {
        eventually(&format!("{lines} lines of `{event}`"), async || {
            let taken = self.taken();
            let of_event = taken.iter().filter(|it| it["event"] == event);
            let found: usize = of_event.map(|it| lines_of(it).len()).sum();
            if lines <= found { Ok(taken) } else { Err(found) }
        })
        .await
    }

    fn answer(&self, headers: &HeaderMap, uri: &Uri, body: &Bytes) -> Option<Response> {
        let mut shared = self.shared.lock().unwrap();
        shared.asked += 1;
        let Project { tenant, key, .. } = shared.project;
        let header = |name: &str| headers.get(name).map(|it| it.to_str().unwrap().to_owned());
        assert_eq!(header("content-type").as_deref(), Some("application/json"));
        assert_eq!(uri.path().starts_with("/realtime/v1"), tenant.is_none(), "{uri}");
        if let Some(tenant) = tenant {
            let host = header("host").unwrap_or_default();
            if host.split('.').next() != Some(tenant) {
                return Some(message(401, "Tenant not found in database"));
            }
        }
        // the gateway makes a JWT of a secret key; as a bearer it is none
        let bearer = header("authorization");
        assert_eq!(bearer.is_some(), !key.starts_with("sb_"), "{bearer:?}");
        let is_known = header("apikey").as_deref() == Some(key)
            && bearer.is_none_or(|it| it == format!("Bearer {key}"));
        if !is_known {
            return Some(message(401, "Unauthorized"));
        }
        (shared.project.body < body.len()).then(|| StatusCode::PAYLOAD_TOO_LARGE.into_response())
    }

    async fn scripted(&self) -> Option<Response> {
        let next = {
            let mut shared = self.shared.lock().unwrap();
            shared.always.clone().or_else(|| shared.next.pop_front())
        };
        Some(match next? {
            Next::Answer(status, header, body) => {
                let status = StatusCode::from_u16(status).unwrap();
                match header {
                    Some(it) => (status, [it], body).into_response(),
                    None => (status, body).into_response(),
                }
            }
            // the server closes the connection of a handler that ends so
            Next::Reset => std::panic::resume_unwind(Box::new("reset")),
            Next::Hang => std::future::pending().await,
        })
    }
}

/// Lines of a message.
pub(crate) fn lines_of(message: &Value) -> &Vec<Value> {
    message["payload"]["lines"].as_array().unwrap()
}

fn message(status: u16, text: &str) -> Response {
    let body = json!({ "message": text }).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

async fn batch(
    State(realtime): State<Realtime>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Response {
    if let Some(answer) = realtime.answer(&headers, &uri, &body) {
        return answer;
    }
    if let Some(answer) = realtime.scripted().await {
        return answer;
    }
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut shared = realtime.shared.lock().unwrap();
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    let errors: Vec<_> = messages.iter().map(|it| problems(it, shared.project.payload)).collect();
    if messages.is_empty() || errors.iter().any(|it| *it != json!({})) {
        let body = json!({ "errors": { "messages": errors } }).to_string();
        return (StatusCode::UNPROCESSABLE_ENTITY, body).into_response();
    }
    if shared.project.batch < messages.len() {
        let text = "Too many messages to broadcast, please reduce the batch size";
        return message(429, text);
    }
    let may_send = shared.project.may_send;
    shared.taken.extend(messages.into_iter().filter(|it| may_send || it["private"] != true));
    StatusCode::ACCEPTED.into_response()
}

fn problems(message: &Value, most: usize) -> Value {
    for field in ["topic", "event"] {
        if message[field].as_str().is_none_or(|it| it.trim().is_empty()) {
            return json!({ field: ["can't be blank"] });
        }
    }
    let size = message["payload"].to_string().len();
    match &message["payload"] {
        Value::Object(_) if size <= most => json!({}),
        Value::Object(_) => json!({ "payload": ["Payload size exceeds tenant limit"] }),
        _ => json!({ "payload": ["is invalid"] }),
    }
}

async fn single(
    State(realtime): State<Realtime>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Response {
    if let Some(answer) = realtime.answer(&headers, &uri, &body) {
        return answer;
    }
    let mut shared = realtime.shared.lock().unwrap();
    shared.canaries += 1;
    if shared.project.may_send || uri.query() != Some("private=true") {
        return StatusCode::ACCEPTED.into_response();
    }
    message(403, "Unauthorized")
}

/// Follows the runs' topics as the client recipe does: what is missing is fetched.
#[derive(Debug, Default)]
pub(crate) struct Viewer {
    /// Up to which version each run is known.
    pub(crate) last: BTreeMap<String, i64>,
    /// The versions that came live, by run.
    pub(crate) live: BTreeMap<String, Vec<i64>>,
    /// How often something was missing.
    pub(crate) holes: usize,
}

impl Viewer {
    /// Takes a message of a run's log.
    pub(crate) fn take(&mut self, message: &Value) {
        let run = message["topic"].as_str().unwrap().strip_prefix("run:").unwrap().to_owned();
        let last = self.last.entry(run.clone()).or_default();
        let prev = message["payload"]["prev"].as_i64();
        if prev.is_none_or(|it| *last < it) {
            self.holes += 1;
        }
        let live = self.live.entry(run).or_default();
        let mut before = prev;
        for line in lines_of(message) {
            let version = line["version"].as_i64().unwrap();
            assert_eq!(before.map_or(version, |it| it + 1), version, "{message}");
            before = Some(version);
            if *last < version {
                live.push(version);
            }
            *last = (*last).max(version);
        }
        assert_eq!(message["payload"]["head"].as_i64(), before);
    }
}
