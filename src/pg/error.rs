//! Why a connection did not come about, in words an operator can act on.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::pg::class::Class;
use crate::pg::settings::SslMode;
use crate::pg::tls::TlsError;

/// What the server said in an `ErrorResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// SQLSTATE, five characters.
    pub code: String,
    /// One line, in the server's `lc_messages`.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What the server would do about it.
    pub hint: Option<String>,
}

impl ServerError {
    /// Reads the body of an `ErrorResponse`: fields of a type byte and a NUL-terminated text, ended by
    /// a NUL. Broken bodies give what can be read of them.
    pub fn parse(body: &[u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { break };
            let text = || String::from_utf8_lossy(text).into_owned();
            match kind {
                b'C' => error.code = text(),
                b'M' => error.message = text(),
                b'D' => error.detail = Some(text()),
                b'H' => error.hint = Some(text()),
                _ => {}
            }
        }
        error
    }

    /// What the SQLSTATE asks for.
    pub fn class(&self) -> Class {
        Class::of_sqlstate(&self.code)
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for ServerError {}

/// Why there is no connection. `at` is `host:port` or the socket's path.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there, or the network does not lead there.
    #[error("cannot reach Postgres at `{at}`")]
    Unreachable {
        /// Where we tried.
        at: String,
        /// What the system said.
        source: io::Error,
    },
    /// The name has no address.
    #[error("cannot resolve the host name `{host}`")]
    UnknownHost {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No answer in time, to the connection or to the log-in.
    #[error("no answer from Postgres at `{at}` within {} s", after.as_secs_f32())]
    Timeout {
        /// Where we tried.
        at: String,
        /// How long we waited: `connect_timeout`.
        after: Duration,
    },
    /// `sslmode` demands TLS and the server has none.
    #[error("`{at}` does not speak TLS, and sslmode is `{sslmode}`")]
    NoTls {
        /// Where we tried.
        at: String,
        /// What was asked for.
        sslmode: SslMode,
    },
    /// The TLS handshake failed: as a rule the certificate is not trusted or bears another name.
    #[error("cannot agree on TLS with `{at}`")]
    Handshake {
        /// Where we tried.
        at: String,
        /// What rustls said.
        source: io::Error,
    },
    /// The root certificates cannot be used.
    #[error("cannot prepare TLS")]
    Tls(#[source] TlsError),
    /// The server refused the log-in.
    #[error("Postgres at `{at}` refuses the log-in of `{user}` to database `{database}`")]
    Refused {
        /// Where we tried.
        at: String,
        /// As whom.
        user: String,
        /// Where to.
        database: String,
        /// What it said.
        source: Box<ServerError>,
    },
    /// The server wants a password and we have none.
    #[error("Postgres at `{at}` asks for a password for `{user}`, and none is set")]
    NoPassword {
        /// Where we tried.
        at: String,
        /// As whom.
        user: String,
    },
    /// We and the server have no way to authenticate in common, or it failed to prove itself.
    #[error("cannot authenticate at `{at}`: {why}")]
    Authentication {
        /// Where we tried.
        at: String,
        /// What is missing, or wrong.
        why: String,
    },
    /// The connection broke in the middle of the log-in.
    #[error("the connection to `{at}` broke during the log-in")]
    Broken {
        /// Where we tried.
        at: String,
        /// What the system said.
        source: io::Error,
    },
    /// What came back is not the Postgres protocol.
    #[error("`{at}` does not answer like Postgres: {why}")]
    Protocol {
        /// Where we tried.
        at: String,
        /// What was odd.
        why: String,
    },
}

impl ConnectError {
    /// Whether trying again may help, and who else must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. }
            | Self::UnknownHost { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. } => Class::Transient,
            Self::NoTls { .. }
            | Self::Handshake { .. }
            | Self::Tls(_)
            | Self::NoPassword { .. }
            | Self::Authentication { .. } => Class::Config,
            Self::Refused { source, .. } if is_pooler(source) => Class::Config,
            Self::Refused { source, .. } => source.class(),
            Self::Protocol { .. } => Class::Refused,
        }
    }

    /// What the operator could do, when we know.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreachable { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused => {
                    "nothing listens there: is Postgres running, and is this its port?"
                }
                io::ErrorKind::NotFound => {
                    "there is no such socket: is Postgres running, and is this its unix_socket_directories?"
                }
                io::ErrorKind::PermissionDenied => "this user may not use the socket",
                _ => "check the address, the network and the firewall",
            },
            Self::UnknownHost { .. } => {
                "check the host in the connection string; some providers' direct hosts have IPv6 addresses only"
            }
            Self::Timeout { .. } => "check the address and the firewall, or raise connect_timeout",
            Self::NoTls { .. } => {
                "switch TLS on at the server (ssl = on), or set sslmode=prefer where the network can be trusted"
            }
            Self::Handshake { source, .. } => return Some(handshake_hint(source)),
            Self::Tls(error) => return error.hint(),
            Self::NoPassword { .. } => "put it into the connection string, PGPASSWORD or ~/.pgpass",
            Self::Refused { source, user, database, .. } => {
                return refused_hint(source, user, database);
            }
            Self::Authentication { .. } | Self::Broken { .. } => return None,
            Self::Protocol { .. } => "is this the port of Postgres?",
        };
        Some(hint.to_owned())
    }

    /// Whether libpq would try the other encryption now (`sslmode` allow and prefer): the handshake
    /// failed, or `pg_hba.conf` has no line for this kind of connection.
    pub(crate) fn asks_for_other_encryption(&self) -> bool {
        match self {
            Self::Handshake { .. } => true,
            Self::Refused { source, .. } => source.code == "28000",
            _ => false,
        }
    }
}

