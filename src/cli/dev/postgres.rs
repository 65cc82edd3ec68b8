//! The private Postgres: got, made, started, migrated, kept alive.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::cli::context::cannot_connect;
use crate::cli::dev::home::Home;
use crate::cli::dev::steps::Steps;
use crate::cli::migrate::explain;
use crate::cli::{Context, Failure};
use crate::embedded::{self, EmbeddedError, Options, Server, major_of, obtain};
use crate::migrate;
use crate::pg::{self, Settings};

/// How often to look whether the server still runs.
const LOOK: Duration = Duration::from_millis(250);

/// The server of a [`Home`].
pub(super) struct Postgres {
    server: Server,
    options: Options,
}

impl Postgres {
    /// Everything up to an empty or known database with an up-to-date schema. With `fresh`, what an
    /// earlier start left is removed first.
    pub(super) async fn start(
        home: &mut Home,
        fresh: bool,
        context: &Context,
        steps: &Steps,
    ) -> anyhow::Result<Self> {
        let data = home.data();
        if fresh {
            steps.step("removing the old data");
            embedded::remove(&data).await.map_err(cannot_start)?;
        }
        steps.step("looking for PostgreSQL");
        let env = |name: &str| context.environment.get(name).map(OsString::from);
        let mut show = |it: embedded::Progress<'_>| steps.obtaining(it);
        let found = obtain(&home.fetched(), major_of(&data), env, &mut show).await;
        let binaries = found.map_err(cannot_start)?;

        let verb = if major_of(&data).is_none() { "creating a database" } else { "starting" };
        let (version, folder) = (binaries.version(), binaries.folder().display());
        steps.step(&format!("{verb}: PostgreSQL {version} of {folder}"));
        let options = Options { port: Some(0), ..Options::new(data, binaries) };
        let (server, options) = launch(options, home.port(), steps).await.map_err(cannot_start)?;
        home.keep_port(server.port())?;
        let this = Self { server, options };

        steps.step("bringing the schema up to date");
        let settings = this.settings()?;
        let connected = pg::connect(&settings, "projector dev").await;
        let mut client = connected.map_err(cannot_connect)?;
        let schema = context.config().events_schema();
        migrate::apply(&mut client, schema).await.map_err(explain)?;
        Ok(this)
    }

    /// How we connect: over the Unix socket, which asks for no password and is fastest.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        // libpq's variables speak of another database.
        Settings::parse(&self.server.socket_url(), |_| None)
            .map_err(|error| Failure::new("cannot tell where Postgres is").caused_by(error))
    }

    /// How others connect.
    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    /// Which version it is: `15.13`.
    pub(super) fn version(&self) -> &str {
        self.options.binaries.version()
    }

    /// Starts the server again whenever it ends; returns when that fails. May be cancelled.
    pub(super) async fn keep(&mut self) -> Failure {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(status) = self.server.exited() else { continue };
            tracing::warn!(%status, "postgres has ended, starting it again");
            match Server::start(self.options.clone()).await {
                Ok(server) => self.server = server,
                Err(error) => return cannot_start(error),
            }
        }
    }

    /// Ends the server in good order.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        let stopped = self.server.stop().await;
        stopped.map_err(|error| Failure::new("cannot stop Postgres").caused_by(error))
    }
}

/// Starts it on the port it had last, or on a free one where somebody else has taken that.
async fn launch(
    mut options: Options,
    last: Option<u16>,
    steps: &Steps,
) -> Result<(Server, Options), EmbeddedError> {
    options.port = Some(last.unwrap_or(0));
    let server = match Server::start(options.clone()).await {
        Err(EmbeddedError::PortTaken { port }) => {
            steps.remark(&format!("port {port} is taken now; Postgres gets another one"));
            options.port = Some(0);
            Server::start(options.clone()).await?
        }
        other => other?,
    };
    // It stays the same when the server has to be started again.
    options.port = server.port();
    Ok((server, options))
}

fn cannot_start(error: EmbeddedError) -> Failure {
    let hint = match &error {
        EmbeddedError::NoSuchVersion { .. } | EmbeddedError::OtherVersion { .. } => {
            Some("--fresh removes the data and begins with the version that is here")
        }
        EmbeddedError::Unreachable { path, .. } if is_data(path) => {
            Some("choose a folder with --data that every user may enter, such as /tmp/projector")
        }
        EmbeddedError::Unreachable { .. } => Some("set PG_BIN to another Postgres' folder"),
        EmbeddedError::InUse { .. } => Some("it ends with `kill -INT` and its process id"),
        _ => None,
    };
    Failure::new("cannot start the private Postgres").hint(hint.map(str::to_owned)).caused_by(error)
}

fn is_data(path: &Path) -> bool {
    path.ends_with("data")
}
