//! Making a data directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustix::process::{Pid, test_kill_process};
use uuid::Uuid;

use super::error::{EmbeddedError, io};
use super::find::Binaries;
use super::user::{Account, make_way};

/// The superuser's name.
pub(super) const SUPERUSER: &str = "postgres";

/// The file in the data directory that keeps the password for TCP.
const PASSWORD: &str = "projector.password";

/// Makes the data directory `data` unless it is there already. `more` are further arguments for
/// `initdb`.
///
/// It is made aside and renamed, so that it is there whole or not at all, whatever dies in between;
/// of several processes that make it at once the first wins and the others use its work.
///
/// Blocks for about a second.
///
/// # Errors
/// When the directory cannot be written, or `initdb` fails.
pub fn initialize(
    data: &Path,
    binaries: &Binaries,
    account: Option<&Account>,
    more: &[String],
) -> Result<(), EmbeddedError> {
    if let Some(account) = account {
        let needed = [data.to_path_buf(), binaries.program("initdb")];
        if let Some(path) = needed.into_iter().find(|it| !account.reaches(it)) {
            return Err(EmbeddedError::Unreachable { path, account: account.name.clone() });
        }
    }
    if major_of(data).is_some() {
        return Ok(());
    }
    let parent = data.parent().unwrap_or(Path::new("/"));
    make_way(parent).map_err(io("create", parent))?;
    sweep(data);
    let aside = Aside::create(data)?;
    let made = aside.path.join("data");
    fs::DirBuilder::new().mode(0o700).create(&made).map_err(io("create", &made))?;
    let password = aside.path.join(PASSWORD);
    write_password(&password)?;
    if let Some(account) = account {
        account.own(&aside.path)?;
    }

    let program = binaries.program("initdb");
    let mut command = Command::new(&program);
    command
        .arg("--pgdata")
        .arg(&made)
        .arg("--pwfile")
        .arg(&password)
        .args(["--username", SUPERUSER, "--auth-local=trust", "--auth-host=scram-sha-256"])
        .args(["--encoding=UTF8", "--locale=C", "--no-sync"])
        .args(more)
        .env("LC_ALL", "C")
        .current_dir(&aside.path);
    if let Some(account) = account {
        account.run(&mut command);
    }
    let output = command.output().map_err(io("run", &program))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(EmbeddedError::Initdb { data: data.to_path_buf(), output });
    }

    fs::rename(&password, made.join(PASSWORD)).map_err(io("write", &password))?;
    match fs::rename(&made, data) {
        // Another process was faster; its directory is as good.
        Err(_) if major_of(data).is_some() => Ok(()),
        other => other.map_err(io("create", data)),
    }
}

/// The major version that made the data directory; `None` when there is none.
pub fn major_of(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// The password for TCP that was drawn for the data directory.
pub(super) fn password_of(data: &Path) -> Result<String, EmbeddedError> {
    let file = data.join(PASSWORD);
    Ok(fs::read_to_string(&file).map_err(io("read", &file))?.trim().to_owned())
}

fn write_password(file: &Path) -> Result<(), EmbeddedError> {
    let mut options = OpenOptions::new();
    let mut open =
        options.write(true).create_new(true).mode(0o600).open(file).map_err(io("create", file))?;
    // 122 bits of the system's randomness, short enough for a URL that fits on a terminal's line
    let password = BASE64_URL_SAFE_NO_PAD.encode(Uuid::new_v4());
    writeln!(open, "{password}").map_err(io("write", file))
}

/// A directory beside the data directory, named after this process; gone when dropped.
struct Aside {
    path: PathBuf,
}

impl Aside {
    fn create(data: &Path) -> Result<Self, EmbeddedError> {
        let mut name = prefix(data);
        name.push_str(&format!("{}-{}", std::process::id(), Uuid::new_v4().simple()));
        let path = data.with_file_name(name);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(io("create", &path))?;
        Ok(Self { path })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // What stays is swept by the next one.
        drop(fs::remove_dir_all(&self.path));
    }
}

fn prefix(data: &Path) -> String {
    format!("{}.new-", data.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes what a process that died in the middle left beside `data`.
fn sweep(data: &Path) {
    let prefix = prefix(data);
    let entries = data.parent().and_then(|it| it.read_dir().ok());
    for entry in entries.into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|it| it.strip_prefix(&prefix)) else { continue };
        let owner = rest.split('-').next().and_then(|it| it.parse().ok()).and_then(Pid::from_raw);
        if owner.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH)) {
            // Somebody else may be sweeping too.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
