//! `/api/live?topic=…`: what happens, as server-sent events, for as long as somebody listens.
//!
//! | topic | events |
//! |---|---|
//! | `run:{id}` | `log`: `{"prev", "head", "lines"}`, the run's lines after version `prev` up to `head` |
//! | `runs` | `runs`: something was committed; `/api/runs` has it |
//! | `status` | `status`: the same as `/api/projections` |
//!
//! The tables are the truth and a message is a hint that usually carries the data: whoever has lines up
//! to a version before `prev` has missed some and asks `/log?after=` for them. A message without lines
//! says only how far the run is. With `Last-Event-ID` the first message goes on after that version.
//!
//! The engine wakes the feed after each commit; however many listen, one statement then looks for the
//! lines of all runs that are watched. It looks every two seconds too, since in a process that stands by
//! somebody else commits. What is not taken in time is not kept: the next message shows the hole.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::types::{ToSql, Type};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::AppState;
use super::database::DatabaseError;
use super::error::ApiError;
use super::health::latest;
use super::parameters::{LiveQuery, Topics, last_event_id};
use crate::engine::status::Status;

/// Streams at once.
const STREAMS: usize = 200;
/// Messages that a slow listener may be behind.
const BEHIND: usize = 16;
/// Lines of one run in a message; lines of all runs in one look.
const PAGE: i64 = 200;
const LOOK: i64 = 1_000;
/// Between two looks at the tables: at least, and at most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Between two hints that runs changed: at least, and at most.
const HINTS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// A line without meaning as often as this, so that whoever is in between keeps the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Who listens to which runs.
#[derive(Debug)]
pub struct Live {
    places: Arc<Semaphore>,
    feeds: Mutex<HashMap<Uuid, Feed>>,
    pub(super) ended: CancellationToken,
}

/// One run that is listened to.
#[derive(Debug)]
struct Feed {
    /// The version of the last line that was sent.
    head: i32,
    sender: broadcast::Sender<Message>,
}

/// Lines of one run.
#[derive(Clone, Debug)]
struct Message {
    head: i32,
    json: Arc<str>,
}

/// Somebody who listens.
struct Listener {
    topics: Topics,
    state: AppState,
    /// What is sent before all else.
    first: VecDeque<Event>,
    run: Option<(Uuid, broadcast::Receiver<Message>)>,
    commits: watch::Receiver<u64>,
    status: watch::Receiver<Arc<Status>>,
    /// When the next hint and the next status may be sent.
    next: (Instant, Instant),
    _place: OwnedSemaphorePermit,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(STREAMS)),
            feeds: Mutex::default(),
            ended: CancellationToken::new(),
        }
    }
}

/// Events until the client goes, or the process does.
pub(super) async fn live(
    State(state): State<AppState>,
    headers: HeaderMap,
    query: Result<Query<LiveQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let topics = LiveQuery::read(query)?;
    let after = last_event_id(&headers)?;
    let place = Arc::clone(&state.live.places).try_acquire_owned();
    let place = place.map_err(|_full| ApiError::too_many_streams())?;
    let mut first = VecDeque::new();
    let run = match topics.run {
        Some(id) => {
            let (receiver, head) = watch_run(&state, id).await?;
            if let Some(after) = after.filter(|it| *it < head) {
                let page = lines(&state, &[(id, after)]).await?;
                first.extend(page.into_iter().map(|(_, it)| event(&it)));
            }
            first.push_back(event(&Message::new(head, head, "")));
            Some((id, receiver))
        }
        None => None,
    };
    let (mut commits, mut status) = (state.commits.clone(), state.status.clone());
    if topics.runs {
        // a client asks once when it begins to listen, and is told of what comes after
        commits.mark_unchanged();
    }
    if topics.status {
        status.mark_changed();
    }
    let next = (Instant::now(), Instant::now());
    let listener = Listener { topics, state, first, run, commits, status, next, _place: place };
    let events = stream::unfold(listener, async |mut it| {
        let event = it.next().await?;
        Some((Ok::<_, Infallible>(event), it))
    });
    let alive = KeepAlive::new().interval(KEEP_ALIVE);
    // a proxy in between must not gather what is to be seen at once
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Sse::new(events).keep_alive(alive)))
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.first.pop_front() {
            return Some(event);
        }
        let ended = self.state.live.ended.clone();
        // every branch may be dropped half-way: nothing is taken before it is at hand
        tokio::select! {
            () = ended.cancelled() => None,
            message = heard(&mut self.run, &self.state) => Some(event(&message)),
            () = hint(&mut self.commits, self.next.0), if self.topics.runs => {
                self.next.0 = Instant::now() + HINTS.0;
                Some(Event::default().event("runs").data("{}"))
            }
            () = changed(&mut self.status, self.next.1), if self.topics.status => {
                self.next.1 = Instant::now() + HINTS.0;
                let status = serde_json::to_string(&latest(&self.state)).ok()?;
                Some(Event::default().event("status").data(status))
            }
        }
    }
}

