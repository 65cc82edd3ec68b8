//! A place for the server's Unix socket.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{EmbeddedError, io};
use super::user::Account;

/// Where the Unix socket lies: in the data directory, which is closed to others, or, where that
/// makes too long a path, in a directory as closed below the one for temporary files.
#[derive(Debug)]
pub(super) struct SocketFolder {
    path: PathBuf,
    temporary: bool,
}

/// The longest path of a socket in bytes: macOS allows 103, Linux 107.
const LONGEST_SOCKET: usize = 103;

impl SocketFolder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Finds or makes the place for the server on `data`.
    pub(super) fn for_data(data: &Path, account: Option<&Account>) -> Result<Self, EmbeddedError> {
        let name = "/.s.PGSQL.65535".len();
        if data.as_os_str().len() + name <= LONGEST_SOCKET {
            return Ok(Self { path: data.to_path_buf(), temporary: false });
        }
        // The same one each time, so that an address outlives a restart.
        let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("projector-{name}"));
        let ourselves = rustix::process::geteuid().as_raw();
        let owners = [ourselves, account.map_or(ourselves, |it| it.uid)];
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // Anyone may have put it there and wait for our connections.
                let found = path.symlink_metadata().map_err(io("read", &path))?;
                if !found.is_dir() || !owners.contains(&found.uid()) || found.mode() & 0o077 != 0 {
                    return Err(io("take over", &path)(ErrorKind::PermissionDenied.into()));
                }
            }
            other => other.map_err(io("create", &path))?,
        }
        if let Some(account) = account {
            account.own(&path)?;
        }
        Ok(Self { path, temporary: true })
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        if self.temporary {
            // Only if it is empty: another server on the data directory may be the one that lives.
            drop(fs::remove_dir(&self.path));
        }
    }
}
