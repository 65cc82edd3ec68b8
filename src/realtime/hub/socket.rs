//! A WebSocket: one task that reads, asks and sends.
//!
//! While it sends to a client that does not read, broadcasts gather in its queue; when that is full,
//! the socket is closed, and nobody else has waited. So it is when a client tries the hub's
//! [`Patience`](super::Patience) or sends what is no frame, and when another process serves. A client
//! that is closed connects again, joins again, and then fetches what it has missed.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::frame::Frame;
use super::pace::Pace;
use super::server::{Hub, Patience, Place};
use super::session::Session;
use super::token::Token;
use super::version::Version;

/// How long saying goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Why a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client has gone, or the network.
    Gone,
    /// The server goes away, or another one serves.
    Closing,
    /// The client does not read as fast as there is something to read.
    Slow,
    /// The client said nothing for a while.
    Idle,
    /// The client has no channel.
    Lonely,
    /// What the client sent is no frame.
    Malformed,
}

impl End {
    /// Clients connect again after each of these.
    fn frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Gone => return None,
            Self::Closing => (1012, "this server serves no more: connect again"),
            Self::Slow => (1013, "too slow: reconnect and fetch what was missed"),
            Self::Idle => (1000, "no heartbeat"),
            Self::Lonely => (1000, "no channel"),
            Self::Malformed => (1002, "malformed frame"),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

/// Serves a client until either side ends it.
pub(super) async fn serve(
    hub: Hub,
    mut socket: WebSocket,
    version: Version,
    token: Token,
    place: Place,
) {
    let now = Instant::now();
    let patience = hub.limits().patience;
    let mut session = Session::new(hub.clone(), version, token, now);
    let end = converse(&mut socket, &mut session, version, patience, &place.term).await;
    // Nothing more is to come while it says goodbye.
    drop(session);
    if end == End::Slow {
        hub.metrics().realtime_slow_sockets_total.inc();
    }
    tracing::debug!(?end, "a socket ended");
    if let Some(frame) = end.frame() {
        // A client that does not take it sees the connection end.
        let goodbye = timeout(CLOSE_LIMIT, socket.send(Message::Close(Some(frame)))).await;
        drop(goodbye);
    }
}

async fn converse(
    socket: &mut WebSocket,
    session: &mut Session,
    version: Version,
    patience: Patience,
    term: &CancellationToken,
) -> End {
    let queue = session.queue();
    let mut heard_at = Instant::now();
    let mut pace = Pace::new(patience, heard_at);
    loop {
        if let Err(end) = send(socket, session, patience, term).await {
            return end;
        }
        let now = Instant::now();
        let waits_until = pace.waits_until(now);
        let is_read = waits_until.is_none() && !session.asks_enough();
        let lonely_at = session.lonely_since.map(|it| it + patience.loneliness);
        let silent_at = is_read.then(|| heard_at + patience.silence);
        let times = [silent_at, lonely_at, waits_until, session.look_at(now)];
        let next = times.into_iter().flatten().min().unwrap_or(now + patience.silence);
        // Whatever is not chosen here has done nothing and is begun again.
        tokio::select! {
            biased;
            () = term.cancelled() => return End::Closing,
            Some(asked) = session.asking.next(), if !session.asking.is_empty() => {
                // A question that ends without an answer: the process ends, or it has a bug.
                let Ok(asked) = asked else { return End::Closing };
                session.asked(asked, Instant::now());
            }
            () = queue.ready(), if !session.is_paused() => {
                if session.deliver().is_err() {
                    return End::Slow;
                }
            }
            received = socket.recv(), if is_read => {
                let now = Instant::now();
                heard_at = now;
                pace.count(now);
                let frame = match received {
                    Some(Ok(Message::Text(text))) => Frame::read_text(version, &text),
                    Some(Ok(Message::Binary(bytes))) => Frame::read_binary(version, &bytes),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Gone,
                };
                match frame {
                    Ok(frame) => session.receive(frame, now),
                    Err(error) => {
                        tracing::debug!(%error, "a client is cut off");
                        return End::Malformed;
                    }
                }
            }
            () = sleep_until(next) => {
                let now = Instant::now();
                if silent_at.is_some_and(|it| it <= now) {
                    return End::Idle;
                }
                if lonely_at.is_some_and(|it| it <= now) {
                    return End::Lonely;
                }
                session.look_after(now);
            }
        }
    }
}

/// Sends all that the session has to say. Waits for the client, but not longer than its queue and
/// the server last.
async fn send(
    socket: &mut WebSocket,
    session: &mut Session,
    patience: Patience,
    term: &CancellationToken,
) -> Result<(), End> {
    if session.out.is_empty() {
        return Ok(());
    }
    let queue = session.queue();
    let out = std::mem::take(&mut session.out);
    let sending = async {
        for message in out {
            socket.feed(message).await?;
        }
        socket.flush().await
    };
    tokio::select! {
        biased;
        sent = sending => sent.map_err(|_| End::Gone),
        () = queue.overflowed() => Err(End::Slow),
        () = term.cancelled() => Err(End::Closing),
        // A client that reads nothing at all, on a quiet topic.
        () = sleep(patience.silence) => Err(End::Idle),
    }
}
