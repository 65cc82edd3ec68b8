//! Bytes as they come from the socket, and the messages in them.
//!
//! One buffer for the life of a connection. Bytes are read at its end and messages taken from its
//! front in place; what is left of a message that has not arrived whole moves to the front before the
//! next read. It grows for a large message as its bytes arrive, never on the word of a length field
//! alone, and gives the memory back afterwards.
//!
//! Pure: knows no socket.

use std::ops::Range;

/// Free space offered to a read.
pub const GULP: usize = 256 * 1024;
/// The size of the buffer as long as no message needs more.
const BASE: usize = 2 * GULP;
/// One byte of type, four of length.
const HEADER: usize = 5;
/// Postgres builds a message in at most 1 GiB; the rest is its own wrapping.
const LARGEST: usize = (1 << 30) + 64 * 1024;

/// What the server sent cannot be a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is smaller than itself.
    #[error("a message of type `{}` has the impossible length {length}", char::from(*tag))]
    Length {
        /// The message's type.
        tag: u8,
        /// What its length field says.
        length: u32,
    },
    /// More than Postgres ever sends.
    #[error("a message of type `{}` is {length} bytes long, at most {LARGEST} are possible", char::from(*tag))]
    TooLarge {
        /// The message's type.
        tag: u8,
        /// What its length field says.
        length: u32,
    },
    /// A message ends before its fields do.
    #[error("a message of type `{}` is cut short", char::from(*tag))]
    Short {
        /// The message's type.
        tag: u8,
    },
}

/// The receive buffer.
#[derive(Debug)]
pub struct Frames {
    /// Initialised throughout; only `head..tail` means something.
    bytes: Vec<u8>,
    head: usize,
    tail: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { bytes: vec![0; BASE], head: 0, tail: 0 }
    }
}

impl Frames {
    /// Space for a read: at least [`GULP`] bytes, as long as no whole message is waiting; the buffer
    /// does not grow for those who do not take what is there. Whatever ranges [`Frames::take`] gave are void.
    pub fn space(&mut self) -> &mut [u8] {
        let waiting = self.waiting();
        if waiting == 0 {
            (self.head, self.tail) = (0, 0);
        }
        if BASE < self.bytes.len() && waiting <= BASE - GULP {
            let mut small = vec![0; BASE];
            if let (Some(to), Some(from)) =
                (small.get_mut(..waiting), self.bytes.get(self.head..self.tail))
            {
                to.copy_from_slice(from);
            }
            self.bytes = small;
            (self.head, self.tail) = (0, waiting);
        } else if self.bytes.len() - self.tail < GULP {
            self.bytes.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, waiting);
            if self.bytes.len() - waiting < GULP && self.front() == Ok(None) {
                // By half: a message of a gigabyte costs moderately more than its own size.
                let length = waiting + (waiting / 2).max(GULP);
                self.bytes.resize(length, 0);
            }
        }
        self.bytes.get_mut(self.tail..).unwrap_or_default()
    }

    /// Says that a read put `count` bytes into [`Frames::space`].
    pub fn filled(&mut self, count: usize) {
        self.tail = (self.tail + count).min(self.bytes.len());
    }

    /// How many bytes lie here that no message was taken from yet.
    pub fn waiting(&self) -> usize {
        self.tail - self.head
    }

    /// How much memory the buffer holds, in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the next whole message: its type, and where its body lies until [`Frames::space`] is
    /// called. `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the length is impossible; the stream cannot be read on then.
    #[inline]
    pub fn take(&mut self) -> Result<Option<(u8, Range<usize>)>, FrameError> {
        let Some((tag, end)) = self.front()? else { return Ok(None) };
        let body = self.head + HEADER..self.head + end;
        self.head = body.end;
        Ok(Some((tag, body)))
    }

    /// The type and the whole length of the message at the front, once it is there.
    #[inline]
    fn front(&self) -> Result<Option<(u8, usize)>, FrameError> {
        let waiting = self.bytes.get(self.head..self.tail).unwrap_or_default();
        let Some(&[tag, a, b, c, d]) = waiting.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]);
        // The length counts itself and not the type.
        let end = 1 + length as usize;
        if end < HEADER {
            return Err(FrameError::Length { tag, length });
        }
        if LARGEST < end {
            return Err(FrameError::TooLarge { tag, length });
        }
        Ok((end <= waiting.len()).then_some((tag, end)))
    }

    /// The bytes of a body that [`Frames::take`] gave.
    #[inline]
    pub fn body(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }
}

