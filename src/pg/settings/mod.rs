//! Where the database is and how to log in, as libpq understands it.
//!
//! Three sources, the first that knows a parameter wins: the connection string (a URL or `key=value`
//! pairs), the environment (`PGHOST` …), libpq's defaults. The password may also come from the
//! password file. See "Database Connection Control Functions" in the libpq documentation.
//!
//! Differences from libpq, on purpose: `connect_timeout` is 10 s when nothing is said, and
//! `verify-ca`/`verify-full` without a root certificate trust the system's authorities.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::pg::pgpass;

mod text;

/// How to reach a database and log in. Its `Display` and `Debug` forms never show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Tried in this order; never empty.
    pub hosts: Vec<Host>,
    /// The role to log in as.
    pub user: String,
    /// The database.
    pub database: String,
    /// Overrides the name that the caller gives itself.
    pub application_name: Option<String>,
    /// Passed as the start-up parameter `options`: `-c name=value …`.
    pub options: Option<String>,
    /// Whether and how to use TLS.
    pub sslmode: SslMode,
    /// Whom to trust; `None`: the mode's default.
    pub root_certificates: Option<RootCertificates>,
    /// Whether the log-in must be tied to the TLS connection.
    pub channel_binding: ChannelBinding,
    /// For each address, from the first packet to the end of the log-in; `None`: no limit.
    pub connect_timeout: Option<Duration>,
}

/// One server to try.
#[derive(Clone, PartialEq, Eq)]
pub struct Host {
    /// Where it listens.
    pub address: Address,
    /// The port; part of the file name for a Unix socket.
    pub port: u16,
    /// The password for this host: of the connection string, the environment or the password file.
    pub password: Option<String>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or IP address, and optionally the IP address to use in place of looking it up.
    Tcp {
        /// The name that the certificate must bear.
        host: String,
        /// `hostaddr`.
        ip: Option<String>,
    },
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

macro_rules! modes {
    ($(#[$doc:meta])* $name:ident: $parameter:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            fn parse(text: &str) -> Result<Self, SettingsError> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(SettingsError::Value {
                        parameter: $parameter.to_owned(),
                        value: text.to_owned(),
                        expected: [$($text),*].join(", "),
                    }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}

modes! {
    /// libpq's `sslmode`. Unix sockets never use TLS.
    SslMode: "sslmode" {
        /// Never.
        Disable = "disable",
        /// Only if the server refuses without.
        Allow = "allow",
        /// If the server can; the default.
        Prefer = "prefer",
        /// Always; the certificate is checked only when a root certificate is given.
        Require = "require",
        /// Always, with a certificate of a trusted authority.
        VerifyCa = "verify-ca",
        /// Always, with a certificate of a trusted authority that bears the host's name.
        VerifyFull = "verify-full",
    }
}

modes! {
    /// libpq's `channel_binding`: whether SCRAM is tied to the server's certificate.
    ChannelBinding: "channel_binding" {
        /// Never.
        Disable = "disable",
        /// If both sides can; the default.
        Prefer = "prefer",
        /// Or no log-in.
        Require = "require",
    }
}

/// libpq's `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCertificates {
    /// A PEM file.
    File(PathBuf),
    /// The system's authorities.
    System,
}

/// A connection string that cannot be used. Never holds the string itself: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Neither a URL nor `key=value` pairs.
    #[error("the connection string is not valid: {0}")]
    Syntax(&'static str),
    /// A parameter nobody knows.
    #[error("unknown connection parameter `{0}`; known are: {known}", known = text::KNOWN.join(", "))]
    Unknown(String),
    /// A parameter libpq knows and we do not.
    #[error("connection parameter `{0}` is not supported")]
    Unsupported(String),
    /// A value that cannot be.
    #[error("connection parameter `{parameter}` cannot be `{value}`; expected: {expected}")]
    Value {
        /// Which parameter.
        parameter: String,
        /// What it was given.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// Nothing says as whom to log in.
    #[error("no user name: put it into the connection string or PGUSER")]
    NoUser,
}

/// libpq tries its compiled-in directory first; distributions differ in it.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const DEFAULT_PORT: u16 = 5432;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

impl Settings {
    /// Reads a connection string: `postgres://…`, `postgresql://…`, `key=value` pairs, or nothing at
    /// all. `environment` answers for libpq's variables, and for `HOME` and `USER`.
    ///
    /// Reads the password file when no password is given otherwise.
    ///
    /// # Errors
    /// When the text cannot be parsed, or a parameter is unknown or has an impossible value.
    pub fn parse(
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let environment = |name: &str| environment(name).filter(|it| !it.is_empty());
        let given = text::parameters(text)?;
        let get = |parameter: &str, variable: &str| {
            given
                .get(parameter)
                .filter(|it| !it.is_empty())
                .cloned()
                .or_else(|| environment(variable))
        };
        for (parameter, only) in [
            ("client_encoding", "UTF8"),
            ("sslnegotiation", "postgres"),
            ("target_session_attrs", "any"),
        ] {
            if given.get(parameter).is_some_and(|it| !it.eq_ignore_ascii_case(only)) {
                return Err(SettingsError::Unsupported(parameter.to_owned()));
            }
        }

        let user = get("user", "PGUSER")
            .or_else(|| environment("USER"))
            .or_else(|| environment("LOGNAME"))
            .ok_or(SettingsError::NoUser)?;
        let database = get("dbname", "PGDATABASE").unwrap_or_else(|| user.clone());
        let password = get("password", "PGPASSWORD");
        let password_file = get("passfile", "PGPASSFILE")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&environment("HOME")?).join(".pgpass")));
        let passwords = match (&password, password_file) {
            (None, Some(file)) => pgpass::read(&file).unwrap_or_default(),
            _ => String::new(),
        };

