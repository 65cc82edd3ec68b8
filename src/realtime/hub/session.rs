//! What one client has joined, and what becomes of each of its frames. No I/O: frames come in, and
//! [`Session::out`] gathers what is to be sent; questions to the database are tasks of their own, which
//! go on while nobody waits for them.
//!
//! ```text
//!  phx_join ─▶ asking ─yes─▶ open ──┬─ access_token ─▶ asking again, nothing delivered meanwhile
//!                 │                 ├─ now and then ─▶ asking again
//!                 no                ├─ phx_leave, another phx_join ─▶ phx_close
//!                 ▼                 └─ the token expires, or a no ─▶ system, phx_close
//!            phx_reply error
//! ```

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::extract::ws::Message as Outgoing;
use futures_util::FutureExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::admit::{Claim, Refusal, admit};
use super::answer::Answer;
use super::cast::{Cast, LONGEST_NAME, PREFIX};
use super::frame::{Body, Frame, Payload, Reference};
use super::join::{self, Wishes};
use super::queue::{Overflow, Queue};
use super::server::Hub;
use super::token::{self, Token, TokenError};
use super::topics::{Channel, Delivery, Listener};
use super::version::Version;

/// The topic of the connection itself.
const CONNECTION: &str = "phoenix";

/// What a client is told who wants more than there is.
const NO_CHANGES: &str =
    "postgres_changes is not served here: projector sends broadcasts of what it has written";

/// The longest payload of a join, in bytes: what it asks for is kept until it is answered.
const LONGEST_JOIN: usize = 32 * 1024;

/// How many questions of a client are asked at once.
const TURNS: usize = 2;

/// A question that is being asked.
type Asking = Pin<Box<dyn Future<Output = Result<Asked, JoinError>> + Send>>;

/// One client's side of the hub.
pub(super) struct Session {
    hub: Hub,
    version: Version,
    /// The token that the client connected with.
    token: Arc<Token>,
    queue: Arc<Queue<Delivery>>,
    channels: Vec<Joined>,
    /// Questions that are being asked.
    pub(super) asking: FuturesUnordered<Asking>,
    /// What is to be sent, in order.
    pub(super) out: Vec<Outgoing>,
    last_number: u64,
    /// Few questions of a client are asked at once: it does not keep others from asking.
    turns: Arc<Semaphore>,
    /// Since when there has been no channel.
    pub(super) lonely_since: Option<Instant>,
}

/// A channel, or what is to become one.
struct Joined {
    number: u64,
    /// The bare topic.
    topic: Arc<str>,
    /// With the prefix.
    full_topic: String,
    join_ref: Reference,
    wishes: Wishes,
    state: State,
    /// Which question counts: earlier ones are not asked any more, and their answers mean nothing. None
    /// does once the channel is gone.
    question: Arc<AtomicU64>,
    /// Whether nothing is delivered until the answer is there.
    is_paused: bool,
    checked_at: Instant,
}

enum State {
    /// Not yet let in; the reference of the join.
    Asking(Reference),
    Open(Arc<Token>),
}

/// An answer.
pub(super) struct Asked {
    channel: u64,
    question: u64,
    outcome: Result<Arc<Token>, Refusal>,
}

impl Session {
    /// A client that has joined nothing yet.
    pub(super) fn new(hub: Hub, version: Version, token: Token, now: Instant) -> Self {
        let queue = Arc::new(Queue::new(hub.limits().queue_bytes));
        Self {
            hub,
            version,
            token: Arc::new(token),
            queue,
            channels: Vec::new(),
            asking: FuturesUnordered::new(),
            out: Vec::new(),
            last_number: 0,
            turns: Arc::new(Semaphore::new(TURNS)),
            lonely_since: Some(now),
        }
    }

    /// What waits for the client.
    pub(super) fn queue(&self) -> Arc<Queue<Delivery>> {
        Arc::clone(&self.queue)
    }

    /// Whether what waits is to go on waiting, since nobody knows whether the client may hear it.
    pub(super) fn is_paused(&self) -> bool {
        self.channels.iter().any(|it| it.is_paused)
    }