/// Reads fields off the front of a message's body; nothing else looks at its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    tag: u8,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `body`; `tag` is for errors.
    pub fn new(tag: u8, body: &'a [u8]) -> Self {
        Self { tag, rest: body }
    }

    fn short(&self) -> FrameError {
        FrameError::Short { tag: self.tag }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(*field)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, FrameError> {
        self.array().map(|[byte]| byte)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn i32(&mut self) -> Result<i32, FrameError> {
        self.array().map(i32::from_be_bytes)
    }

    /// Four bytes as they are: a salt.
    pub fn four(&mut self) -> Result<[u8; 4], FrameError> {
        self.array()
    }

    /// `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        let (field, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(field)
    }

    /// Bytes up to a NUL, which is skipped.
    pub fn text(&mut self) -> Result<&'a [u8], FrameError> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.short())?;
        let field = self.bytes(end)?;
        self.u8()?;
        Ok(field)
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], length.as_slice(), body].concat()
    }

    /// Puts `bytes` in, in pieces no larger than each of `pieces` in turn, taking what is whole.
    fn feed(bytes: &[u8], pieces: &[usize]) -> Result<Vec<(u8, Vec<u8>)>, FrameError> {
        let mut frames = Frames::default();
        let mut got = Vec::new();
        let mut rest = bytes;
        for piece in pieces.iter().copied().cycle() {
            let space = frames.space();
            assert!(GULP <= space.len());
            let count = piece.min(rest.len()).min(space.len());
            space[..count].copy_from_slice(&rest[..count]);
            frames.filled(count);
            rest = &rest[count..];
            while let Some((tag, body)) = frames.take()? {
                got.push((tag, frames.body(body).to_vec()));
            }
            if rest.is_empty() {
                break;
            }
        }
        Ok(got)
    }

    proptest! {
        #[test]
        fn any_split_into_reads_gives_the_same_messages(
            messages in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..600)), 0..40),
            pieces in prop::collection::vec(1..3000_usize, 1..10),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();

            prop_assert_eq!(feed(&bytes, &pieces), Ok(messages));
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            pieces in prop::collection::vec(1..300_usize, 1..5),
        ) {
            let _messages = feed(&bytes, &pieces);
        }

        #[test]
        fn a_cursor_never_reads_past_the_end(body: Vec<u8>, count: usize) {
            let mut cursor = Cursor::new(b'x', &body);
            while cursor.text().is_ok() {}
            let _fields = (cursor.u8(), cursor.u16(), cursor.i32(), cursor.four());
            prop_assert!(cursor.bytes(count.max(body.len() + 1)).is_err());
        }
    }

    #[test]
    fn memory_grows_for_a_large_message_and_is_given_back() {
        let large = message(b'd', &vec![7; 20 * BASE]);
        let mut frames = Frames::default();
        let mut rest = large.as_slice();
        let mut largest = 0;
        while !rest.is_empty() {
            assert_eq!(frames.take(), Ok(None));
            let space = frames.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            frames.filled(count);
            rest = &rest[count..];
            largest = largest.max(frames.capacity());
        }

        let taken = frames.take().unwrap().map(|(_, body)| body.len());
        frames.space();

        assert_eq!(taken, Some(20 * BASE));
        assert!(largest < 2 * large.len());
        assert_eq!(frames.capacity(), BASE);
    }

    #[test]
    fn memory_does_not_grow_for_messages_that_nobody_takes() {
        let small = message(b'd', &[7; 100]);
        let mut frames = Frames::default();
        loop {
            let space = frames.space();
            if space.len() < small.len() {
                break;
            }
            space[..small.len()].copy_from_slice(&small);
            frames.filled(small.len());
        }

        assert_eq!(frames.capacity(), BASE);
        assert!(frames.take().unwrap().is_some());
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let mut frames = Frames::default();
        frames.space()[..5].copy_from_slice(&[b'd', 0, 0, 0, 3]);
        frames.filled(5);
        assert_eq!(frames.take(), Err(FrameError::Length { tag: b'd', length: 3 }));

        let mut frames = Frames::default();
        frames.space()[..5].copy_from_slice(&[b'd', 0xFF, 0xFF, 0xFF, 0xFF]);
        frames.filled(5);
        assert!(matches!(frames.take(), Err(FrameError::TooLarge { .. })));
    }
}
