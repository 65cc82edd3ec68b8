//! A Postgres of its own for each test: a copy of a data directory that was made once.
//!
//! One each, because a replication slot waits for every open transaction of its cluster, so tests
//! on a shared one would stall one another; a copy takes 0.2 s.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use projector::embedded::{
    Account, Binaries, Options, Places, Progress, Server, initialize, obtain,
};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio_postgres::{Client, NoTls};

/// A running throwaway Postgres, gone with its directory when dropped. Nothing in it survives a
/// crash of the machine, everything a crash of its own.
pub(crate) struct Cluster {
    server: Option<Server>,
    options: Options,
    url: String,
    socket_url: String,
}

impl Cluster {
    /// Starts one with `wal_level = logical`, on a Unix socket and a free TCP port.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts one with further settings: `("max_slot_wal_keep_size", "4MB")`.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let data = tokio::task::spawn_blocking(fresh_data).await.unwrap();
        let mut options = Options::new(data, binaries().clone());
        options.port = Some(0);
        options.fsync = false;
        options.settings = vec![("shared_buffers".into(), "16MB".into())];
        let more = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        options.settings.extend(more);
        let server = Server::start(options.clone()).await.unwrap();
        // The port is kept, so that whoever is connected finds it again after a restart.
        options.port = server.port();
        let (url, socket_url) = (server.url(), server.socket_url());
        Self { server: Some(server), options, url, socket_url }
    }

    /// A connection URL over TCP, with the password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A connection URL over the Unix socket.
    pub(crate) fn socket_url(&self) -> &str {
        &self.socket_url
    }

    /// The TCP port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.options.port.unwrap()
    }

    /// Connects over the Unix socket.
    pub(crate) async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.socket_url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs statements, separated by semicolons, on a connection of their own.
    pub(crate) async fn batch(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap_or_else(|error| {
            let server = error.as_db_error().map(ToString::to_string);
            panic!("{}\n{sql}", server.unwrap_or_else(|| error.to_string()))
        });
    }

    /// Kills the postmaster as the kernel would: no shutdown, no checkpoint. Its children notice
    /// and end.
    pub(crate) fn kill9(&mut self) {
        let server = self.server.take().expect("it runs");
        kill_process(server.pid(), Signal::KILL).unwrap();
    }

    /// Shuts it down in good order.
    pub(crate) async fn stop(&mut self) {
        self.server.take().expect("it runs").stop().await.unwrap();
    }

    /// Starts it, after shutting it down where it runs; same data, same URLs.
    pub(crate) async fn restart(&mut self) {
        if self.server.is_some() {
            self.stop().await;
        }
        self.server = Some(Server::start(self.options.clone()).await.unwrap());
    }

    /// Copies its data as a base backup does, which has no slots; it is shut down meanwhile.
    pub(crate) async fn back_up(&mut self) -> Backup {
        self.stop().await;
        let folder = fresh_path();
        copy(&self.options.data, &folder);
        for slot in folder.join("pg_replslot").read_dir().unwrap().map(Result::unwrap) {
            std::fs::remove_dir_all(slot.path()).unwrap();
        }
        self.restart().await;
        Backup { folder }
    }

    /// Puts the data of a backup in the place of its own, and starts again.
    pub(crate) async fn restore(&mut self, backup: &Backup) {
        self.stop().await;
        std::fs::remove_dir_all(&self.options.data).unwrap();
        copy(&backup.folder, &self.options.data);
        self.restart().await;
    }

    /// The postmaster's process id, while it runs.
    pub(crate) fn pid(&self) -> Option<Pid> {
        Some(self.server.as_ref()?.pid())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.server.take());
        // A killed server's children may still be writing; what stays goes with the next sweep.
        drop(std::fs::remove_dir_all(&self.options.data));
    }
}

/// A copy of a cluster's data, gone when dropped.
pub(crate) struct Backup {
    folder: PathBuf,
}

