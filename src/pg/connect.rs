//! Ordinary SQL connections.

use std::future::{Ready, poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Mutex;
use tokio_postgres::config::{self, SslNegotiation};
use tokio_postgres::error::Severity;
use tokio_postgres::tls::{self, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config};

use crate::pg::dial::{Link, Wire, dial};
use crate::pg::error::ConnectError;
use crate::pg::settings::{ChannelBinding, Settings};

/// Connects and logs in. The session's time zone is UTC, whatever the role or the database says.
///
/// The connection lives in a task of its own, which ends when the client is dropped or the
/// connection breaks; [`Client::is_closed`] tells. Query cancellation through
/// [`Client::cancel_token`] is not available on such a client.
///
/// # Errors
/// When no host lets us in; what the last one said.
pub async fn connect(settings: &Settings, application_name: &str) -> Result<Client, ConnectError> {
    connect_listening(settings, application_name, &Remarks::default()).await
}

/// The same; what the server remarks on the way is kept in `remarks`.
///
/// # Errors
/// As [`connect`].
pub async fn connect_listening(
    settings: &Settings,
    application_name: &str,
    remarks: &Remarks,
) -> Result<Client, ConnectError> {
    let name = settings.application_name.as_deref().unwrap_or(application_name);
    dial(settings, |link| login(settings, name.to_owned(), link, remarks.clone())).await
}

/// What a server remarked, beside its answers: warnings, each with its hint.
#[derive(Clone, Debug, Default)]
pub struct Remarks(Arc<Lock<Vec<String>>>);

/// More remarks than this are not kept.
const REMARKS: usize = 100;

impl Remarks {
    /// All there are, in order; none of them is given again.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, message: &AsyncMessage) {
        let AsyncMessage::Notice(notice) = message else { return };
        // the server's own word, whatever language it speaks to others
        if notice.parsed_severity() != Some(Severity::Warning) {
            return;
        }
        let hint = notice.hint().map_or_else(String::new, |it| format!(" ({it})"));
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < REMARKS {
            list.push(format!("{}{hint}", notice.message()));
        }
    }
}

async fn login(
    settings: &Settings,
    application_name: String,
    link: Link,
    remarks: Remarks,
) -> Result<Client, ConnectError> {
    let at = link.host.to_string();
    let mut config = Config::new();
    config
        .user(&settings.user)
        .dbname(&settings.database)
        .application_name(application_name)
        .options(options(settings, SESSION))
        .channel_binding(match settings.channel_binding {
            ChannelBinding::Disable => config::ChannelBinding::Disable,
            ChannelBinding::Prefer => config::ChannelBinding::Prefer,
            ChannelBinding::Require => config::ChannelBinding::Require,
        })
        // TLS is up already where it is wanted: the library is handed the finished stream.
        .ssl_mode(config::SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    if let Some(password) = &link.host.password {
        config.password(password);
    }
    let ready = Prepared { server_end_point: link.server_end_point };
    let (client, mut connection) = config
        .connect_raw(link.wire, ready)
        .await
        .map_err(|error| login_error(settings, at, error))?;
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(message) => remarks.add(&message),
                Err(error) => {
                    // Whoever uses the client sees the failure too and decides; this is for the curious.
                    tracing::debug!(error = %error, "a connection to Postgres ended");
                    break;
                }
            }
        }
    });
    Ok(client)
}

/// Moments are written in UTC. A server that can no longer reach us lets go of our locks within a
/// minute, not after the two hours of its operating system: another process waits for them.
const SESSION: &str = "-c timezone=UTC -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3";

/// The start-up parameter `options`: ours first, so that the user's win.
pub(crate) fn options(settings: &Settings, ours: &str) -> String {
    match &settings.options {
        None => ours.to_owned(),
        Some(theirs) => format!("{ours} {theirs}"),
    }
}

fn login_error(settings: &Settings, at: String, error: tokio_postgres::Error) -> ConnectError {
    let user = settings.user.clone();
    if let Some(server) = error.as_db_error() {
        let source = Box::new(server.into());
        return ConnectError::Refused { at, user, database: settings.database.clone(), source };
    }
    if error.is_closed() {
        return ConnectError::Broken { at, source: io::ErrorKind::UnexpectedEof.into() };
    }
    // The library does not say which kind of failure it was, except in its text.
    let shown = error.to_string();
    match error.into_source() {
        Some(source) => match source.downcast::<io::Error>() {
            Ok(source) if shown.starts_with("error communicating") => {
                ConnectError::Broken { at, source: *source }
            }
            Ok(source) => ConnectError::Authentication { at, why: source.to_string() },
            Err(source) if source.to_string() == "password missing" => {
                ConnectError::NoPassword { at, user }
            }
            Err(source) => ConnectError::Authentication { at, why: source.to_string() },
        },
        None => ConnectError::Protocol { at, why: shown },
    }
}

/// A stream on which TLS is done, or not wanted, in the form that the library asks for.
struct Prepared {
    server_end_point: Option<Vec<u8>>,
}

struct PreparedWire {
    wire: Wire,
    server_end_point: Option<Vec<u8>>,
}

impl TlsConnect<Wire> for Prepared {
    type Stream = PreparedWire;
    type Error = io::Error;
    type Future = Ready<io::Result<PreparedWire>>;

    fn connect(self, wire: Wire) -> Self::Future {
        ready(Ok(PreparedWire { wire, server_end_point: self.server_end_point }))
    }
}

impl tls::TlsStream for PreparedWire {
    fn channel_binding(&self) -> tls::ChannelBinding {
        self.server_end_point
            .clone()
            .map_or_else(tls::ChannelBinding::none, tls::ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for PreparedWire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PreparedWire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}

/// A client for readers who come and go: connects when first asked, and again after the connection
/// broke.
#[derive(Debug)]
pub struct SharedClient {
    settings: Settings,
    application_name: String,
    current: Mutex<Option<Arc<Client>>>,
}

impl SharedClient {
    /// Does not connect yet.
    pub fn new(settings: Settings, application_name: impl Into<String>) -> Self {
        Self { settings, application_name: application_name.into(), current: Mutex::new(None) }
    }

    /// A client that was alive a moment ago. Those who ask while it connects wait for one attempt,
    /// bounded by `connect_timeout`.
    ///
    /// # Errors
    /// When it has to connect and cannot; the next call tries again.
    pub async fn get(&self) -> Result<Arc<Client>, ConnectError> {
        let mut current = self.current.lock().await;
        if let Some(client) = current.as_ref().filter(|it| !it.is_closed()) {
            return Ok(client.clone());
        }
        let client = Arc::new(connect(&self.settings, &self.application_name).await?);
        *current = Some(client.clone());
        Ok(client)
    }
}