    /// Takes what waits, and leaves out what was for channels that are closed by now.
    pub(super) fn deliver(&mut self) -> Result<(), Overflow> {
        for Delivery { channel, frame } in self.queue.take()? {
            if self.channels.iter().any(|it| it.number == channel) {
                self.out.push(frame);
            }
        }
        Ok(())
    }

    /// Does what a frame asks for.
    pub(super) fn receive(&mut self, frame: Frame, now: Instant) {
        let Frame { join_ref, reference, topic, body } = frame;
        let body = match body {
            Body::Text { event, payload } if event == "phx_join" => {
                return self.join(topic, join_ref, reference, &payload, now);
            }
            other => other,
        };
        let known = self.channels.iter().position(|it| it.full_topic == topic);
        let Some(channel) = known.and_then(|it| self.channels.get(it)) else {
            return self.outside(&topic, &reference, &body);
        };
        let is_of_another = join_ref != Reference::null() && join_ref != channel.join_ref;
        let number = channel.number;
        match body {
            Body::Text { event, .. } if event == "phx_leave" => {
                let ok = channel.answer(self.version).ok(&reference, &json!({}));
                self.out.push(ok);
                if !is_of_another {
                    self.close(number, None, now);
                }
            }
            // It was sent before the client knew that it had joined anew.
            _ if is_of_another => {}
            Body::Text { event, payload } if event == "access_token" => {
                self.renew(number, &payload);
            }
            Body::Text { event, payload } if event == "broadcast" => {
                self.pass_on(number, &reference, &payload);
            }
            Body::Text { .. } => {
                let why = "only broadcasts are served here";
                let error = channel.answer(self.version).error(&reference, why);
                self.out.push(error);
            }
            Body::Push { event, payload } => self.push(number, &reference, &event, &payload),
        }
    }

    /// Takes an answer that came.
    pub(super) fn asked(&mut self, asked: Asked, now: Instant) {
        let version = self.version;
        let Some(channel) = self.channels.iter_mut().find(|it| it.number == asked.channel) else {
            return;
        };
        if channel.question.load(Relaxed) != asked.question {
            return;
        }
        let was_paused = std::mem::take(&mut channel.is_paused);
        match (asked.outcome, &channel.state) {
            (Ok(token), State::Asking(reference)) => {
                let answer = channel.answer(version);
                self.out.push(answer.ok(reference, &channel.wishes.response()));
                if channel.wishes.presence {
                    self.out.push(answer.nobody());
                }
                if !channel.wishes.changes.is_empty() {
                    self.out.push(answer.system("postgres_changes", NO_CHANGES));
                }
                channel.wishes.changes = Box::default();
                channel.state = State::Open(token);
                channel.checked_at = now;
                let listener =
                    Channel { queue: Arc::clone(&self.queue), version, number: channel.number };
                let topic = Arc::clone(&channel.topic);
                self.hub.topics().add(topic, channel.wishes.private, Listener::Channel(listener));
                self.hub.metrics().realtime_channels.inc();
            }
            (Err(refusal), State::Asking(reference)) => {
                let error = channel.answer(version).error(reference, &refusal.reason());
                self.out.push(error);
                self.refuse(refusal.label());
                self.forget(asked.channel, now);
            }
            (Ok(token), State::Open(_)) => {
                channel.state = State::Open(token);
                channel.checked_at = now;
            }
            // Nobody has said no, and the token still counts: asked again before long.
            (Err(Refusal::Database), State::Open(_)) if !was_paused => channel.checked_at = now,
            (Err(refusal), State::Open(_)) => {
                self.close(asked.channel, Some(&refusal.to_string()), now);
            }
        }
    }

    /// Closes channels whose token has expired, and asks again about those that were let in a while
    /// ago.
    pub(super) fn look_after(&mut self, now: Instant) {
        let clock = token::now();
        let expired = |it: &Joined| match &it.state {
            State::Open(token) => token.check(clock).err().map(|error| (it.number, error)),
            State::Asking(_) => None,
        };
        let expired: Vec<(u64, TokenError)> = self.channels.iter().filter_map(expired).collect();
        for (number, error) in expired {
            self.close(number, Some(&error.to_string()), now);
        }
        let recheck = self.hub.limits().recheck;
        let due: Vec<_> = self.channels.iter_mut().filter(|it| it.is_due(now, recheck)).collect();
        for channel in due {
            let State::Open(token) = &channel.state else { continue };
            let claim = Claim::Checked(Arc::clone(token));
            // Asked now; were the answer never to come, it would be asked again as late.
            channel.checked_at = now;
            ask(&self.hub, &self.turns, &self.asking, channel, claim);
        }
    }