        let ports = ports(get("port", "PGPORT").as_deref().unwrap_or_default())?;
        let mut hosts = addresses(get("host", "PGHOST"), get("hostaddr", "PGHOSTADDR"), &ports)?;
        for host in &mut hosts {
            let name = host.name_in_password_file();
            host.password = password
                .clone()
                .or_else(|| pgpass::find(&passwords, &name, host.port, &database, &user));
        }

        let root_certificates = get("sslrootcert", "PGSSLROOTCERT").map(|it| match it.as_str() {
            "system" => RootCertificates::System,
            file => RootCertificates::File(PathBuf::from(file)),
        });
        let sslmode = match get("sslmode", "PGSSLMODE") {
            Some(it) => SslMode::parse(&it)?,
            // As libpq has it: a public authority proves nothing without the name.
            None if root_certificates == Some(RootCertificates::System) => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        let channel_binding = match get("channel_binding", "PGCHANNELBINDING") {
            Some(it) => ChannelBinding::parse(&it)?,
            None => ChannelBinding::Prefer,
        };
        let connect_timeout = match get("connect_timeout", "PGCONNECT_TIMEOUT") {
            Some(it) => timeout(&it)?,
            None => Some(DEFAULT_TIMEOUT),
        };
        Ok(Self {
            hosts,
            user,
            database,
            application_name: get("application_name", "PGAPPNAME")
                .or_else(|| given.get("fallback_application_name").cloned()),
            options: get("options", "PGOPTIONS"),
            sslmode,
            root_certificates,
            channel_binding,
            connect_timeout,
        })
    }

    /// The connection string without the password, to show to people.
    pub fn redacted(&self) -> String {
        self.to_string()
    }
}

impl Host {
    /// libpq looks for `localhost` where a socket in the default directory is meant.
    fn name_in_password_file(&self) -> String {
        match &self.address {
            Address::Tcp { host, .. } => host.clone(),
            Address::Unix(directory) => {
                let directory = directory.to_string_lossy();
                let default = SOCKET_DIRECTORIES.contains(&directory.as_ref());
                if default { "localhost".to_owned() } else { directory.into_owned() }
            }
        }
    }
}

fn ports(text: &str) -> Result<Vec<u16>, SettingsError> {
    text.split(',')
        .map(|it| match it.trim() {
            "" => Ok(DEFAULT_PORT),
            it => it.parse().ok().filter(|it| *it != 0).ok_or_else(|| SettingsError::Value {
                parameter: "port".to_owned(),
                value: it.to_owned(),
                expected: "a number from 1 to 65535".to_owned(),
            }),
        })
        .collect()
}

fn timeout(text: &str) -> Result<Option<Duration>, SettingsError> {
    let seconds: i32 = text.trim().parse().map_err(|_| SettingsError::Value {
        parameter: "connect_timeout".to_owned(),
        value: text.to_owned(),
        expected: "whole seconds, 0 for no limit".to_owned(),
    })?;
    Ok(u64::try_from(seconds).ok().filter(|it| *it != 0).map(Duration::from_secs))
}

/// Pairs up hosts, addresses and ports; one port serves for all hosts.
fn addresses(
    hosts: Option<String>,
    ips: Option<String>,
    ports: &[u16],
) -> Result<Vec<Host>, SettingsError> {
    let list = |it: Option<String>| -> Vec<String> {
        it.map(|it| it.split(',').map(|it| it.trim().to_owned()).collect()).unwrap_or_default()
    };
    let (names, ips) = (list(hosts), list(ips));
    let count = names.len().max(ips.len()).max(1);
    if (!ips.is_empty() && !names.is_empty() && ips.len() != names.len())
        || (ports.len() != 1 && ports.len() != count)
    {
        return Err(SettingsError::Syntax(
            "host, hostaddr and port have different numbers of entries",
        ));
    }
    let hosts = (0..count).map(|index| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        let ip = ips.get(index).filter(|it| !it.is_empty()).cloned();
        let name = names.get(index).filter(|it| !it.is_empty()).cloned();
        let address = match (name, ip) {
            (Some(name), _) if name.starts_with('/') => Address::Unix(PathBuf::from(name)),
            (Some(host), ip) => Address::Tcp { host, ip },
            (None, Some(ip)) => Address::Tcp { host: ip.clone(), ip: Some(ip) },
            (None, None) => default_address(port),
        };
        Host { address, port, password: None }
    });
    Ok(hosts.collect())
}

/// The socket of the first usual directory that has one, else `localhost`.
fn default_address(port: u16) -> Address {
    SOCKET_DIRECTORIES
        .iter()
        .map(Path::new)
        .find(|directory| directory.join(format!(".s.PGSQL.{port}")).exists())
        .map_or_else(
            || Address::Tcp { host: "localhost".to_owned(), ip: None },
            |directory| Address::Unix(directory.to_owned()),
        )
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { host, .. } if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Address::Tcp { host, .. } => write!(f, "{host}:{}", self.port),
            Address::Unix(directory) => write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({self})")
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}", self.user)?;
        if self.hosts.iter().any(|it| it.password.is_some()) {
            f.write_str(":***")?;
        }
        f.write_str("@")?;
        for (index, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if index == 0 { "" } else { "," })?;
        }
        write!(f, "/{}?sslmode={}", self.database, self.sslmode)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({self})")
    }
}

#[cfg(test)]
mod tests;
