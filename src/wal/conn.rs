//! A replication connection that waits for commands.

use std::ops::Range;

use postgres_protocol::message::frontend;

use crate::pg::connect::options;
use crate::pg::dial::{Link, dial};
use crate::pg::{ConnectError, ServerError, Settings};
use crate::wal::auth::{LoginError, authenticate};
use crate::wal::channel::Channel;
use crate::wal::error::WalError;
use crate::wal::frames::{Cursor, FrameError};

/// A row of a simple query: its columns as text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// The session's settings: values print as everywhere, and no time-out of the role or the database
/// ends a stream that is meant to last.
const OPTIONS: &str = "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 \
                       -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c timezone=UTC";

/// An idle replication connection. Dropping it closes the socket; the server notices.
#[derive(Debug)]
pub struct ReplicationConnection {
    pub(crate) channel: Channel,
    process: Option<i32>,
    server_version: Option<String>,
    /// A command was sent and its answer not read to the end: the next one must not take it for its own.
    busy: bool,
}

impl ReplicationConnection {
    /// Connects and logs in, within `connect_timeout` for each address.
    ///
    /// # Errors
    /// When no host lets us in; what the last one said.
    pub async fn connect(
        settings: &Settings,
        application_name: &str,
    ) -> Result<Self, ConnectError> {
        let name = settings.application_name.as_deref().unwrap_or(application_name);
        dial(settings, |link| async move {
            let host = link.host.clone();
            let at = host.to_string();
            Self::log_in(settings, name, link).await.map_err(|error| match error {
                LoginError::Refused(source) => ConnectError::Refused {
                    at,
                    user: settings.user.clone(),
                    database: settings.database.clone(),
                    source,
                },
                LoginError::NoPassword => {
                    ConnectError::NoPassword { at, user: settings.user.clone() }
                }
                LoginError::Why(why) => ConnectError::Authentication { at, why },
                LoginError::Broken(source) => ConnectError::Broken { at, source },
                LoginError::Frame(error) => ConnectError::Protocol { at, why: error.to_string() },
            })
        })
        .await
    }

    async fn log_in(settings: &Settings, name: &str, link: Link) -> Result<Self, LoginError> {
        let mut channel = Channel::new(link.wire);
        let options = options(settings, OPTIONS);
        let parameters = [
            ("user", settings.user.as_str()),
            ("database", settings.database.as_str()),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", name),
            ("options", options.as_str()),
        ];
        frontend::startup_message(parameters, channel.out())?;
        let password = link.host.password.as_deref();
        authenticate(&mut channel, settings, password, link.server_end_point).await?;

        let mut connection = Self { channel, process: None, server_version: None, busy: false };
        loop {
            let (tag, body) = connection.channel.receive().await?;
            let mut body = Cursor::new(tag, connection.channel.body(body));
            match tag {
                b'Z' => return Ok(connection),
                b'K' => connection.process = Some(body.i32()?),
                b'S' if body.text()? == b"server_version" => {
                    let version = String::from_utf8_lossy(body.text()?).into_owned();
                    connection.server_version = Some(version);
                }
                b'E' => return Err(LoginError::Refused(Box::new(ServerError::parse(body.rest())))),
                _ => {}
            }
        }
    }

    /// The process on the server that serves this connection: what `pg_stat_replication` calls `pid`.
    pub fn process(&self) -> Option<i32> {
        self.process
    }

    /// The server's version as it introduces itself: `15.18 (Debian 15.18-0+deb12u1)`.
    pub fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    /// Runs SQL or a replication command and returns the rows of all its statements.
    ///
    /// Not to be cancelled: the connection refuses further commands then.
    ///
    /// # Errors
    /// The server's error, after which the connection can be used again; or a broken connection.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<Row>, WalError> {
        self.send_command(sql)?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let (tag, body) = match self.channel.receive().await {
                Ok(message) => message,
                // A fatal error is followed by the end of the connection.
                Err(WalError::Closed | WalError::Io(_)) if failure.is_some() => break,
                Err(error) => return Err(error),
            };
            match tag {
                b'D' => rows.push(data_row(self.channel.body(body))?),
                b'E' => failure = Some(self.server_error(body)),
                b'Z' => {
                    self.busy = false;
                    break;
                }
                b'G' | b'H' | b'W' => {
                    return Err(WalError::Unexpected("the command starts a copy".to_owned()));
                }
                // Row descriptions, completions, notices, parameters.
                _ => {}
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(rows),
        }
    }

    /// Sends a command that starts copying in both directions, and waits for the server to agree.
    ///
    /// # Errors
    /// The server's error.
    pub(crate) async fn start_copy(&mut self, command: &str) -> Result<(), WalError> {
        self.send_command(command)?;
        let mut failure = None;
        loop {
            let (tag, body) = match self.channel.receive().await {
                Ok(message) => message,
                Err(WalError::Closed | WalError::Io(_)) if failure.is_some() => break,
                Err(error) => return Err(error),
            };
            match tag {
                b'W' => return Ok(()),
                b'E' => failure = Some(self.server_error(body)),
                b'Z' => {
                    self.busy = false;
                    break;
                }
                _ => {}
            }
        }
        Err(failure.unwrap_or_else(|| WalError::Unexpected("no stream was started".to_owned())))
    }

    fn send_command(&mut self, command: &str) -> Result<(), WalError> {
        if self.busy {
            return Err(WalError::Unexpected("an earlier command was abandoned".to_owned()));
        }
        self.busy = true;
        frontend::query(command, self.channel.out())?;
        Ok(())
    }

    pub(crate) fn server_error(&self, body: Range<usize>) -> WalError {
        WalError::Server(Box::new(ServerError::parse(self.channel.body(body))))
    }

    /// Says good-bye, so that the server does not log a broken connection.
    ///
    /// # Errors
    /// When the connection breaks before that is sent.
    pub async fn close(mut self) -> Result<(), WalError> {
        frontend::terminate(self.channel.out());
        Ok(self.channel.flush().await?)
    }
}

fn data_row(body: &[u8]) -> Result<Row, FrameError> {
    let mut body = Cursor::new(b'D', body);
    let count = body.u16()?;
    (0..count)
        .map(|_| {
            // A negative length is NULL.
            let Ok(length) = usize::try_from(body.i32()?) else { return Ok(None) };
            Ok(Some(String::from_utf8_lossy(body.bytes(length)?).into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_holds_text_and_null() {
        let body = [0, 2, 0, 0, 0, 2, b'h', b'i', 0xFF, 0xFF, 0xFF, 0xFF];

        assert_eq!(data_row(&body), Ok(vec![Some("hi".to_owned()), None]));
    }

    proptest! {
        #[test]
        fn any_body_of_a_row_is_read_or_refused(body: Vec<u8>) {
            let _row = data_row(&body);
        }
    }
}
