//! The door to a server: socket, TLS, and the order in which hosts are tried.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pg::error::ConnectError;
use crate::pg::settings::{Address, Host, Settings, SslMode};
use crate::pg::tls;

/// A socket on which the Postgres protocol can begin: no start-up packet has been sent yet.
#[derive(Debug)]
pub struct Link {
    /// The bytes.
    pub wire: Wire,
    /// The digest for SCRAM's channel binding; only over TLS.
    pub server_end_point: Option<Vec<u8>>,
    /// Where it leads, with the password to use there.
    pub host: Host,
}

/// The kinds of socket.
#[derive(Debug)]
pub enum Wire {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Whether an attempt uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Off,
    IfOffered,
    Always,
}

/// Idle time before the first probe, time between probes, and how many go unanswered: a dead peer is
/// noticed within a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// How long sent bytes may stay unacknowledged, in milliseconds.
const USER_TIMEOUT_MS: u32 = 60_000;

/// Tries each host, and each encryption that `sslmode` allows, until `login` succeeds on one. The
/// next host is tried whatever the failure; the last failure is returned.
///
/// # Errors
/// What the last attempt failed with, [`ConnectError::Timeout`] when it took longer than
/// `connect_timeout`.
pub async fn dial<T, F>(settings: &Settings, login: impl Fn(Link) -> F) -> Result<T, ConnectError>
where
    F: Future<Output = Result<T, ConnectError>>,
{
    let tls = match settings.sslmode {
        SslMode::Disable => None,
        _ => Some(tls::client_config(settings).map_err(ConnectError::Tls)?),
    };
    let mut last = None;
    for host in &settings.hosts {
        for encryption in encryptions(settings.sslmode, &host.address) {
            let attempt = async {
                let link = open(settings, host, *encryption, tls.as_ref()).await?;
                login(link).await
            };
            let result = match settings.connect_timeout {
                None => Box::pin(attempt).await,
                Some(after) => tokio::time::timeout(after, Box::pin(attempt))
                    .await
                    .unwrap_or_else(|_| Err(ConnectError::Timeout { at: host.to_string(), after })),
            };
            match result {
                Ok(it) => return Ok(it),
                Err(error) => {
                    let other = error.asks_for_other_encryption();
                    last = Some(error);
                    if !other {
                        break;
                    }
                }
            }
        }
    }
    Err(last.unwrap_or(ConnectError::Protocol {
        at: settings.to_string(),
        why: "no host to try".to_owned(),
    }))
}

fn encryptions(sslmode: SslMode, address: &Address) -> &'static [Encryption] {
    match (address, sslmode) {
        (Address::Unix(_), _) | (_, SslMode::Disable) => &[Encryption::Off],
        (_, SslMode::Allow) => &[Encryption::Off, Encryption::Always],
        (_, SslMode::Prefer) => &[Encryption::IfOffered, Encryption::Off],
        _ => &[Encryption::Always],
    }
}

async fn open(
    settings: &Settings,
    host: &Host,
    encryption: Encryption,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Link, ConnectError> {
    let at = || host.to_string();
    let (name, ip) = match &host.address {
        Address::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{}", host.port));
            let socket = UnixStream::connect(path).await;
            let socket = socket.map_err(|source| ConnectError::Unreachable { at: at(), source })?;
            return Ok(Link {
                wire: Wire::Unix(socket),
                server_end_point: None,
                host: host.clone(),
            });
        }
        Address::Tcp { host, ip } => (host, ip.as_ref().unwrap_or(host)),
    };
    let mut socket = connect_tcp(host, ip).await?;
    let plain =
        |socket| Link { wire: Wire::Tcp(socket), server_end_point: None, host: host.clone() };
    let Some(tls) = tls.filter(|_| encryption != Encryption::Off) else {
        return Ok(plain(socket));
    };

    if !offers_tls(&mut socket).await.map_err(|source| ConnectError::Broken { at: at(), source })? {
        if encryption == Encryption::IfOffered {
            return Ok(plain(socket));
        }
        return Err(ConnectError::NoTls { at: at(), sslmode: settings.sslmode });
    }
    let failed = |source| ConnectError::Handshake { at: at(), source };
    let name = ServerName::try_from(name.clone())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let stream = TlsConnector::from(tls.clone()).connect(name, socket).await.map_err(failed)?;
    let certificates = stream.get_ref().1.peer_certificates();
    let server_end_point =
        certificates.and_then(<[_]>::first).and_then(|it| tls::server_end_point(it));
    Ok(Link { wire: Wire::Tls(Box::new(stream)), server_end_point, host: host.clone() })
}

async fn connect_tcp(host: &Host, name: &str) -> Result<TcpStream, ConnectError> {
    let unknown = |source| ConnectError::UnknownHost { host: name.to_owned(), source };
    let addresses = lookup_host((name, host.port)).await.map_err(unknown)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let connected = match TcpStream::connect(address).await {
            Ok(socket) => tune(&socket).map(|()| socket),
            Err(error) => Err(error),
        };
        match connected {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(ConnectError::Unreachable { at: host.to_string(), source: last })
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT_MS)?;
    Ok(())
}

/// Sends `SSLRequest`. The answer is one byte, and nothing may follow it unencrypted: reading exactly
/// one byte leaves whatever an attacker put behind it to fail in the handshake.
async fn offers_tls(socket: &mut TcpStream) -> io::Result<bool> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await?;
    let answer = socket.read_u8().await?;
    Ok(answer == b'S')
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(it) => Pin::new(it).poll_read(cx, buffer),
            Self::Unix(it) => Pin::new(it).poll_read(cx, buffer),
            Self::Tls(it) => Pin::new(it).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(it) => Pin::new(it).poll_write(cx, bytes),
            Self::Unix(it) => Pin::new(it).poll_write(cx, bytes),
            Self::Tls(it) => Pin::new(it).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(it) => Pin::new(it).poll_flush(cx),
            Self::Unix(it) => Pin::new(it).poll_flush(cx),
            Self::Tls(it) => Pin::new(it).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(it) => Pin::new(it).poll_shutdown(cx),
            Self::Unix(it) => Pin::new(it).poll_shutdown(cx),
            Self::Tls(it) => Pin::new(it).poll_shutdown(cx),
        }
    }
}
