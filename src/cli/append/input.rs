//! Standard input, line by line, without ever holding more of a line than can be appended.

use std::io::{self, BufRead, BufReader, Read};

use tokio::sync::mpsc;

/// The longest line that is read, in bytes: payload and metadata of 1 MiB each, every character of
/// them written as an escape.
const LONGEST: usize = 16 << 20;

/// Lines on their way; a few, so that reading goes on while the database works.
const WAITING: usize = 64;

/// What a line turned out to be.
#[derive(Debug, PartialEq)]
pub(super) enum Text {
    /// Its bytes without the end.
    Line(Vec<u8>),
    /// Nothing but white space.
    Blank,
    /// It was too long and has been skipped.
    TooLong,
}

/// Reads in a thread of its own, because standard input blocks and cannot be given up.
pub(super) fn spawn(input: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Text>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(1 << 16, input);
        while let Some(text) = next(&mut input, LONGEST).transpose() {
            let end = text.is_err();
            // Nobody waits for lines any more: the verb has stopped.
            if sender.blocking_send(text).is_err() || end {
                return;
            }
        }
    });
    receiver
}

/// The next line, or `None` at the end.
fn next(input: &mut impl BufRead, longest: usize) -> io::Result<Option<Text>> {
    let mut line = Vec::new();
    let limit = longest as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if longest < line.len() && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
        return Ok(Some(Text::TooLong));
    }
    let text = line.trim_ascii_end();
    if text.is_empty() {
        return Ok(Some(Text::Blank));
    }
    let length = text.len();
    line.truncate(length);
    Ok(Some(Text::Line(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
        let mut input: &[u8] = b"ab\n\n123456789\r\nxyz";

        let mut read = || next(&mut input, 5).unwrap();

        assert_eq!(read(), Some(Text::Line(b"ab".to_vec())));
        assert_eq!(read(), Some(Text::Blank));
        assert_eq!(read(), Some(Text::TooLong));
        assert_eq!(read(), Some(Text::Line(b"xyz".to_vec())));
        assert_eq!(read(), None);
    }
}
