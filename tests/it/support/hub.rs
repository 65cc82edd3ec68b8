//! A sidecar with the embedded Realtime, and clients that speak its protocol frame by frame.

use futures_util::{SinkExt, StreamExt};
use projector::realtime::Message as Broadcast;
use projector::realtime::hub::sign;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use crate::support::app::{App, Sidecar};
use crate::support::eventually::limit;

/// What signs tokens.
pub(crate) const SECRET: &str = "a secret of the tests, and long enough for it";

/// A migrated database, and a sidecar beside it that serves Realtime.
pub(crate) struct Live {
    pub(crate) app: App,
    pub(crate) sidecar: Sidecar,
    pub(crate) address: String,
    http: reqwest::Client,
    settings: Vec<(String, String)>,
}

impl Live {
    pub(crate) async fn start() -> Self {
        Self::with(App::shipped().await, &[]).await
    }

    /// With further settings, as environment variables.
    pub(crate) async fn with(app: App, settings: &[(&str, &str)]) -> Self {
        let defaults =
            [("PROJECTOR_REALTIME_MODE", "embedded"), ("PROJECTOR_REALTIME_JWT_SECRET", SECRET)];
        let settings: Vec<(String, String)> = defaults
            .iter()
            .chain(settings)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let sidecar = spawn(&app, &settings, "127.0.0.1:0");
        sidecar.says("\"ready\"").await;
        let address = sidecar.address().await;
        drop(rustls::crypto::ring::default_provider().install_default());
        Self { app, sidecar, address, http: reqwest::Client::new(), settings }
    }

    /// Kills the sidecar as the kernel would, and starts another on the same port.
    pub(crate) async fn crash(self) -> Self {
        let Self { app, sidecar, address, http, settings } = self;
        sidecar.kill9();
        let sidecar = spawn(&app, &settings, &address);
        sidecar.says("\"ready\"").await;
        Self { app, sidecar, address, http, settings }
    }

    /// Another sidecar of the same slot, and its address.
    pub(crate) async fn second(&self) -> (Sidecar, String) {
        let sidecar = spawn(&self.app, &self.settings, "127.0.0.1:0");
        sidecar.says("standing by").await;
        let address = sidecar.address().await;
        (sidecar, address)
    }

    /// Kills the sidecar as the kernel would, and goes on with another one.
    pub(crate) async fn killed_for(self, (sidecar, address): (Sidecar, String)) -> Self {
        let Self { app, sidecar: first, http, settings, .. } = self;
        first.kill9();
        sidecar.says("\"ready\"").await;
        Self { app, sidecar, address, http, settings }
    }

    /// Where supabase-js is pointed to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Appends events of these types to a run, and gives their versions.
    pub(crate) async fn append(&self, project: Uuid, run: Uuid, events: &Value) {
        let sql = "select append_events($1, $2, null, $3)";
        self.app.client().await.query(sql, &[&project, &run, events]).await.unwrap();
    }

    /// Posts a batch with a token, and gives the status.
    pub(crate) async fn post(&self, token: &str, messages: &Value) -> u16 {
        let url = format!("{}/realtime/v1/api/broadcast", self.url());
        let request = self.http.post(url).bearer_auth(token).json(&json!({ "messages": messages }));
        request.send().await.unwrap().status().as_u16()
    }

    /// Sends a private message to a topic, as the service.
    pub(crate) async fn publish(&self, topic: &str, payload: Value) {
        let message =
            json!({ "topic": topic, "event": "log", "private": true, "payload": payload });
        assert_eq!(self.post(&service(), &json!([message])).await, 202);
    }

    /// A request that is finished by the caller.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method.parse().unwrap(), format!("{}{path}", self.url()))
    }

    /// A metric's value.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.sidecar.get("/metrics").await.1;
        let line = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
        line.map(|it| it.parse().unwrap())
    }

    /// Connects with a token.
    pub(crate) async fn connect(&self, token: &str, version: &str) -> Wire {
        self.try_connect(token, version).await.unwrap()
    }

    /// Connects, if the server lets it: otherwise the status and the body.
    pub(crate) async fn try_connect(
        &self,
        token: &str,
        version: &str,
    ) -> Result<Wire, (u16, String)> {
        Wire::connect(&self.address, token, version).await
    }
}

fn spawn(app: &App, settings: &[(String, String)], listen: &str) -> Sidecar {
    let mut command = app.command("run");
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    command.env("PROJECTOR_HTTP_LISTEN", listen);
    Sidecar::spawn(command)
}

/// Seconds since 1970, and so many more.
pub(crate) fn in_seconds(more: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + more
}

/// A token with these claims, for an hour unless they say otherwise.
pub(crate) fn token(mut claims: Value) -> String {
    if claims.get("exp").is_none() {
        claims["exp"] = in_seconds(3600).into();
    }
    sign(SECRET, &claims).unwrap()
}

/// The key that everybody has.
pub(crate) fn anon() -> String {
    token(json!({ "role": "anon" }))
}

