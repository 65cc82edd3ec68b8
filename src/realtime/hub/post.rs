//! Sending over HTTP, as Supabase Realtime takes it: many messages, or one.
//!
//! | | batch | single |
//! |---|---|---|
//! | accepted | 202 | 202 |
//! | no token that counts | 401 | 401 |
//! | private, and not the service's token | 202, and nothing is sent | 403 |
//! | what it is not | 422 with what is wrong where | 422, 415 |
//! | another process serves | 503 | 503 |

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::cast::{Cast, LONGEST_NAME, PREFIX};
use super::frame::Payload;
use super::server::{Hub, STANDS_BY};
use super::token::{self, Token};
use super::topics::Sent;

/// One message of a batch, before anything is known about it.
#[derive(Deserialize)]
struct Draft<'a> {
    #[serde(default)]
    topic: Value,
    #[serde(default)]
    event: Value,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    private: Value,
    #[serde(default)]
    id: Value,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, default)]
    messages: Vec<Draft<'a>>,
}

/// One message of a batch that can be sent.
struct Checked<'a> {
    topic: &'a str,
    event: &'a str,
    payload: &'a RawValue,
    private: bool,
    id: Option<&'a str>,
}

/// Many messages; all of them, or none if one is wrong.
pub(super) async fn batch(State(hub): State<Hub>, headers: HeaderMap, body: Bytes) -> Response {
    let token = match authorize(&hub, &headers).await {
        Ok(token) => token,
        Err(refused) => return refused,
    };
    let Batch { messages } = match serde_json::from_slice(&body) {
        Ok(batch) => batch,
        Err(error) if error.is_data() => {
            return wrong(&json!({ "messages": ["is invalid"] }));
        }
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "Bad Request"),
    };
    if messages.is_empty() {
        return wrong(&json!({ "messages": ["can't be blank"] }));
    }
    let mut checked = Vec::with_capacity(messages.len());
    let mut errors = Vec::with_capacity(messages.len());
    for draft in &messages {
        let mut found = Map::new();
        checked.extend(draft.check(&mut found));
        errors.push(Value::Object(found));
    }
    if checked.len() < messages.len() {
        return wrong(&json!({ "messages": errors }));
    }
    let mut sum = Sent::default();
    for it in checked.iter().filter(|it| !it.private || token.is_service()) {
        let cast = Cast::text(it.topic, it.event, it.private, it.payload, it.id);
        sum += hub.topics().send(&cast, None);
    }
    hub.count(sum);
    StatusCode::ACCEPTED.into_response()
}

#[derive(Deserialize)]
pub(super) struct Side {
    private: Option<bool>,
}

/// One message: JSON, or bytes of any kind.
pub(super) async fn single(
    State(hub): State<Hub>,
    Path((topic, event)): Path<(String, String)>,
    Query(Side { private }): Query<Side>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = match authorize(&hub, &headers).await {
        Ok(token) => token,
        Err(refused) => return refused,
    };
    let private = private.unwrap_or(false);
    if private && !token.is_service() {
        return refuse(StatusCode::FORBIDDEN, "Unauthorized");
    }
    let mut errors = Map::new();
    name("topic", &topic, PREFIX.len(), &mut errors);
    name("event", &event, 0, &mut errors);
    let kind = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or("");
    let payload = match kind.split(';').next().unwrap_or("").trim() {
        "application/octet-stream" => Payload::Binary(body),
        "application/json" => match serde_json::from_slice::<&RawValue>(&body) {
            Ok(json) if is_object(json) => Payload::Json(json.get().into()),
            Ok(_) => return wrong(&json!({ "payload": ["is invalid"] })),
            Err(_) => return refuse(StatusCode::BAD_REQUEST, "Bad Request"),
        },
        _ => {
            let error = "Unsupported Media Type. Use application/json or application/octet-stream";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return (status, Json(json!({ "error": error }))).into_response();
        }
    };
    if !errors.is_empty() {
        return wrong(&Value::Object(errors));
    }
    let cast = Cast::frame(&topic, &event, private, &payload);
    hub.count(hub.topics().send(&cast, None));
    StatusCode::ACCEPTED.into_response()
}

impl<'a> Draft<'a> {
    fn check(&'a self, errors: &mut Map<String, Value>) -> Option<Checked<'a>> {
        let topic = text("topic", &self.topic, PREFIX.len(), errors);
        let event = text("event", &self.event, 0, errors);
        let payload = self.payload.filter(|it| it.get() != "null");
        match payload {
            None => complain("payload", "can't be blank", errors),
            Some(it) if !is_object(it) => complain("payload", "is invalid", errors),
            Some(_) => {}
        }
        let private = match &self.private {
            Value::Null => false,
            Value::Bool(it) => *it,
            Value::String(it) if it == "true" || it == "false" => it == "true",
            _ => {
                complain("private", "is invalid", errors);
                false
            }
        };
        if !errors.is_empty() {
            return None;
        }
        let id = self.id.as_str();
        Some(Checked { topic: topic?, event: event?, payload: payload?, private, id })
    }
}

fn text<'a>(
    key: &str,
    value: &'a Value,
    prefix: usize,
    errors: &mut Map<String, Value>,
) -> Option<&'a str> {
    match value {
        Value::String(text) => name(key, text, prefix, errors),
        Value::Null => complain(key, "can't be blank", errors),
        _ => complain(key, "is invalid", errors),
    }
    value.as_str()
}

fn name(key: &str, text: &str, prefix: usize, errors: &mut Map<String, Value>) {
    if text.trim().is_empty() {
        complain(key, "can't be blank", errors);
    } else if LONGEST_NAME < prefix + text.len() {
        let most = LONGEST_NAME - prefix;
        complain(key, &format!("should be at most {most} byte(s)"), errors);
    }
}

fn complain(key: &str, text: &str, errors: &mut Map<String, Value>) {
    errors.insert(key.to_owned(), json!([text]));
}

fn is_object(json: &RawValue) -> bool {
    json.get().starts_with('{')
}

/// The token in `Authorization`, or else in `apikey`, where there is somebody to send to.
async fn authorize(hub: &Hub, headers: &HeaderMap) -> Result<Token, Response> {
    let header = |name: &str| headers.get(name).and_then(|it| it.to_str().ok());
    let given = match header("authorization") {
        Some(text) => text.split_once(' ').map(|(_bearer, token)| token.trim()),
        None => header("apikey"),
    };
    let refused = || refuse(StatusCode::UNAUTHORIZED, "Unauthorized");
    let given = given.ok_or_else(refused)?;
    let token = hub.keys().check(given, token::now()).await.map_err(|_| refused())?;
    if !hub.leads() {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, STANDS_BY));
    }
    Ok(token)
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}

fn wrong(errors: &Value) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "errors": errors }))).into_response()
}
