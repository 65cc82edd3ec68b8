//! What every verb has at hand.

use tokio_postgres::Client;

use crate::cli::fail::{Exit, Failure};
use crate::cli::out::Out;
use crate::config::{Config, Environment, Loaded, Secret};
use crate::pg::{self, Class, ConnectError, Remarks, Settings};
use crate::redact::Redactor;

/// The configuration, the environment and the printer.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where results go.
    pub out: Out,
    /// The configuration with its origins.
    pub loaded: Loaded,
    /// The environment, for libpq's variables and the search for Postgres.
    pub environment: Environment,
}

impl Context {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Where the database is: the configured URL, completed by libpq's variables.
    ///
    /// # Errors
    /// When the URL makes no sense: bad configuration.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let url = self.config().database_url.as_ref().map_or("", Secret::expose);
        let variable = |name: &str| self.environment.get(name).map(str::to_owned);
        Settings::parse(url, variable).map_err(|error| {
            Failure::new("cannot tell which database to use")
                .caused_by(error)
                .hint("give --database-url postgres://user@host:5432/name".to_owned())
                .exit(Exit::USAGE)
        })
    }

    /// What `redact()` hides.
    ///
    /// # Errors
    /// When the rules of `[redact]` cannot be followed.
    pub fn redactor(&self) -> Result<Redactor, Failure> {
        self.config().redact.redactor().map_err(|error| {
            Failure::new("the rules of [redact] cannot be used").caused_by(error).exit(Exit::USAGE)
        })
    }

    /// Connects for SQL, as `projector VERB`.
    ///
    /// # Errors
    /// When there is no database there, or it does not let us in.
    pub async fn connect(&self, verb: &str) -> Result<Client, Failure> {
        self.connect_listening(verb, &Remarks::default()).await
    }

    /// The same; what the server remarks is kept in `remarks`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_listening(
        &self,
        verb: &str,
        remarks: &Remarks,
    ) -> Result<Client, Failure> {
        let settings = self.settings()?;
        let name = format!("projector {verb}");
        pg::connect_listening(&settings, &name, remarks).await.map_err(cannot_connect)
    }
}

/// A connection that was not made, with what to do. What only a change of configuration can mend has
/// its exit code.
pub(super) fn cannot_connect(error: ConnectError) -> Failure {
    let exit = if error.class() == Class::Config { Exit::USAGE } else { Exit::FAILED };
    Failure::new("cannot connect to the database").hint(error.hint()).exit(exit).caused_by(error)
}

/// A statement that failed, with what to do when our schema is not there.
pub(super) fn statement_failed(what: &str, error: tokio_postgres::Error) -> Failure {
    let code = error.code().map(|it| it.code().to_owned()).unwrap_or_default();
    let hint = match code.as_str() {
        // undefined function, undefined table, undefined column, no such schema
        "42883" | "42P01" | "42703" | "3F000" => {
            Some("bring the schema up to date with `projector migrate`, then start `projector run`")
        }
        "42501" => Some("connect as a role that may do this, or grant it"),
        _ => None,
    };
    Failure::new(what).hint(hint.map(str::to_owned)).caused_by(error)
}