/// What other servers send with.
pub(crate) fn service() -> String {
    token(json!({ "role": "service_role" }))
}

/// A user who is a member of these projects.
pub(crate) fn member(projects: &[Uuid]) -> String {
    token(
        json!({ "role": "authenticated", "sub": Uuid::new_v4(), "app_metadata": { "projects": projects } }),
    )
}

/// A connection.
pub(crate) struct Wire {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    is_second: bool,
    next: u64,
}

/// What came over a connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Came {
    /// A frame in text: the reference, the topic, the event and the payload.
    Text { join_ref: Value, reference: Value, topic: String, event: String, payload: Value },
    /// A binary frame.
    Binary(Vec<u8>),
    /// The end, with its code if there was one.
    Closed(Option<u16>),
}

impl Came {
    pub(crate) fn payload(&self) -> &Value {
        let Self::Text { payload, .. } = self else { panic!("{self:?}") };
        payload
    }

    pub(crate) fn event(&self) -> &str {
        match self {
            Self::Text { event, .. } => event,
            _ => "",
        }
    }
}

impl Wire {
    /// Connects to a hub, if it lets: otherwise the status and the body.
    pub(crate) async fn connect(
        address: &str,
        token: &str,
        version: &str,
    ) -> Result<Self, (u16, String)> {
        let path = format!("/realtime/v1/websocket?apikey={token}&vsn={version}");
        match connect_async(format!("ws://{address}{path}")).await {
            Ok((socket, _)) => Ok(Self { socket, is_second: version == "2.0.0", next: 0 }),
            Err(Error::Http(answer)) => {
                let body = answer.body().clone().unwrap_or_default();
                Err((answer.status().as_u16(), String::from_utf8(body).unwrap()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a frame as a client would, and gives its reference.
    pub(crate) async fn send(&mut self, topic: &str, event: &str, payload: Value) -> String {
        self.next += 1;
        let reference = self.next.to_string();
        let join_ref = if event == "phx_join" { json!(reference) } else { Value::Null };
        let frame = if self.is_second {
            json!([join_ref, reference, topic, event, payload])
        } else {
            json!({ "topic": topic, "event": event, "payload": payload, "ref": reference, "join_ref": join_ref })
        };
        self.raw(Message::text(frame.to_string())).await;
        reference
    }

    /// Sends anything.
    pub(crate) async fn raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Waits for what comes next.
    pub(crate) async fn next(&mut self) -> Came {
        let came = tokio::time::timeout(limit(), self.socket.next());
        match came.await.expect("something comes") {
            Some(Ok(Message::Text(text))) => self.read(&text),
            Some(Ok(Message::Binary(bytes))) => Came::Binary(bytes.to_vec()),
            Some(Ok(Message::Close(frame))) => Came::Closed(frame.map(|it| it.code.into())),
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(_)) | None => Came::Closed(None),
        }
    }

    fn read(&self, text: &str) -> Came {
        let frame: Value = serde_json::from_str(text).unwrap();
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        if self.is_second {
            let [join_ref, reference, topic, event, payload] =
                <[Value; 5]>::try_from(frame.as_array().unwrap().clone()).unwrap();
            return Came::Text {
                join_ref,
                reference,
                topic: text(&topic),
                event: text(&event),
                payload,
            };
        }
        Came::Text {
            join_ref: Value::Null,
            reference: frame["ref"].clone(),
            topic: text(&frame["topic"]),
            event: text(&frame["event"]),
            payload: frame["payload"].clone(),
        }
    }

    /// Sends a frame and waits for its answer: what came before it, and the answer's payload.
    pub(crate) async fn ask(
        &mut self,
        topic: &str,
        event: &str,
        payload: Value,
    ) -> (Vec<Came>, Value) {
        let wanted = json!(self.send(topic, event, payload).await);
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Came::Text { reference, event, payload, .. }
                    if event == "phx_reply" && reference == wanted =>
                {
                    return (before, payload);
                }
                Came::Closed(code) => panic!("closed with {code:?} after {before:?}"),
                other => before.push(other),
            }
        }
    }

    /// Joins a bare topic, and gives the answer.
    pub(crate) async fn join(&mut self, topic: &str, private: bool, token: Option<&str>) -> Value {
        let mut payload = json!({ "config": { "private": private } });
        if let Some(token) = token {
            payload["access_token"] = token.into();
        }
        self.ask(&format!("realtime:{topic}"), "phx_join", payload).await.1
    }

    /// All that has come until now.
    pub(crate) async fn so_far(&mut self) -> Vec<Came> {
        self.ask("phoenix", "heartbeat", json!({})).await.0
    }

    /// Waits until the other side ends it, and gives the code.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            if let Came::Closed(code) = self.next().await {
                return code;
            }
        }
    }
}

/// A message as the engine publishes it.
pub(crate) fn message(topic: &str, private: bool, payload: Value) -> Broadcast {
    Broadcast {
        topic: topic.into(),
        event: "log".into(),
        private,
        id: Uuid::nil(),
        payload: payload.to_string().into(),
    }
}
