//! The folder in which `dev` keeps everything.
//!
//! ```text
//! .projector/dev.json    the mark that the folder is ours, a lock while `dev` runs, the port
//! .projector/data/       the cluster
//! .projector/postgres/   Postgres itself, if it had to be fetched
//! ```

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::cli::{Exit, Failure};
use crate::embedded;

/// The mark's file name.
const MARK: &str = "dev.json";

/// The folder, ours alone while this value lives.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    mark: File,
    kept: Kept,
}

/// What the mark says.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Kept {
    /// Who holds the lock, if anybody does.
    pid: u32,
    /// The port that Postgres had last, so that its address stays the same.
    port: Option<u16>,
}

impl Home {
    /// Opens `folder`, or the usual one, and makes it if need be.
    ///
    /// # Errors
    /// When it holds what is not ours, another `dev` is at work in it, or it cannot be written.
    pub(super) fn open(folder: Option<&Path>) -> anyhow::Result<Self> {
        let folder = match folder {
            Some(folder) => std::path::absolute(folder).context("cannot tell where --data is")?,
            None => {
                let here = std::env::current_dir().context("cannot tell the working directory")?;
                embedded::home(&here)?
            }
        };
        let named = folder.display();
        if !is_ours_or_empty(&folder).with_context(|| format!("cannot read `{named}`"))? {
            return Err(Failure::new(format!("`{named}` was not made by `projector dev`"))
                .hint("name an empty or a new folder with --data".to_owned())
                .exit(Exit::USAGE)
                .into());
        }
        let cannot_write = || format!("cannot write to `{named}`");
        embedded::make_way(&folder).with_context(cannot_write)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut mark = options.open(folder.join(MARK)).with_context(cannot_write)?;
        let locked = flock(&mark, FlockOperation::NonBlockingLockExclusive);
        let mut text = String::new();
        mark.read_to_string(&mut text).with_context(cannot_write)?;
        // One that was cut short when the machine went down still is our mark.
        let kept: Kept = serde_json::from_str(&text).unwrap_or_default();
        match locked {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let message = format!("another `projector dev` uses `{named}`");
                let hint = format!(
                    "stop it (process {}), or give this one a folder with --data",
                    kept.pid
                );
                return Err(Failure::new(message).hint(hint).into());
            }
            other => other.with_context(cannot_write)?,
        }
        let mut home = Self { folder, mark, kept };
        home.kept.pid = std::process::id();
        home.write()?;
        Ok(home)
    }

    /// The folder's absolute path.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cluster's directory.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where a fetched Postgres goes.
    pub(super) fn fetched(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// The port that Postgres had last.
    pub(super) fn port(&self) -> Option<u16> {
        self.kept.port
    }

    /// Remembers the port for the next start.
    pub(super) fn keep_port(&mut self, port: Option<u16>) -> anyhow::Result<()> {
        self.kept.port = port;
        self.write()
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let text = serde_json::to_string(&self.kept).context("cannot write JSON")?;
        let file = &mut self.mark;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{text}"))
            .with_context(|| format!("cannot write to `{}`", self.folder.display()))
    }
}

/// Whether `folder` has our mark, or nothing at all in it.
fn is_ours_or_empty(folder: &Path) -> std::io::Result<bool> {
    if folder.join(MARK).try_exists()? {
        return Ok(true);
    }
    match folder.read_dir() {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
