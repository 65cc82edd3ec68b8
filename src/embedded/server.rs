//! The life of the server's process.
//!
//! ```text
//! this process ──pipe──▶ watchdog (sh)         reads until the pipe closes, then SIGINT to postgres
//!      └──child────────▶ postgres              SIGINT: fast shutdown; SIGQUIT: immediate
//! ```
//!
//! The watchdog is why `kill -9` of this process leaves no server behind: the kernel closes the
//! pipe. It works on every Unix; Linux' parent-death signal would follow the spawning *thread*.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sha2::{Digest, Sha256};

use super::error::{EmbeddedError, io};
use super::find::Binaries;
use super::init::{SUPERUSER, initialize, major_of, password_of};
use super::user::Account;

/// How a private Postgres is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made when it is not there.
    pub data: PathBuf,
    /// Which programs to run.
    pub binaries: Binaries,
    /// The TCP port on 127.0.0.1; 0 takes a free one; `None` leaves it at the Unix socket.
    pub port: Option<u16>,
    /// Whether what is committed survives a crash of the machine. Without it, tests are faster.
    pub fsync: bool,
    /// Further settings, `("work_mem", "64MB")`; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Further arguments for `initdb`, when the data directory is made.
    pub initdb: Vec<String>,
}

impl Options {
    /// A durable server on `data` that listens on its Unix socket only.
    pub fn new(data: impl Into<PathBuf>, binaries: Binaries) -> Self {
        let (settings, initdb) = (Vec::new(), Vec::new());
        Self { data: data.into(), binaries, port: None, fsync: true, settings, initdb }
    }
}

/// A running private Postgres. Dropping it ends it at once, without a checkpoint, and blocks for
/// some 100 ms meanwhile; [`stop`](Self::stop) is the gentle way.
#[derive(Debug)]
pub struct Server {
    process: Option<Process>,
    pid: Pid,
    data: PathBuf,
    socket: SocketFolder,
    /// The port of the socket's name, and of TCP where that is wanted.
    port: u16,
    password: Option<String>,
}

/// How long a server may take until it accepts connections. Crash recovery is in it.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long to wait for a predecessor on the same data directory that may be about to end.
const HANDOVER_LIMIT: Duration = Duration::from_secs(3);

/// How long a fast shutdown may take before it becomes an immediate one.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Time between two looks at a process or a socket.
const POLL: Duration = Duration::from_millis(20);

