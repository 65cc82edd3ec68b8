//! The stream of the log, and the status updates that go the other way.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use postgres_protocol::message::frontend;

use crate::event::Timestamp;
use crate::ident::{Ident, literal};
use crate::lsn::Lsn;
use crate::wal::conn::ReplicationConnection;
use crate::wal::error::WalError;
use crate::wal::frame::{Frame, status_update};

/// What to ask pgoutput for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Whose changes.
    pub publication: Ident,
    /// 1 serves; 2 to 4 add streaming of open transactions and two-phase commit.
    pub proto_version: u32,
    /// Column values in binary where their type can.
    pub binary: bool,
    /// Whether `pg_logical_emit_message` comes through.
    pub messages: bool,
}

impl StreamOptions {
    /// The lowest version that serves, values in binary, messages passed on.
    pub fn new(publication: Ident) -> Self {
        Self { publication, proto_version: 1, binary: true, messages: true }
    }

    fn to_sql(&self) -> String {
        let flag =
            |name: &str, on: bool| if on { format!(", {name} 'true'") } else { String::new() };
        // A list of quoted identifiers within one literal.
        let publications = self.publication.to_string();
        format!(
            "proto_version '{}', publication_names {}{}{}",
            self.proto_version,
            literal(&publications),
            flag("binary", self.binary),
            flag("messages", self.messages),
        )
    }
}

/// A running stream. One task owns it: it waits in [`Stream::fill`], takes frames with
/// [`Stream::next`] until there is none, and reports with [`Stream::send_status`].
///
/// `fill` and `flush` may be cancelled at any time and lose nothing.
#[derive(Debug)]
pub struct Stream {
    connection: ReplicationConnection,
    /// The newest report that is not in the send buffer yet; it makes older ones pointless.
    status: Option<Status>,
}

#[derive(Clone, Copy, Debug)]
struct Status {
    received: Lsn,
    flushed: Lsn,
    applied: Lsn,
    reply_requested: bool,
}

impl ReplicationConnection {
    /// Starts to stream the log from `slot`, from `start` on or from what the slot has confirmed,
    /// whichever is later: a transaction comes when its commit ends after that.
    ///
    /// # Errors
    /// The server's; see [`WalError::reason`]. Of a publication that does not exist it speaks only
    /// later, in the stream.
    pub async fn start(
        mut self,
        slot: &Ident,
        start: Lsn,
        options: &StreamOptions,
    ) -> Result<Stream, WalError> {
        let options = options.to_sql();
        // The bound on creating slots is not meant for decoding, which takes locks on catalogs.
        self.simple_query("set lock_timeout = 0").await?;
        self.start_copy(&format!("START_REPLICATION SLOT {slot} LOGICAL {start} ({options})"))
            .await?;
        Ok(Stream { connection: self, status: None })
    }
}

impl Stream {
    /// Waits until bytes arrive, and says how many. To be called when [`Stream::next`] gave `None`:
    /// with whole frames waiting, the buffer takes no more than fits and 0 is returned. When they fill the space that was offered
    /// ([`crate::wal::frames::GULP`]), more is waiting: the reader is behind. Sends pending status
    /// updates meanwhile, so that a full send buffer never stops reading.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the connection is gone. Frames that came before it can still be taken.
    pub async fn fill(&mut self) -> Result<usize, WalError> {
        self.queue_status();
        Ok(self.connection.channel.fill().await?)
    }

    /// The next frame, borrowed from the receive buffer until the next call; `None` when there is no
    /// whole one. Does not wait.
    ///
    /// # Errors
    /// How the stream ended: the server's error, or [`WalError::Ended`].
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "frames borrow from the stream; an iterator's items cannot"
    )]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, WalError> {
        loop {
            let Some((tag, body)) = self.connection.channel.frames().take()? else {
                return Ok(None);
            };
            match tag {
                b'd' => {
                    // A kind of CopyData we do not know is skipped; looking twice pleases the borrow
                    // checker and costs a comparison.
                    if Frame::is_known(self.connection.channel.body(body.clone())) {
                        return Ok(Frame::parse(self.connection.channel.body(body))?);
                    }
                }
                b'E' => return Err(self.connection.server_error(body)),
                // A walsender that shuts down says `C`; one that obeys CopyDone says `c`.
                b'c' | b'C' => return Err(WalError::Ended),
                // Notices and changed parameters.
                b'N' | b'S' => {}
                other => {
                    let what = format!("message `{}` in the stream", char::from(other));
                    return Err(WalError::Unexpected(what));
                }
            }
        }
    }

    /// How many received bytes wait in the buffer.
    pub fn waiting_bytes(&mut self) -> usize {
        self.connection.channel.frames().waiting()
    }

    /// The process on the server that serves this stream.
    pub fn process(&self) -> Option<i32> {
        self.connection.process()
    }

    /// Reports positions, each the end of what it covers: `flushed` frees the server's log, for
    /// ever. With `ask_reply` the server answers with a keepalive, which carries its position.
    ///
    /// Never waits for the server: what the socket does not take now goes out with the next
    /// [`Stream::fill`] or [`Stream::flush`]; a newer report replaces one that is still waiting.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_status(
        &mut self,
        received: Lsn,
        flushed: Lsn,
        applied: Lsn,
        ask_reply: bool,
    ) -> Result<(), WalError> {
        let reply_requested = ask_reply || self.status.is_some_and(|it| it.reply_requested);
        self.status = Some(Status { received, flushed, applied, reply_requested });
        poll_fn(|cx| {
            self.queue_status();
            match self.connection.channel.poll_flush(cx) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => Poll::Ready(Ok(())),
            }
        })
        .await?;
        Ok(())
    }

    /// Waits until every report is sent. Cancel-safe.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn flush(&mut self) -> Result<(), WalError> {
        while self.status.is_some() || !self.connection.channel.is_sent() {
            self.queue_status();
            self.connection.channel.flush().await?;
        }
        Ok(())
    }

    /// Ends the stream in good order: reports go out, the server finishes what it is sending (which
    /// is thrown away) and frees the slot for the next reader. To be bounded by the caller: a large
    /// transaction may be on its way.
    ///
    /// # Errors
    /// When the connection breaks before the server has answered.
    pub async fn finish(mut self) -> Result<(), WalError> {
        self.flush().await?;
        let channel = &mut self.connection.channel;
        frontend::copy_done(channel.out());
        loop {
            let (tag, body) = channel.receive().await?;
            match tag {
                b'Z' => break,
                b'E' => return Err(self.connection.server_error(body)),
                _ => {}
            }
        }
        self.connection.close().await
    }

    /// Moves the newest report into the send buffer when the older ones are out.
    fn queue_status(&mut self) {
        let channel = &mut self.connection.channel;
        if channel.is_sent()
            && let Some(status) = self.status.take()
        {
            let Status { received, flushed, applied, reply_requested } = status;
            let message = status_update(received, flushed, applied, clock(), reply_requested);
            channel.out().extend_from_slice(&message);
        }
    }
}

/// Microseconds since 2000-01-01 UTC, for `pg_stat_replication.reply_time`; nobody reckons with it.
fn clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or_default()).to_postgres()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_quote_the_publication_twice() {
        let options = StreamOptions::new(Ident::new("a'b\"c").unwrap());

        assert_eq!(
            options.to_sql(),
            r#"proto_version '1', publication_names '"a''b""c"', binary 'true', messages 'true'"#
        );
    }
}
