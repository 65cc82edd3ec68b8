//! Checked reads of wire bytes; nothing else indexes them.

use crate::event::Timestamp;
use crate::lsn::Lsn;

/// A frame is not a message of the protocol. Offsets count from the message's tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A frame without a single byte.
    #[error("empty replication message")]
    Empty,
    /// The frame ends within a field.
    #[error(
        "replication message `{tag}` ends within {what} at byte {offset}: \
         {needed} bytes needed, {left} left"
    )]
    Short {
        /// The message's first byte.
        tag: char,
        /// The field.
        what: &'static str,
        /// Where the field starts.
        offset: usize,
        /// How long it is.
        needed: usize,
        /// What the frame still holds.
        left: usize,
    },
    /// A name has no NUL byte at its end.
    #[error("replication message `{tag}`: {what} at byte {offset} has no end")]
    Unterminated {
        /// The message's first byte.
        tag: char,
        /// The field.
        what: &'static str,
        /// Where the field starts.
        offset: usize,
    },
    /// A name is not UTF-8: the session's `client_encoding` is not.
    #[error("replication message `{tag}`: {what} at byte {offset} is not UTF-8")]
    NotUtf8 {
        /// The message's first byte.
        tag: char,
        /// The field.
        what: &'static str,
        /// Where the field starts.
        offset: usize,
    },
    /// A byte that selects a variant selects none.
    #[error("replication message `{tag}`: {what} at byte {offset} is {found:#04x}")]
    Unexpected {
        /// The message's first byte.
        tag: char,
        /// The field.
        what: &'static str,
        /// Where it stands.
        offset: usize,
        /// What stands there.
        found: u8,
    },
    /// Bytes after the last field: the message was read in the wrong [`Context`](super::Context), or
    /// by a protocol version that was not asked for.
    #[error("replication message `{tag}` has {left} bytes too many from byte {offset} on")]
    TooLong {
        /// The message's first byte.
        tag: char,
        /// Where the message should have ended.
        offset: usize,
        /// How many bytes follow.
        left: usize,
    },
}

/// A place in a message.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    tag: u8,
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    /// Reads a message's tag and stands behind it.
    pub(super) fn open(frame: &'a [u8]) -> Result<(u8, Self), DecodeError> {
        let (&tag, rest) = frame.split_first().ok_or(DecodeError::Empty)?;
        Ok((tag, Self { tag, rest, offset: 1 }))
    }

    /// Stands at the start of bytes that were checked before.
    pub(super) fn within(checked: &'a [u8]) -> Self {
        Self { tag: b'?', rest: checked, offset: 0 }
    }

    fn tag(&self) -> char {
        char::from(self.tag)
    }

    pub(super) fn bytes(
        &mut self,
        length: usize,
        what: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(DecodeError::Short {
                tag: self.tag(),
                what,
                offset: self.offset,
                needed: length,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        self.offset += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Short {
                tag: self.tag(),
                what,
                offset: self.offset,
                needed: N,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        self.offset += N;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array(what).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(super) fn lsn(&mut self, what: &'static str) -> Result<Lsn, DecodeError> {
        self.array(what).map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    pub(super) fn time(&mut self, what: &'static str) -> Result<Timestamp, DecodeError> {
        self.array(what).map(|bytes| Timestamp::from_postgres(i64::from_be_bytes(bytes)))
    }

    /// A 32-bit length and as many bytes. A length that is negative on the wire is larger than any
    /// frame, and so refused as too short.
    pub(super) fn counted(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u32(what)?;
        self.bytes(usize::try_from(length).unwrap_or(usize::MAX), what)
    }

    /// Text up to a NUL byte.
    pub(super) fn name(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let (tag, offset) = (self.tag(), self.offset);
        let Some(length) = self.rest.iter().position(|byte| *byte == 0) else {
            return Err(DecodeError::Unterminated { tag, what, offset });
        };
        let text = self.bytes(length, what)?;
        self.u8(what)?;
        std::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8 { tag, what, offset })
    }

    /// The byte that was just read selects no variant.
    pub(super) fn unexpected(&self, what: &'static str, found: u8) -> DecodeError {
        let offset = self.offset.saturating_sub(1);
        DecodeError::Unexpected { tag: self.tag(), what, offset, found }
    }

    /// What is left, without moving.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// What was read since `earlier`, which stands in the same message.
    pub(super) fn since(&self, earlier: &Self) -> &'a [u8] {
        let length = self.offset.saturating_sub(earlier.offset);
        earlier.rest.get(..length).unwrap_or_default()
    }

    /// The message must end here.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let left = self.rest.len();
        Err(DecodeError::TooLong { tag: self.tag(), offset: self.offset, left })
    }
}