impl Server {
    /// Makes the data directory if need be, starts the server, and waits until it accepts
    /// connections.
    ///
    /// # Errors
    /// When the data directory is in use, was made by another version or cannot be made, when the
    /// port is taken, or when the server does not come up.
    pub async fn start(options: Options) -> Result<Self, EmbeddedError> {
        let account = Account::for_server()?;
        let options = prepare(options, account.clone()).await?;
        predecessor_gone(&options.data).await;
        let began = Instant::now();
        loop {
            let error = match Self::launch(&options, account.as_ref()).await {
                Ok(server) => return Ok(server),
                Err(error) => error,
            };
            let again = match &error {
                // A free port is taken by somebody else now and then.
                EmbeddedError::PortTaken { .. } => options.port == Some(0),
                // Of a killed server the children live a moment longer, and its memory with them.
                EmbeddedError::InUse { pid, .. } => !is_alive(pid),
                _ => false,
            };
            if !again || HANDOVER_LIMIT < began.elapsed() {
                return Err(error);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn launch(options: &Options, account: Option<&Account>) -> Result<Self, EmbeddedError> {
        let data = &options.data;
        let port = match options.port {
            Some(0) => free_port()?,
            Some(port) => port,
            None => 5432,
        };
        let password = options.port.map(|_| password_of(data)).transpose()?;
        let socket = SocketFolder::for_data(data, account)?;
        let mut log = Log::open(data, account)?;
        let process = spawn(options, account, port, &socket.path, &log)?;
        let pid = process.pid();
        let data = data.clone();
        let mut server = Self { process: Some(process), pid, data, socket, port, password };
        server.ready(&mut log).await?;
        Ok(server)
    }

    /// Polls with real connections until one succeeds.
    async fn ready(&mut self, log: &mut Log) -> Result<(), EmbeddedError> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.socket.path).port(self.port).user(SUPERUSER).dbname("postgres");
        config.connect_timeout(Duration::from_secs(5));
        let began = Instant::now();
        loop {
            // The process first: of two servers on one data directory the other one would answer.
            if let Some(status) = self.process.as_mut().and_then(Process::exited) {
                return Err(self.explain(&status, log));
            }
            let answer = config.connect(tokio_postgres::NoTls).await;
            if answer.is_ok() && self.owns_data() {
                return Ok(());
            }
            if START_LIMIT < began.elapsed() {
                let (seconds, source) = (START_LIMIT.as_secs(), answer.err());
                return Err(EmbeddedError::NotReady { seconds, log: log.tail(), source });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether the data directory's lock file names our process: a socket that answers may also be
    /// a predecessor's.
    fn owns_data(&self) -> bool {
        lock_holder(&self.data) == Some(self.pid.as_raw_nonzero().to_string())
    }

    /// Why the server ended: from its log, which is in English because we set the locale.
    fn explain(&self, status: &str, log: &mut Log) -> EmbeddedError {
        let said = log.tail();
        let locked = said.contains("lock file \"postmaster.pid\" already exists")
            || said.contains("pre-existing shared memory block");
        if locked {
            let pid = lock_holder(&self.data).unwrap_or_else(|| "unknown".to_owned());
            return EmbeddedError::InUse { data: self.data.clone(), pid };
        }
        if said.contains("could not create any TCP/IP sockets") {
            return EmbeddedError::PortTaken { port: self.port };
        }
        EmbeddedError::Exited { status: status.to_owned(), log: said }
    }

    /// A connection URL: over TCP if the server listens there, else over the Unix socket. It
    /// contains the password.
    pub fn url(&self) -> String {
        match &self.password {
            Some(password) => {
                format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{}/postgres", self.port)
            }
            None => self.socket_url(),
        }
    }

    /// A connection URL over the Unix socket.
    pub fn socket_url(&self) -> String {
        let folder = self.socket.path.to_string_lossy();
        let host = utf8_percent_encode(&folder, NON_ALPHANUMERIC);
        format!("postgres://{SUPERUSER}@{host}:{}/postgres", self.port)
    }

    /// The TCP port on 127.0.0.1, if it listens there.
    pub fn port(&self) -> Option<u16> {
        self.password.as_ref().map(|_| self.port)
    }

    /// The process id of the postmaster.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The server's log file.
    pub fn log(&self) -> PathBuf {
        self.data.join(LOG)
    }

    /// Ends the server: connections are closed, and a checkpoint is written. After 20 s it is ended
    /// at once, which the next start recovers from.
    ///
    /// # Errors
    /// When its end cannot be seen.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::INT);
        let pid = self.pid;
        let mut ended = tokio::task::spawn_blocking(move || process.wait());
        if tokio::time::timeout(STOP_LIMIT, &mut ended).await.is_err() {
            tracing::warn!(data = %self.data.display(), "postgres does not stop, ending it at once");
            signal(pid, Signal::QUIT);
        } else {
            return Ok(());
        }
        ended.await.map_err(|error| io("stop", &self.data)(error.into()))
    }
}

/// Makes what is missing, and says no to what cannot work.
async fn prepare(mut options: Options, account: Option<Account>) -> Result<Options, EmbeddedError> {
    options.data = std::path::absolute(&options.data).map_err(io("find", &options.data))?;
    let data = options.data.clone();
    if let Some(made_by) = major_of(&data)
        && made_by != options.binaries.major()
    {
        return Err(EmbeddedError::OtherVersion { data, made_by, found: options.binaries.major() });
    }
    let work = tokio::task::spawn_blocking(move || {
        initialize(&options.data, &options.binaries, account.as_ref(), &options.initdb)?;
        if let Some(account) = &account {
            // It may have been made by another user.
            account.own(&options.data)?;
        }
        Ok(options)
    });
    work.await.map_err(|error| io("create", &data)(error.into()))?
}

/// Started by `sh`: `$$` is the shell's process id, which `exec` makes the server's. The watchdog
/// is nobody's child (two levels of parentheses), as Postgres takes every child for its own. A line
/// in the pipe tells the watchdog that the server has ended in good order.
const WATCHED: &str = r#"( ( read -r _ <&3 || kill -INT $$ ) & ) 3<&0; exec "$@" </dev/null"#;

fn spawn(
    options: &Options,
    account: Option<&Account>,
    port: u16,
    socket: &Path,
    log: &Log,
) -> Result<Process, EmbeddedError> {
    let program = options.binaries.program("postgres");
    let output = || log.file.try_clone().map_err(io("open", &options.data));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", WATCHED, "sh"]).arg(&program).arg("-D").arg(&options.data);
    for (name, value) in settings(options, port, socket) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    command
        .env("LC_ALL", "C")
        .current_dir(&options.data)
        .stdin(Stdio::piped())
        .stdout(output()?)
        .stderr(output()?)
        // Ctrl-C in a terminal goes to the whole process group; the server is to end last.
        .process_group(0);
    if let Some(account) = account {
        account.run(&mut command);
    }
    let mut child = command.spawn().map_err(io("start", &program))?;
    let leash = child.stdin.take();
    Ok(Process { child, leash })
}

/// Ours first, so that the caller's win.
fn settings(options: &Options, port: u16, socket: &Path) -> Vec<(String, String)> {
    let listen = if options.port.is_some() { "127.0.0.1" } else { "" };
    // A list in a comma's syntax, hence the quotes.
    let socket = format!("\"{}\"", socket.to_string_lossy().replace('"', "\"\""));
    let port = port.to_string();
    let ours = [
        ("port", port.as_str()),
        ("listen_addresses", listen),
        ("unix_socket_directories", &socket),
        ("wal_level", "logical"),
        ("max_wal_senders", "16"),
        ("max_replication_slots", "16"),
        ("track_commit_timestamp", "on"),
        ("fsync", if options.fsync { "on" } else { "off" }),
        ("full_page_writes", if options.fsync { "on" } else { "off" }),
        ("log_checkpoints", "off"),
        ("timezone", "UTC"),
    ];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    ours.chain(options.settings.iter().cloned()).collect()
}

/// The postmaster, which ends with this value.
#[derive(Debug)]
struct Process {
    child: Child,
    leash: Option<ChildStdin>,
}

impl Process {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it has.
    fn exited(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    fn signal(&self, which: Signal) {
        // Not yet waited for, so the number still is this process'.
        signal(self.pid(), which);
    }

    fn wait(&mut self) {
        // The one error is that it has been waited for already.
        drop(self.child.wait());
        if let Some(mut leash) = self.leash.take() {
            // Lets the watchdog go; if it is gone already, all the better.
            drop(leash.write_all(b"\n"));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.leash.is_some() {
            if self.exited().is_none() {
                self.signal(Signal::QUIT);
            }
            self.wait();
        }
    }
}

fn signal(pid: Pid, which: Signal) {
    if let Err(error) = kill_process(pid, which) {
        // It has ended already, which is what signals are sent for here.
        tracing::debug!(pid = pid.as_raw_nonzero(), %error, "postgres is gone");
    }
}

/// The first line of the data directory's lock file: a process id.
fn lock_holder(data: &Path) -> Option<String> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().next().map(str::to_owned)
}

fn is_alive(pid: &str) -> bool {
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    pid.is_some_and(|it| test_kill_process(it) != Err(rustix::io::Errno::SRCH))
}

/// Waits a little for another server on the data directory to end: if its process was just killed,
/// it is about to.
async fn predecessor_gone(data: &Path) {
    let began = Instant::now();
    while lock_holder(data).is_some_and(|pid| is_alive(&pid)) && began.elapsed() < HANDOVER_LIMIT {
        tokio::time::sleep(POLL).await;
    }
}

fn free_port() -> Result<u16, EmbeddedError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io("bind", "127.0.0.1"))?;
    Ok(listener.local_addr().map_err(io("bind", "127.0.0.1"))?.port())
}

/// Where the Unix socket lies: in the data directory, which is closed to others, or, where that
/// makes too long a path, in a directory as closed below the one for temporary files.
#[derive(Debug)]
struct SocketFolder {
    path: PathBuf,
    temporary: bool,
}

/// The longest path of a socket in bytes: macOS allows 103, Linux 107.
const LONGEST_SOCKET: usize = 103;

impl SocketFolder {
    fn for_data(data: &Path, account: Option<&Account>) -> Result<Self, EmbeddedError> {
        let name = "/.s.PGSQL.65535".len();
        if data.as_os_str().len() + name <= LONGEST_SOCKET {
            return Ok(Self { path: data.to_path_buf(), temporary: false });
        }
        // The same one each time, so that an address outlives a restart.
        let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("projector-{name}"));
        let owner = account.map_or_else(|| rustix::process::geteuid().as_raw(), |it| it.uid);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // Anyone may have put it there and wait for our connections.
                let found = path.symlink_metadata().map_err(io("read", &path))?;
                if !found.is_dir() || found.uid() != owner || found.mode() & 0o077 != 0 {
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

/// The name of the log in the data directory.
const LOG: &str = "postgres.log";

/// The server's log, read from where this start began.
struct Log {
    file: File,
    began: u64,
}

impl Log {
    fn open(data: &Path, account: Option<&Account>) -> Result<Self, EmbeddedError> {
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
    fn tail(&mut self) -> String {
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
