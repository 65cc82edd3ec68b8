//! Starting a server and stopping it.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, test_kill_process};

use super::error::{EmbeddedError, io};
use super::find::Binaries;
use super::init::{SUPERUSER, initialize, major_of, password_of};
use super::log::{LOG, Log};
use super::process::{Process, signal};
use super::socket::SocketFolder;
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
        let command = command(options, port, socket.path());
        let process = Process::spawn(&command, data, account, &log)?;
        let pid = process.pid();
        let data = data.clone();
        let mut server = Self { process: Some(process), pid, data, socket, port, password };
        server.ready(&mut log).await?;
        Ok(server)
    }

    /// Polls with real connections until one succeeds.
    async fn ready(&mut self, log: &mut Log) -> Result<(), EmbeddedError> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket.path()).port(self.port).user(SUPERUSER).dbname("postgres");
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
        let folder = self.socket.path().to_string_lossy();
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

    /// How the server ended, if it has without being told to; then it can be started again.
    pub fn exited(&mut self) -> Option<String> {
        self.process.as_mut()?.exited()
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
        let ended = match tokio::time::timeout(STOP_LIMIT, &mut ended).await {
            Ok(ended) => ended,
            Err(_) => {
                let data = self.data.display();
                tracing::warn!(%data, "postgres does not stop, ending it at once");
                signal(pid, Signal::QUIT);
                ended.await
            }
        };
        ended.map_err(|error| io("stop", &self.data)(error.into()))
    }
}

/// Removes the data directory, whose server may just have been killed.
///
/// # Errors
/// [`EmbeddedError::InUse`] when a server runs on it; when it cannot be removed.
pub async fn remove(data: &Path) -> Result<(), EmbeddedError> {
    predecessor_gone(data).await;
    if let Some(pid) = lock_holder(data).filter(|pid| is_alive(pid)) {
        return Err(EmbeddedError::InUse { data: data.to_path_buf(), pid });
    }
    match fs::remove_dir_all(data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io("remove", data)),
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

/// The server's program and its arguments.
fn command(options: &Options, port: u16, socket: &Path) -> Vec<OsString> {
    let program = options.binaries.program("postgres").into_os_string();
    let mut command = vec![program, "-D".into(), options.data.clone().into_os_string()];
    for (name, value) in settings(options, port, socket) {
        command.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    command
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
