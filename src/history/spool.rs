//! Messages of the log in a file, where they are too many for memory.
//!
//! Messages are written many at once. Those that the file does not take stay in memory, and the file
//! keeps whole messages only: whatever happens, what was added can be read.
//!
//! The file has no name once it is open: it is gone with the process, however that ends, and nobody
//! else can open it. It is read once, from its beginning, when nothing more is written.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Chain, Cursor, ErrorKind, Read, Seek, Take};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// Bytes that are written and read at once.
const BUFFER: usize = 256 * 1024;
/// A file does not become larger: the folder is also that of others.
const MOST: u64 = 4 * 1024 * 1024 * 1024;

/// A file being written.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    /// Bytes of the file, which are whole messages.
    length: u64,
    /// What comes after them.
    buffer: Vec<u8>,
}

/// A file being read.
#[derive(Debug)]
pub(super) struct Spooled {
    messages: Chain<BufReader<Take<File>>, Cursor<Vec<u8>>>,
}

impl Spool {
    /// Makes the file, in the folder for temporary files (`TMPDIR`).
    pub(super) fn create() -> io::Result<Self> {
        let name = format!("projector-{}-{:x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, length: 0, buffer: Vec::new() })
    }

    /// Adds a message. After an error it is there all the same, and no more are to be added.
    pub(super) fn write(&mut self, message: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(&message.len().to_ne_bytes());
        self.buffer.extend_from_slice(message);
        if self.buffer.len() < BUFFER {
            return Ok(());
        }
        let length = u64::try_from(self.buffer.len()).map_err(io::Error::other)? + self.length;
        if MOST < length {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if let Err(error) = self.file.write_all_at(&self.buffer, self.length) {
            // for the others of the folder; what is there beyond the length is not read
            drop(self.file.set_len(self.length));
            return Err(error);
        }
        self.length = length;
        self.buffer.clear();
        Ok(())
    }

    /// Goes back to the first message.
    pub(super) fn rewind(self) -> io::Result<Spooled> {
        let Self { mut file, length, buffer } = self;
        file.rewind()?;
        let file = BufReader::with_capacity(BUFFER, file.take(length));
        Ok(Spooled { messages: file.chain(Cursor::new(buffer)) })
    }
}

impl Spooled {
    /// Puts the next message into `message`; false at the end.
    pub(super) fn read(&mut self, message: &mut Vec<u8>) -> io::Result<bool> {
        let mut length = [0; size_of::<usize>()];
        match self.messages.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        message.resize(usize::from_ne_bytes(length), 0);
        self.messages.read_exact(message)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_in_order_and_no_file_is_left() {
        let mut spool = Spool::create().unwrap();
        let messages = messages();
        for message in &messages {
            spool.write(message).unwrap();
        }

        assert!(BUFFER < usize::try_from(spool.length).unwrap());
        assert!(all_of(spool) == messages);
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_read_all_the_same() {
        let file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let mut spool = Spool { file, length: 0, buffer: Vec::new() };
        let messages = messages();

        let added = messages.iter().take_while(|it| spool.write(it).is_ok()).count() + 1;

        assert!(added < messages.len());
        assert!(all_of(spool) == messages[..added]);
    }

    fn messages() -> Vec<Vec<u8>> {
        (0..3000_usize).map(|it| vec![b'x'; it]).collect()
    }

    fn all_of(spool: Spool) -> Vec<Vec<u8>> {
        let mut spooled = spool.rewind().unwrap();
        let (mut read, mut message) = (Vec::new(), Vec::new());
        while spooled.read(&mut message).unwrap() {
            read.push(message.clone());
        }
        read
    }
}
