//! Throwaway servers, with the settings of a real one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use projector::embedded::{Binaries, Options, Places, Server};
use tokio_postgres::{Client, NoTls};

use crate::args::Transport;

/// Beside these: fsync, full page writes, `wal_level = logical` and `track_commit_timestamp`, all
/// on. `max_wal_size` keeps the checkpoints of the load out of the measured time.
const SETTINGS: [(&str, &str); 3] =
    [("shared_buffers", "512MB"), ("max_wal_size", "8GB"), ("checkpoint_timeout", "1h")];

/// A folder for everything a benchmark writes; gone with the value.
pub(crate) struct Scratch {
    folder: PathBuf,
    binaries: Binaries,
}

impl Scratch {
    /// Makes it in `parent`, or in the folder for temporary files.
    pub(crate) fn create(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let folder = parent.join(format!("projector-bench-{}", std::process::id()));
        let fetched = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("postgres");
        let places = Places::new(&fetched, |name| std::env::var_os(name));
        let binaries = places.find(None)?.context("no PostgreSQL here; set PG_BIN")?;
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder, binaries })
    }

    /// The version of Postgres.
    pub(crate) fn postgres(&self) -> &str {
        self.binaries.version()
    }

    /// A client program of Postgres, which lies beside the server's real file: `PATH` may hold only
    /// links to some of them.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let postgres = self.binaries.folder().join("postgres");
        let real = postgres.canonicalize().context("cannot find the file of `postgres`")?;
        Ok(real.with_file_name(name))
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts a server on the data directory `name`, which is made when it is not there.
    pub(crate) async fn start(&self, name: &str) -> anyhow::Result<Server> {
        let mut options = Options::new(self.path(name), self.binaries.clone());
        options.port = Some(0);
        options.settings =
            SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Ok(Server::start(options).await?)
    }

    /// Copies the data directory of a stopped server, onto the disk: what the copy leaves to be
    /// written would be written while something is measured.
    pub(crate) fn copy(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        let copied = Command::new("cp").arg("-Rp").args([&from, &to]).status()?;
        ensure!(copied.success(), "cannot copy {} to {}", from.display(), to.display());
        ensure!(Command::new("sync").status()?.success(), "cannot sync");
        Ok(())
    }

    /// Removes a data directory.
    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// A folder with the definitions of `set`: names joined by `+`, or `all` that are shipped.
    pub(crate) fn projections(&self, set: &str) -> anyhow::Result<Projections> {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("projections");
        let folder = self.path(&format!("projections-{set}"));
        std::fs::create_dir_all(&folder)?;
        let mut names = Vec::new();
        for entry in shipped.read_dir()? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|it| it.to_str()).unwrap_or_default();
            let wanted = set == "all" || set.split('+').any(|it| it == stem);
            if wanted && path.extension().is_some_and(|it| it == "toml") {
                std::fs::copy(&path, folder.join(format!("{stem}.toml")))?;
                names.push(stem.to_owned());
            }
        }
        let known = set == "all" || names.len() == set.split('+').count();
        ensure!(known, "`{set}` names a projection that is not shipped");
        Ok(Projections { folder, names })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{} stays: {error}", self.folder.display());
        }
    }
}

/// Definitions to run with.
pub(crate) struct Projections {
    /// Where the files are.
    pub(crate) folder: PathBuf,
    /// The projections' names.
    pub(crate) names: Vec<String>,
}

/// The URL of a server as `transport` has it.
pub(crate) fn url(server: &Server, transport: Transport) -> String {
    match transport {
        Transport::Tcp => server.url(),
        Transport::Socket => server.socket_url(),
    }
}

/// Connects as superuser.
pub(crate) async fn connect(server: &Server) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(&server.socket_url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Waits until `ask` says so, looking each 20 ms.
pub(crate) async fn until(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let asked = async {
        while !ask().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(limit, asked).await.with_context(|| format!("{what}: not in {limit:?}"))?
}