    /// Whether so much is being asked that nothing more is read until some of it is answered: more than a
    /// client has that joins all it may, and gets new tokens for all.
    pub(super) fn asks_enough(&self) -> bool {
        2 * self.hub.limits().channels < self.asking.len()
    }

    /// When to [`Self::look_after`] channels next.
    pub(super) fn look_at(&self, now: Instant) -> Option<Instant> {
        let clock = token::now();
        let recheck = self.hub.limits().recheck;
        let times = self.channels.iter().filter_map(|it| {
            let State::Open(token) = &it.state else { return None };
            // A clock may jump, so it is looked at again no later than the question is asked.
            let left = Duration::from_secs(token.expires.saturating_sub(clock)).min(recheck);
            Some((now + left).min(it.checked_at + recheck))
        });
        times.min()
    }

    fn join(
        &mut self,
        topic: String,
        join_ref: Reference,
        reference: Reference,
        payload: &str,
        now: Instant,
    ) {
        // Clients of the first version may leave it out; it is the same.
        let join_ref = if join_ref == Reference::null() { reference.clone() } else { join_ref };
        if let Some(old) = self.channels.iter().find(|it| it.full_topic == topic) {
            self.close(old.number, None, now);
        }
        let refused = match topic.strip_prefix(PREFIX) {
            None => Some("unmatched topic"),
            Some("") => Some("TopicNameRequired: You must provide a topic name"),
            Some(_) if LONGEST_NAME < topic.len() => {
                Some("TopicNameTooLong: a topic has at most 246 bytes")
            }
            Some(_) if LONGEST_JOIN < payload.len() => Some("the join asks for too much"),
            Some(_) if self.hub.limits().channels <= self.channels.len() => {
                self.refuse("limit");
                Some("ChannelRateLimitReached: Too many channels")
            }
            Some(_) => None,
        };
        if let Some(reason) = refused {
            let answer = Answer { version: self.version, topic: &topic, join_ref: &join_ref };
            let error = answer.error(&reference, reason);
            self.out.push(error);
            return;
        }
        self.last_number += 1;
        let mut wishes = Wishes::read(payload);
        let claim = match wishes.token.take() {
            Some(text) => Claim::Text(text),
            None => Claim::Checked(Arc::clone(&self.token)),
        };
        let mut channel = Joined {
            number: self.last_number,
            topic: topic.strip_prefix(PREFIX).unwrap_or(&topic).into(),
            full_topic: topic,
            join_ref,
            wishes,
            state: State::Asking(reference),
            question: Arc::default(),
            is_paused: false,
            checked_at: now,
        };
        ask(&self.hub, &self.turns, &self.asking, &mut channel, claim);
        self.channels.push(channel);
        self.lonely_since = None;
    }

    /// A new token for a channel; until it is known whether that may hear the topic, nothing is sent.
    fn renew(&mut self, number: u64, payload: &str) {
        let payload: Value = serde_json::from_str(payload).unwrap_or_default();
        let Some(text) = join::token(&payload) else { return };
        let channel = self.channels.iter_mut().find(|it| it.number == number);
        let Some(channel) = channel else { return };
        channel.is_paused = matches!(channel.state, State::Open(_));
        ask(&self.hub, &self.turns, &self.asking, channel, Claim::Text(text));
    }

    /// A broadcast of a client, in text.
    fn pass_on(&mut self, number: u64, reference: &Reference, payload: &str) {
        #[derive(Deserialize)]
        struct Broadcast {
            event: String,
            #[serde(default)]
            payload: Option<Box<RawValue>>,
        }
        let Ok(Broadcast { event, payload }) = serde_json::from_str(payload) else { return };
        let payload = Payload::Json(payload.as_ref().map_or("{}", |it| it.get()).into());
        self.push(number, reference, &event, &payload);
    }

