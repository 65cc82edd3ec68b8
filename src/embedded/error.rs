//! What can go wrong with a private Postgres.

use std::path::{Path, PathBuf};

use super::fetch::FetchError;

/// A private Postgres could not be made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A file or a process of the machine said no.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// A verb: "create", "start".
        doing: &'static str,
        /// What it was about.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The folder has no `initdb` and `postgres` of a version we know.
    #[error("`{}` holds no usable PostgreSQL: {why}", folder.display())]
    Unusable {
        /// The folder looked at.
        folder: PathBuf,
        /// What is missing or too old.
        why: String,
    },
    /// There is none, none could be fetched, and none be installed.
    #[error("no PostgreSQL 15 or newer on this machine, and none can be fetched; try: {remedy}")]
    NoPostgres {
        /// The command that would help.
        remedy: String,
        /// Why none could be fetched.
        #[source]
        source: Box<FetchError>,
    },
    /// A data directory asks for one version, and the machine does not have it.
    #[error(
        "the data directory needs PostgreSQL {wanted}, which is not on this machine; \
         install it, or remove the directory"
    )]
    NoSuchVersion {
        /// The major version that is needed.
        wanted: u32,
    },
    /// Postgres refuses root, and there is nobody to become.
    #[error("Postgres does not run as root, and this machine has neither `postgres` nor `nobody`")]
    NoAccount,
    /// The account the server runs under cannot enter one of the directory's parents.
    #[error("user `{account}`, who runs Postgres for root, cannot enter `{}`", path.display())]
    Unreachable {
        /// The data directory or the folder of the binaries.
        path: PathBuf,
        /// `postgres` or `nobody`.
        account: String,
    },
    /// `initdb` ended with an error.
    #[error("`initdb` failed for `{}`:\n{output}", data.display())]
    Initdb {
        /// The data directory it was to make.
        data: PathBuf,
        /// What it said.
        output: String,
    },
    /// The data directory was made by another major version.
    #[error(
        "`{}` was made by PostgreSQL {made_by}, found is {found}; remove it, or install {made_by}",
        data.display()
    )]
    OtherVersion {
        /// The data directory.
        data: PathBuf,
        /// Its major version.
        made_by: u32,
        /// The binaries' major version.
        found: u32,
    },
    /// Another server runs on the data directory.
    #[error(
        "`{}` is in use by another Postgres (process {pid}); stop the other one first",
        data.display()
    )]
    InUse {
        /// The data directory.
        data: PathBuf,
        /// The other server's process id, as its lock file has it.
        pid: String,
    },
    /// The TCP port asked for belongs to somebody else.
    #[error("port {port} on 127.0.0.1 is taken")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The server ended instead of starting.
    #[error("Postgres did not start ({status}); the end of its log:\n{log}")]
    Exited {
        /// How it ended.
        status: String,
        /// Its last lines.
        log: String,
    },
    /// The server runs but accepts no connection.
    #[error("Postgres accepts no connection after {seconds} s; the end of its log:\n{log}")]
    NotReady {
        /// How long it had.
        seconds: u64,
        /// Its last lines.
        log: String,
        /// What the last attempt met; `None` when another server answered.
        #[source]
        source: Option<tokio_postgres::Error>,
    },
}

/// Gives an I/O error its file and verb: `.map_err(io("create", path))`.
pub(super) fn io(
    doing: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(std::io::Error) -> EmbeddedError {
    let path = path.as_ref().to_path_buf();
    move |source| EmbeddedError::Io { doing, path, source }
}
