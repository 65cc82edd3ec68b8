//! The socket with its two buffers. Everything here may be cancelled at any await: what was read is
//! in the receive buffer, what was not sent yet stays in the send buffer.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::pg::dial::Wire;
use crate::wal::error::WalError;
use crate::wal::frames::Frames;

#[derive(Debug)]
pub(crate) struct Channel {
    wire: Wire,
    frames: Frames,
    out: BytesMut,
    /// TLS may hold bytes back that it has accepted.
    unflushed: bool,
}

impl Channel {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire, frames: Frames::default(), out: BytesMut::new(), unflushed: false }
    }

    pub(crate) fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }

    pub(crate) fn body(&self, range: Range<usize>) -> &[u8] {
        self.frames.body(range)
    }

    /// Where to put messages to be sent by the next [`Channel::fill`] or [`Channel::flush`].
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Whether everything has left this process.
    pub(crate) fn is_sent(&self) -> bool {
        self.out.is_empty() && !self.unflushed
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.wire).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.out.advance(count);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.wire).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is there, up to the buffer's space. Bytes that came before the end of the stream
    /// are returned first.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let space = self.frames.space();
        if space.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut buffer = ReadBuf::new(space);
        let mut result = Poll::Pending;
        // TLS hands out a record at a time; a bare socket everything at once, and is then pending.
        while buffer.remaining() != 0 {
            let before = buffer.filled().len();
            match Pin::new(&mut self.wire).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if before < buffer.filled().len() => {}
                Poll::Ready(Ok(())) => {
                    result = Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    break;
                }
                Poll::Ready(Err(error)) => {
                    result = Poll::Ready(Err(error));
                    break;
                }
                Poll::Pending => break,
            }
        }
        let count = buffer.filled().len();
        self.frames.filled(count);
        // A failure comes again with the next read; what was read before it must not be lost.
        if count == 0 { result } else { Poll::Ready(Ok(count)) }
    }

    /// Waits for bytes, sending what waits to be sent meanwhile: neither holds the other up.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            let sent = self.poll_flush(cx);
            match (self.poll_fill(cx), sent) {
                // A server that refuses us closes its end after saying why: read that first.
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (read, _) => read,
            }
        })
        .await
    }

    /// Waits until everything is sent.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Waits for the next whole message.
    pub(crate) async fn receive(&mut self) -> Result<(u8, Range<usize>), WalError> {
        loop {
            if let Some(message) = self.frames.take()? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(Wire::Unix(ours)), theirs)
    }

    #[tokio::test]
    async fn reading_goes_on_while_nothing_can_be_sent() {
        let (mut channel, mut server) = pair();
        channel.out().extend_from_slice(&vec![7; 4_000_000]);
        server.write_all(&READY).await.unwrap();

        let (tag, _) = channel.receive().await.unwrap();

        assert_eq!(tag, b'Z');
        assert!(!channel.is_sent());
    }

    #[tokio::test]
    async fn a_flush_that_was_cancelled_goes_on_where_it_was() {
        let (mut channel, mut server) = pair();
        let sent: Vec<u8> = (0..=250).cycle().take(4_000_000).collect();
        channel.out().extend_from_slice(&sent);

        let first = poll_fn(|cx| Poll::Ready(channel.poll_flush(cx).is_pending())).await;
        let mut received = vec![0; sent.len()];
        let (flushed, read) = tokio::join!(channel.flush(), server.read_exact(&mut received));

        assert!(first);
        flushed.unwrap();
        read.unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_read_first() {
        let (mut channel, mut server) = pair();
        server.write_all(&READY).await.unwrap();
        drop(server);

        let first = channel.receive().await.map(|(tag, _)| tag);
        let second = channel.receive().await.map(|(tag, _)| tag);

        assert_eq!(first.unwrap(), b'Z');
        assert!(matches!(second, Err(WalError::Closed)));
    }
}
