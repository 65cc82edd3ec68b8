//! What the server sends while it streams.

use crate::event::Timestamp;
use crate::lsn::Lsn;
use crate::wal::frames::FrameError;

/// One `CopyData` message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `w`, `XLogData`: a message of the output plugin.
    Data {
        /// Where in the log the message comes from; not monotone across transactions.
        start: Lsn,
        /// The walsender's own position: the message's again, for logical replication.
        end: Lsn,
        /// When it was sent, by the clock that commits are stamped with. It decides nothing but
        /// how long to gather.
        sent_at: Timestamp,
        /// The plugin's message, undecoded.
        message: &'a [u8],
    },
    /// `k`: a sign of life, and how far the server's log reaches.
    Keepalive {
        /// Everything before this has been sent.
        end: Lsn,
        /// Whether the server waits for an answer and will hang up without one.
        reply_requested: bool,
    },
}

const COPY_DATA: u8 = b'd';

impl<'a> Frame<'a> {
    /// Whether [`Frame::parse`] will find something other than `None`.
    #[inline]
    pub(crate) fn is_known(body: &[u8]) -> bool {
        matches!(body.first(), Some(b'w' | b'k') | None)
    }

    /// Reads the body of a `CopyData` message; `None` for a kind we do not know, which is to be skipped.
    ///
    /// # Errors
    /// When it ends too early.
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Option<Self>, FrameError> {
        let short = FrameError::Short { tag: COPY_DATA };
        let (kind, rest) = body.split_first().ok_or(short)?;
        match kind {
            b'w' => {
                let (start, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
                let (end, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
                let (clock, message) = rest.split_first_chunk::<8>().ok_or(short)?;
                let sent_at = Timestamp::from_postgres(i64::from_be_bytes(*clock));
                Ok(Some(Self::Data { start: lsn(*start), end: lsn(*end), sent_at, message }))
            }
            b'k' => {
                let (end, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
                let (_clock, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
                let reply_requested = *rest.first().ok_or(short)? != 0;
                Ok(Some(Self::Keepalive { end: lsn(*end), reply_requested }))
            }
            _ => Ok(None),
        }
    }
}

fn lsn(bytes: [u8; 8]) -> Lsn {
    Lsn(u64::from_be_bytes(bytes))
}

/// Our side of the conversation, `r`: positions are one past the last byte, as the server wants them.
///
/// `clock` is microseconds since 2000-01-01 UTC; the server shows it and does not reckon with it.
pub(crate) fn status_update(
    received: Lsn,
    flushed: Lsn,
    applied: Lsn,
    clock: i64,
    reply_requested: bool,
) -> [u8; 39] {
    // CopyData: type, length (which counts itself), then 34 bytes.
    let mut message = [0; 39];
    let mut rest = message.as_mut_slice();
    let mut put = |bytes: &[u8]| {
        if let Some((field, after)) = std::mem::take(&mut rest).split_at_mut_checked(bytes.len()) {
            field.copy_from_slice(bytes);
            rest = after;
        }
    };
    put(&[COPY_DATA]);
    put(&38_u32.to_be_bytes());
    put(b"r");
    put(&received.0.to_be_bytes());
    put(&flushed.0.to_be_bytes());
    put(&applied.0.to_be_bytes());
    put(&clock.to_be_bytes());
    put(&[u8::from(reply_requested)]);
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn data_and_keepalives_are_told_apart() {
        let data =
            [&[b'w'][..], &1_u64.to_be_bytes(), &2_u64.to_be_bytes(), &7_i64.to_be_bytes(), b"C!"]
                .concat();
        let sent_at = Timestamp::from_postgres(7);
        let keepalive = [&[b'k'][..], &9_u64.to_be_bytes(), &[0; 8], &[1]].concat();

        assert_eq!(
            Frame::parse(&data),
            Ok(Some(Frame::Data { start: Lsn(1), end: Lsn(2), sent_at, message: b"C!" }))
        );
        assert_eq!(
            Frame::parse(&keepalive),
            Ok(Some(Frame::Keepalive { end: Lsn(9), reply_requested: true }))
        );
        assert_eq!(Frame::parse(b"?"), Ok(None));
        assert!(Frame::parse(b"").is_err());
    }

    #[test]
    fn a_status_update_is_laid_out_as_the_protocol_says() {
        let message = status_update(Lsn(1), Lsn(2), Lsn(3), 4, true);

        assert_eq!(message[..6], [b'd', 0, 0, 0, 38, b'r']);
        assert_eq!(message[13], 1);
        assert_eq!(message[21], 2);
        assert_eq!(message[29], 3);
        assert_eq!(message[37], 4);
        assert_eq!(message[38], 1);
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body: Vec<u8>) {
            let _frame = Frame::parse(&body);
        }
    }
}