/// The next message of the run that is listened to.
async fn heard(
    run: &mut Option<(Uuid, broadcast::Receiver<Message>)>,
    state: &AppState,
) -> Message {
    let Some((id, receiver)) = run else { return std::future::pending().await };
    match receiver.recv().await {
        Ok(message) => message,
        Err(RecvError::Lagged(_)) => {
            // how far the run is shows that something was missed, also where nothing comes any more
            let head = state.live.head(*id);
            Message::new(head, head, "")
        }
        // a feed is kept as long as somebody listens
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

async fn hint(commits: &mut watch::Receiver<u64>, not_before: Instant) {
    sleep_until(not_before).await;
    match timeout(HINTS.1, commits.changed()).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(_)) => std::future::pending().await,
    }
}

async fn changed(status: &mut watch::Receiver<Arc<Status>>, not_before: Instant) {
    sleep_until(not_before).await;
    if status.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Live {
    /// Feeds those who listen, until it is dropped.
    pub(super) async fn feed(&self, state: &AppState) {
        let mut commits = state.commits.clone();
        loop {
            match timeout(LOOKS.1, commits.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                // no engine any more: the other wake-up remains
                Ok(Err(_)) => sleep(LOOKS.1).await,
            }
            while let Ok(true) = self.look(state).await {
                sleep(LOOKS.0).await;
            }
            sleep(LOOKS.0).await;
        }
    }

    /// Sends what is new; says whether there is more.
    async fn look(&self, state: &AppState) -> Result<bool, DatabaseError> {
        let watched: Vec<_> = {
            let mut feeds = self.feeds();
            feeds.retain(|_, it| 0 < it.sender.receiver_count());
            feeds.iter().map(|(id, it)| (*id, it.head)).collect()
        };
        if watched.is_empty() {
            return Ok(false);
        }
        let found = lines(state, &watched).await.inspect_err(|error| {
            tracing::debug!(error = %error.chain(), "live streams wait for the database");
        })?;
        let is_more = !found.is_empty();
        let mut feeds = self.feeds();
        for (id, message) in found {
            if let Some(feed) = feeds.get_mut(&id) {
                feed.head = message.head;
                // the last listener may have gone meanwhile
                drop(feed.sender.send(message));
            }
        }
        Ok(is_more)
    }

    fn head(&self, id: Uuid) -> i32 {
        self.feeds().get(&id).map_or(0, |it| it.head)
    }

    fn feeds(&self) -> MutexGuard<'_, HashMap<Uuid, Feed>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens to a run: its messages from now on, and the version after which they begin.
async fn watch_run(
    state: &AppState,
    id: Uuid,
) -> Result<(broadcast::Receiver<Message>, i32), ApiError> {
    let schema = &state.schema;
    let sql = format!("select coalesce(max(version), 0) from {schema}.run_log where run_id = $1");
    let rows = state.database.query(&sql, &[(&id, Type::UUID)]).await?;
    let head: i32 = rows.first().ok_or_else(ApiError::internal)?.get(0);
    let mut feeds = state.live.feeds();
    let feed =
        feeds.entry(id).or_insert_with(|| Feed { head, sender: broadcast::Sender::new(BEHIND) });
    Ok((feed.sender.subscribe(), feed.head))
}

/// The next lines of each of these runs after a version of it.
async fn lines(
    state: &AppState,
    watched: &[(Uuid, i32)],
) -> Result<Vec<(Uuid, Message)>, DatabaseError> {
    let (ids, versions): (Vec<_>, Vec<_>) = watched.iter().copied().unzip();
    let sql = format!(
        "select l.run_id, l.version, to_jsonb(l)::text
         from unnest($1, $2) as watched (run_id, version)
           cross join lateral (
             select * from {schema}.run_log l
             where l.run_id = watched.run_id and watched.version < l.version
             order by l.version limit $3) l
         order by l.run_id, l.version limit $4",
        schema = state.schema,
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&ids, Type::UUID_ARRAY),
        (&versions, Type::INT4_ARRAY),
        (&PAGE, Type::INT8),
        (&LOOK, Type::INT8),
    ];
    let rows = state.database.query(&sql, &parameters).await?;
    let after: HashMap<_, _> = watched.iter().copied().collect();
    let mut messages = Vec::new();
    for run in rows.chunk_by(|one, other| one.get::<_, Uuid>(0) == other.get::<_, Uuid>(0)) {
        let Some(last) = run.last() else { continue };
        let id: Uuid = last.get(0);
        let texts: Vec<&str> = run.iter().map(|row| row.get(2)).collect();
        let prev = after.get(&id).copied().unwrap_or_default();
        messages.push((id, Message::new(prev, last.get(1), &texts.join(","))));
    }
    Ok(messages)
}

impl Message {
    fn new(prev: i32, head: i32, lines: &str) -> Self {
        let json = format!(r#"{{"prev":{prev},"head":{head},"lines":[{lines}]}}"#);
        Self { head, json: json.into() }
    }
}

fn event(message: &Message) -> Event {
    Event::default().event("log").id(message.head.to_string()).data(&*message.json)
}
