//! A Supabase Realtime through its HTTP API: one request after the other, so that order holds.
//!
//! The batch endpoint answers 202 even when it throws private messages away, because the key may not
//! send them or its database is out of reach. So the first thing sent is a canary to the endpoint for
//! single messages, which says so.

mod answer;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use reqwest::{Client, RequestBuilder, Response, redirect};

use self::answer::{Answer, batch, canary};
use crate::pg::tls;
use crate::realtime::Message;
use crate::realtime::sink::Refusal;
use crate::realtime::target::Gateway;

/// A server that does not take our connection is given up after this long …
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// … and one that does not answer after this long.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// More of an answer than this is not read.
const LONGEST_ANSWER: usize = 4096;
/// Nobody joins this topic.
const CANARY: &str = "projector%3Acanary/events/canary?private=true";

/// Sends to a Realtime over HTTP.
#[derive(Debug)]
pub(super) struct HttpSink {
    gateway: Gateway,
    client: Client,
    allowed: Option<f64>,
}

impl HttpSink {
    /// One that has sent nothing yet.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub(super) fn new(gateway: Gateway) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls::web())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            // a key is for the server that it was meant for
            .redirect(redirect::Policy::none())
            .user_agent(concat!("projector/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { gateway, client, allowed: None })
    }

    pub(super) fn allowed(&self) -> Option<f64> {
        self.allowed
    }

    pub(super) async fn probe(&mut self, is_private: bool) -> Result<(), Refusal> {
        if !is_private {
            return Ok(());
        }
        let endpoint = format!("{}/{CANARY}", self.gateway.endpoint);
        let answer = self.ask(self.client.post(endpoint).body("{}")).await?;
        canary(&answer)
    }

    pub(super) async fn post(&mut self, messages: &[Message]) -> Result<(), Refusal> {
        let request = self.client.post(&self.gateway.endpoint).body(body(messages));
        let answer = self.ask(request).await?;
        batch(&answer, messages.len())
    }

    async fn ask(&mut self, request: RequestBuilder) -> Result<Answer, Refusal> {
        let mut request = request
            .header(CONTENT_TYPE, "application/json")
            .header("apikey", self.gateway.key.clone());
        if let Some(bearer) = &self.gateway.bearer {
            request = request.header(AUTHORIZATION, bearer.clone());
        }
        if let Some(host) = &self.gateway.host {
            request = request.header(HOST, host.clone());
        }
        let response = request.send().await.map_err(|error| unanswered(&error))?;
        let answer = read(response).await;
        self.allowed = answer.rate_limit.or(self.allowed);
        Ok(answer)
    }
}

/// What could not be asked, or was not answered: worth another try, always.
fn unanswered(error: &reqwest::Error) -> Refusal {
    let what = if error.is_timeout() {
        "does not answer in time"
    } else if error.is_connect() {
        "cannot be reached"
    } else {
        "broke the connection"
    };
    let mut cause = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(it) = source {
        cause = format!(": {it}");
        source = it.source();
    }
    Refusal::later(format!("the Realtime server {what}{cause}"))
}

async fn read(mut response: Response) -> Answer {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let (location, retry_after) = (header("location"), header("retry-after"));
    let rate_limit = header("x-rate-limit").and_then(|it| it.parse().ok());
    let rolling = header("x-rate-rolling");
    let mut bytes = Vec::new();
    // what it says only explains its status
    while bytes.len() < LONGEST_ANSWER
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(LONGEST_ANSWER);
    let body = String::from_utf8_lossy(&bytes).into_owned();
    Answer { status, body, location, retry_after, rate_limit, rolling }
}

/// The payloads are JSON already.
fn body(messages: &[Message]) -> String {
    let size: usize = messages.iter().map(|it| it.payload.len() + 256).sum();
    let mut body = String::with_capacity(size);
    body.push_str("{\"messages\":[");
    for (number, it) in messages.iter().enumerate() {
        let text = |it: &str| serde_json::Value::from(it).to_string();
        body.push_str(if number == 0 { "{\"topic\":" } else { ",{\"topic\":" });
        body.push_str(&text(&it.topic));
        body.push_str(",\"event\":");
        body.push_str(&text(&it.event));
        body.push_str(if it.private { ",\"private\":true" } else { ",\"private\":false" });
        body.push_str(&format!(",\"id\":\"{}\",\"payload\":", it.id));
        body.push_str(&it.payload);
        body.push('}');
    }
    body.push_str("]}");
    body
}
