//! The server's log: what tells why it did not start.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::{EmbeddedError, io};
use super::user::Account;

/// The name of the log in the data directory.
pub(super) const LOG: &str = "postgres.log";

/// The server's log, read from where this start began.
pub(super) struct Log {
    pub(super) file: File,
    began: u64,
}

impl Log {
    pub(super) fn open(data: &Path, account: Option<&Account>) -> Result<Self, EmbeddedError> {
        let path = data.join(LOG);
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(io("open", &path))?;
        if let Some(account) = account {
            account.own(&path)?;
        }
        let began = file.metadata().map_err(io("read", &path))?.len();
        Ok(Self { file, began })
    }

    /// The last lines since this start.
    pub(super) fn tail(&mut self) -> String {
        let mut text = Vec::new();
        let read = self
            .file
            .seek(SeekFrom::Start(self.began))
            .and_then(|_| self.file.read_to_end(&mut text));
        if let Err(error) = read {
            return format!("(cannot be read: {error})");
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines.split_at(lines.len().saturating_sub(15)).1.join("\n")
    }
}