    /// A broadcast of a client. On a private topic nobody but projector sends: silence, as from a
    /// Supabase that has no policy for it.
    fn push(&mut self, number: u64, reference: &Reference, event: &str, payload: &Payload) {
        let Some(channel) = self.channels.iter().find(|it| it.number == number) else { return };
        if channel.wishes.private || !matches!(channel.state, State::Open(_)) {
            return;
        }
        let answer = channel.answer(self.version);
        if LONGEST_NAME < event.len() {
            self.out.push(answer.error(reference, "an event's name has at most 255 bytes"));
            return;
        }
        let cast = Cast::frame(&channel.topic, event, false, payload);
        let sender = (!channel.wishes.own).then_some(&self.queue);
        self.hub.count(self.hub.topics().send(&cast, sender));
        if channel.wishes.ack {
            self.out.push(answer.ok(reference, &json!({})));
        }
    }

    /// A frame about a topic that was not joined, or about the connection.
    fn outside(&mut self, topic: &str, reference: &Reference, body: &Body) {
        let null = Reference::null();
        let answer = Answer { version: self.version, topic, join_ref: &null };
        let event = match body {
            Body::Text { event, .. } => event.as_str(),
            Body::Push { .. } => "broadcast",
        };
        self.out.push(match event {
            "heartbeat" if topic == CONNECTION => answer.ok(reference, &json!({})),
            "phx_leave" => answer.ok(reference, &json!({})),
            _ => answer.error(reference, "unmatched topic"),
        });
    }

    /// Ends a channel, with a word about why unless the client wanted it.
    fn close(&mut self, number: u64, why: Option<&str>, now: Instant) {
        let Some(channel) = self.channels.iter().find(|it| it.number == number) else { return };
        let answer = channel.answer(self.version);
        self.out.extend(why.map(|it| answer.system("system", it)));
        self.out.push(answer.close());
        self.forget(number, now);
    }

    fn forget(&mut self, number: u64, now: Instant) {
        let Some(index) = self.channels.iter().position(|it| it.number == number) else { return };
        let channel = self.channels.swap_remove(index);
        channel.question.store(0, Relaxed);
        self.leave(&channel);
        if self.channels.is_empty() {
            self.lonely_since = Some(now);
        }
    }

    fn leave(&self, channel: &Joined) {
        if !matches!(channel.state, State::Open(_)) {
            return;
        }
        let topic = Arc::clone(&channel.topic);
        self.hub.topics().remove(topic, channel.wishes.private, |it| {
            matches!(it, Listener::Channel(it)
                if it.number == channel.number && Arc::ptr_eq(&it.queue, &self.queue))
        });
        self.hub.metrics().realtime_channels.dec();
    }

    fn refuse(&self, reason: &str) {
        self.hub.metrics().realtime_refused_joins_total.with_label_values(&[reason]).inc();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for channel in &self.channels {
            self.leave(channel);
        }
    }
}

impl Joined {
    fn answer(&self, version: Version) -> Answer<'_> {
        Answer { version, topic: &self.full_topic, join_ref: &self.join_ref }
    }

    fn is_due(&self, now: Instant, recheck: Duration) -> bool {
        matches!(self.state, State::Open(_)) && !self.is_paused && self.checked_at + recheck <= now
    }
}

/// Asks whether a channel may be. Earlier questions about it do not count any more.
fn ask(
    hub: &Hub,
    turns: &Arc<Semaphore>,
    asking: &FuturesUnordered<Asking>,
    channel: &mut Joined,
    claim: Claim,
) {
    let (number, current) = (channel.number, Arc::clone(&channel.question));
    let question = current.fetch_add(1, Relaxed) + 1;
    let (topic, private) = (Arc::clone(&channel.topic), channel.wishes.private);
    let (hub, turns) = (hub.clone(), Arc::clone(turns));
    let mut question = Box::pin(async move {
        let _turn = turns.acquire().await.expect("it is never closed");
        let outcome = if current.load(Relaxed) == question {
            admit(&hub, claim, &topic, private).await
        } else {
            Err(Refusal::Database)
        };
        Asked { channel: number, question, outcome }
    });
    asking.push(match (&mut question).now_or_never() {
        // whose answer is known has it before its next frame is read
        Some(asked) => Box::pin(ready(Ok(asked))),
        // what it holds of the database is given back though the client does not read, and its session
        // waits for that
        None => Box::pin(AbortOnDropHandle::new(tokio::spawn(question))),
    });
}