impl Drop for Backup {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// The version under test: `PROJECTOR_TEST_POSTGRES` (`16`, as fetched by `.ci/postgres 16`), or
/// whatever this machine has. Where it has none, one is fetched, or installed, once.
pub(crate) fn binaries() -> &'static Binaries {
    static FOUND: OnceLock<Binaries> = OnceLock::new();
    FOUND.get_or_init(|| {
        let wanted = std::env::var("PROJECTOR_TEST_POSTGRES").ok().map(|it| it.parse().unwrap());
        let places = Places::new(fetched(), |name| std::env::var_os(name));
        places.find(wanted).unwrap().unwrap_or_else(|| match wanted {
            Some(major) => {
                panic!("no PostgreSQL {major} here; get one with `.ci/postgres {major}`")
            }
            // Our callers are on a runtime, and wait.
            None => std::thread::spawn(fetch).join().unwrap(),
        })
    })
}

/// Where `.ci/postgres` puts what it fetches, and so do we, unless Postgres' user cannot get there.
fn fetched() -> &'static Path {
    static FETCHED: OnceLock<PathBuf> = OnceLock::new();
    FETCHED.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let usual = target.join("postgres");
        if is_closed(&usual.join("18/bin/postgres")) { scratch().join("fetched") } else { usual }
    })
}

#[allow(clippy::print_stderr, reason = "whoever waits wants to know for what")]
fn fetch() -> Binaries {
    // Of several test processes one fetches, and the others find it done.
    let lock = std::fs::File::create(scratch().join("fetch.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut tell = |progress: Progress<'_>| match progress {
        Progress::Fetching { version } => {
            eprintln!("no PostgreSQL here: fetching {version} for the tests");
        }
        Progress::Installing { command } => eprintln!("installing one: {command}"),
        Progress::FetchFailed(error) => eprintln!("that failed: {error}"),
        Progress::InstallFailed { why } => eprintln!("that failed: {why}"),
        Progress::Received(_) => {}
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let env = |name: &str| std::env::var_os(name);
    let obtained = runtime.block_on(obtain(fetched(), None, env, &mut tell));
    obtained.unwrap_or_else(|error| panic!("{error}"))
}

/// A directory for tests that Postgres' user may enter: below `target/`, or, where that is closed
/// to it, below the one for temporary files.
pub(crate) fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let usual = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
        let closed = is_closed(&usual.join("x"));
        let user = rustix::process::geteuid().as_raw();
        let other = std::env::temp_dir().join(format!("projector-tests-{user}"));
        let folder = if closed { other } else { usual };
        std::fs::create_dir_all(&folder).unwrap();
        sweep(&folder);
        folder
    })
}

/// Whether the server's user cannot come to `path`.
fn is_closed(path: &Path) -> bool {
    Account::for_server().unwrap().is_some_and(|it| !it.reaches(path))
}

/// A path below [`scratch`] that no other test has; with the process id in it for the [`sweep`].
pub(crate) fn fresh_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    scratch().join(format!("{}-{number}", std::process::id()))
}

fn fresh_data() -> PathBuf {
    let template = scratch().join(format!("template-{}", binaries().version()));
    let account = Account::for_server().unwrap();
    // Small WAL segments: less to copy, and a limit on kept WAL is soon reached.
    initialize(&template, binaries(), account.as_ref(), &["--wal-segsize=1".into()]).unwrap();
    let data = fresh_path();
    copy(&template, &data);
    data
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-Rp").args([from, to]).status().unwrap();
    assert!(copied.success(), "cp -Rp {} {}", from.display(), to.display());
}

/// Removes what test processes left that were killed. Their servers ended by themselves.
fn sweep(folder: &Path) {
    for entry in folder.read_dir().unwrap().filter_map(Result::ok) {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|it| it.split_once('-')?.0.parse().ok());
        let Some(owner) = owner.and_then(Pid::from_raw) else { continue };
        if test_kill_process(owner) == Err(rustix::io::Errno::SRCH) {
            // Another process may be sweeping too.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}
