//! The log-in of a replication connection: everything between the start-up packet and the server's
//! "you are in". See "Message Flow: Start-up" and "SASL Authentication" in the documentation.

use std::io;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

use crate::pg::ServerError;
use crate::pg::settings::{ChannelBinding, Settings};
use crate::wal::channel::Channel;
use crate::wal::error::WalError;
use crate::wal::frames::{Cursor, FrameError};

const AUTHENTICATION: u8 = b'R';
const ERROR: u8 = b'E';
const NOTICE: u8 = b'N';
const NEGOTIATE_VERSION: u8 = b'v';

/// Why a log-in failed, before it is known where; [`crate::wal::conn`] adds that.
#[derive(Debug)]
pub(crate) enum LoginError {
    Refused(Box<ServerError>),
    NoPassword,
    Why(String),
    Broken(io::Error),
    Frame(FrameError),
}

impl From<FrameError> for LoginError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<io::Error> for LoginError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<WalError> for LoginError {
    fn from(error: WalError) -> Self {
        match error {
            WalError::Io(error) => Self::Broken(error),
            WalError::Closed => Self::Broken(io::ErrorKind::UnexpectedEof.into()),
            WalError::Frame(error) => Self::Frame(error),
            other => Self::Why(other.to_string()),
        }
    }
}

/// Answers the server's questions until it is content.
pub(crate) async fn authenticate(
    channel: &mut Channel,
    settings: &Settings,
    password: Option<&str>,
    server_end_point: Option<Vec<u8>>,
) -> Result<(), LoginError> {
    let password = || password.map(str::as_bytes).ok_or(LoginError::NoPassword);
    let mut bound = false;
    match next_question(channel).await? {
        Question::Ok => return refuse_unbound(settings),
        Question::Cleartext => {
            refuse_unbound(settings)?;
            frontend::password_message(password()?, channel.out())?;
        }
        Question::Md5(salt) => {
            refuse_unbound(settings)?;
            let answer = md5_hash(settings.user.as_bytes(), password()?, salt);
            frontend::password_message(answer.as_bytes(), channel.out())?;
        }
        Question::Sasl(mechanisms) => {
            bound = scram(channel, settings, password()?, &mechanisms, server_end_point).await?;
        }
        Question::Other(what) => return Err(unexpected(what)),
    }
    match next_question(channel).await? {
        Question::Ok if bound => Ok(()),
        Question::Ok => refuse_unbound(settings),
        _ => Err(LoginError::Why("the server asks twice".to_owned())),
    }
}

/// `channel_binding=require` lets nothing pass that is not tied to the TLS connection, trust included.
fn refuse_unbound(settings: &Settings) -> Result<(), LoginError> {
    match settings.channel_binding {
        ChannelBinding::Require => Err(LoginError::Why(
            "channel_binding is `require`, and the server did not use it".to_owned(),
        )),
        ChannelBinding::Disable | ChannelBinding::Prefer => Ok(()),
    }
}

enum Question {
    Ok,
    Cleartext,
    Md5([u8; 4]),
    Sasl(Vec<String>),
    Other(Unanswered),
}

enum Unanswered {
    SaslContinue(Vec<u8>),
    SaslFinal(Vec<u8>),
    Method(i32),
}

fn unexpected(what: Unanswered) -> LoginError {
    LoginError::Why(match what {
        Unanswered::Method(7 | 8) => "the server wants GSSAPI, which is not supported".to_owned(),
        Unanswered::Method(9) => "the server wants SSPI, which is not supported".to_owned(),
        Unanswered::Method(code) => format!("the server wants authentication method {code}"),
        _ => "SASL out of turn".to_owned(),
    })
}

async fn next_question(channel: &mut Channel) -> Result<Question, LoginError> {
    loop {
        let (tag, body) = channel.receive().await?;
        let mut body = Cursor::new(tag, channel.body(body));
        match tag {
            AUTHENTICATION => {}
            ERROR => return Err(LoginError::Refused(Box::new(ServerError::parse(body.rest())))),
            NOTICE | NEGOTIATE_VERSION => continue,
            _ => return Err(LoginError::Why(format!("message `{}` out of turn", char::from(tag)))),
        }
        return Ok(match body.i32()? {
            0 => Question::Ok,
            3 => Question::Cleartext,
            5 => Question::Md5(body.four()?),
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    match body.text()? {
                        b"" => break Question::Sasl(mechanisms),
                        name => mechanisms.push(String::from_utf8_lossy(name).into_owned()),
                    }
                }
            }
            11 => Question::Other(Unanswered::SaslContinue(body.rest().to_vec())),
            12 => Question::Other(Unanswered::SaslFinal(body.rest().to_vec())),
            code => Question::Other(Unanswered::Method(code)),
        });
    }
}

/// SCRAM-SHA-256, tied to the server's certificate where both sides can. Says whether it was.
async fn scram(
    channel: &mut Channel,
    settings: &Settings,
    password: &[u8],
    mechanisms: &[String],
    server_end_point: Option<Vec<u8>>,
) -> Result<bool, LoginError> {
    let has = |name: &str| mechanisms.iter().any(|it| it == name);
    let digest = server_end_point.filter(|_| settings.channel_binding != ChannelBinding::Disable);
    let (mechanism, binding) = match digest {
        Some(digest) if has(SCRAM_SHA_256_PLUS) => {
            (SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(digest))
        }
        // "We could and you cannot": a server that can notices that somebody stands between.
        Some(_) => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
    };
    if !has(mechanism) {
        return Err(LoginError::Why(format!("the server offers only {}", mechanisms.join(", "))));
    }
    let bound = mechanism == SCRAM_SHA_256_PLUS;
    if !bound {
        refuse_unbound(settings)?;
    }

    let failed = |error: io::Error| LoginError::Why(error.to_string());
    let mut scram = ScramSha256::new(password, binding);
    let mut message = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut message)?;
    channel.out().extend_from_slice(&message);
    let Question::Other(Unanswered::SaslContinue(challenge)) = next_question(channel).await? else {
        return Err(LoginError::Why("SCRAM without a challenge".to_owned()));
    };
    scram.update(&challenge).map_err(failed)?;
    frontend::sasl_response(scram.message(), channel.out())?;
    let Question::Other(Unanswered::SaslFinal(proof)) = next_question(channel).await? else {
        return Err(LoginError::Why(
            "the server did not prove that it knows the password".to_owned(),
        ));
    };
    scram.finish(&proof).map_err(failed)?;
    Ok(bound)
}
