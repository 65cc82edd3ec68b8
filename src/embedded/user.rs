//! Postgres refuses to run as root: who it runs as instead, and what that user can reach.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::error::{EmbeddedError, io};

/// A user of the machine that root becomes for the server's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
}

impl Account {
    /// Whom to become: nobody else (`None`) unless this process is root.
    ///
    /// # Errors
    /// [`EmbeddedError::NoAccount`] when root finds neither `postgres` nor `nobody`.
    pub fn for_server() -> Result<Option<Self>, EmbeddedError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").map_err(io("read", "/etc/passwd"))?;
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Self::in_passwd(&passwd, name))
            .map(Some)
            .ok_or(EmbeddedError::NoAccount)
    }

    fn in_passwd(passwd: &str, name: &str) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let mut numbers = fields.skip(1).map(id);
            Some(Self { name: name.to_owned(), uid: numbers.next()??, gid: numbers.next()?? })
        })
    }

    /// Makes `command` run as this user, in its own group only.
    pub(super) fn run(&self, command: &mut Command) {
        command.gid(self.gid).uid(self.uid);
    }

    /// Gives `path` and all below it to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        let metadata = path.symlink_metadata().map_err(io("read", path))?;
        if metadata.is_symlink() {
            return lchown(path, Some(self.uid), Some(self.gid)).map_err(io("chown", path));
        }
        if metadata.uid() != self.uid || metadata.gid() != self.gid {
            chown(path, Some(self.uid), Some(self.gid)).map_err(io("chown", path))?;
        }
        if metadata.is_dir() {
            for entry in path.read_dir().map_err(io("read", path))? {
                self.own(&entry.map_err(io("read", path))?.path())?;
            }
        }
        Ok(())
    }

    /// Whether this user may enter every directory above `path`, as far as they exist.
    pub fn reaches(&self, path: &Path) -> bool {
        let above = path.ancestors().skip(1).filter_map(|it| it.metadata().ok());
        above.into_iter().all(|it| {
            let allowed = match (it.uid() == self.uid, it.gid() == self.gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            it.mode() & allowed != 0
        })
    }
}

/// A user or group id; macOS writes `nobody`'s as -2.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| Some(text.parse::<i32>().ok()?.cast_unsigned()))
}

/// Where the private Postgres of a project lives: in its folder `.projector`.
///
/// Where the server's user cannot get there (root's project below `/root`), it is a directory of
/// its own below `/var/lib/projector`. `project` is an absolute path.
///
/// # Errors
/// [`EmbeddedError::NoAccount`].
pub fn home(project: &Path) -> Result<PathBuf, EmbeddedError> {
    let usual = project.join(".projector");
    match Account::for_server()? {
        Some(account) if !account.reaches(&usual.join("data")) => {
            let digest = Sha256::digest(project.as_os_str().as_encoded_bytes());
            let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            Ok(Path::new("/var/lib/projector").join(short))
        }
        _ => Ok(usual),
    }
}

/// Makes the directory `path` and what is missing above it; others may pass through, whatever the
/// umask says.
///
/// # Errors
/// When one of them cannot be made.
pub fn make_way(path: &Path) -> std::io::Result<()> {
    // Of a relative path the last parent is empty.
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_way(parent)?;
    }
    match std::fs::create_dir(path) {
        // Another process was faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.and_then(|()| set_permissions(path, Permissions::from_mode(0o755))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_from_passwd_by_their_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\
                      postgres2:x:5:6::/:/bin/false\n\
                      postgres:x:105:114:PostgreSQL administrator:/var/lib/postgresql:/bin/bash\n\
                      nobody:*:-2:-2:Unprivileged User:/var/empty:/usr/bin/false\n";

        let account = Account::in_passwd(passwd, "postgres").unwrap();
        assert_eq!((account.uid, account.gid), (105, 114));
        let nobody = Account::in_passwd(passwd, "nobody").unwrap();
        assert_eq!(nobody.uid, u32::MAX - 1);
        assert_eq!(Account::in_passwd(passwd, "postgre"), None);
    }

    #[test]
    fn a_directory_below_a_closed_one_is_out_of_reach() {
        let closed = std::env::temp_dir().join(format!("projector-user-{}", std::process::id()));
        std::fs::create_dir_all(closed.join("data")).unwrap();
        set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        let stranger = Account { name: "stranger".into(), uid: 4_000_000, gid: 4_000_000 };

        assert!(stranger.reaches(&closed));
        assert!(!stranger.reaches(&closed.join("data")));
        std::fs::remove_dir_all(&closed).unwrap();
    }
}