fn handshake_hint(error: &io::Error) -> String {
    let said = error.to_string();
    let hint = if said.contains("UnknownIssuer") {
        "the certificate's authority is not trusted: name its file with sslrootcert"
    } else if said.contains("not valid for") || said.contains("NotValidForName") {
        "the certificate bears another name: use that host name, or sslmode=verify-ca"
    } else if said.contains("xpired") {
        "the certificate has expired (or this machine's clock is wrong)"
    } else {
        "check the server's certificate and sslrootcert"
    };
    hint.to_owned()
}

fn refused_hint(error: &ServerError, user: &str, database: &str) -> Option<String> {
    if is_pooler(error) {
        return Some(POOLER_HINT.to_owned());
    }
    Some(match error.code.as_str() {
        "28P01" => "wrong password: check the connection string, PGPASSWORD or ~/.pgpass".to_owned(),
        "28000" if error.message.contains("does not exist") => {
            format!("there is no role `{user}`: create it, or name another user")
        }
        "28000" => format!("pg_hba.conf of the server has no line that lets `{user}` in from here"),
        "3D000" => format!("there is no database `{database}`: create it, or name another"),
        "53300" => "every connection of the server is taken: raise max_connections (for replication: max_wal_senders), or close some".to_owned(),
        "57P03" => "the server is starting up or shutting down; this passes".to_owned(),
        "42501" => format!("alter role \"{user}\" replication, or as its provider says"),
        _ => return error.hint.clone(),
    })
}

/// A pooler answers for a server it hides; its own words are the only sign.
fn is_pooler(error: &ServerError) -> bool {
    error.message.contains("unsupported startup parameter")
}

/// What to do when a pooler stands where the server should.
pub(crate) const POOLER_HINT: &str =
    "a connection pooler cannot pass replication: use the direct connection, as a rule port 5432";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_response_is_read_field_by_field() {
        let body = b"SFATAL\0C28P01\0Mpassword authentication failed\0Hno\0\0";

        let error = ServerError::parse(body);

        assert_eq!(error.code, "28P01");
        assert_eq!(error.hint.as_deref(), Some("no"));
        assert_eq!(error.to_string(), "password authentication failed (28P01)");
    }

    proptest! {
        #[test]
        fn any_body_of_an_error_can_be_read(body: Vec<u8>) {
            ServerError::parse(&body);
        }
    }
}
