//! Why the stream, or a command on its connection, came to an end.

use std::io;

use crate::ident::Ident;
use crate::pg::error::POOLER_HINT;
use crate::pg::{Class, ConnectError, ServerError};
use crate::wal::frames::FrameError;

/// What can go wrong on a replication connection.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server answered with an error; [`WalError::reason`] says what it means.
    #[error("the server ended replication")]
    Server(#[source] Box<ServerError>),
    /// The server ended the stream in good order: it shuts down.
    #[error("the server ended the stream")]
    Ended,
    /// The connection is gone without a word.
    #[error("the replication connection was closed by the other side")]
    Closed,
    /// The socket failed.
    #[error("the replication connection broke")]
    Io(#[source] io::Error),
    /// A message that cannot be.
    #[error("the server sent something unreadable")]
    Frame(#[from] FrameError),
    /// A message that has no place here.
    #[error("unexpected answer on the replication connection: {0}")]
    Unexpected(String),
    /// Creating the slot waits for transactions that were open before; it was given up for now.
    #[error("creating slot `{slot}` waits for an open transaction{by}", slot = slot.as_str(), by = by.as_deref().map(|it| format!(": {it}")).unwrap_or_default())]
    Blocked {
        /// The slot.
        slot: Ident,
        /// The oldest of them: process, role, application, age; `None` when we may not see it.
        by: Option<String>,
    },
}

/// What an error of the server means for a replication slot. Told by SQLSTATE first; where one code
/// has several meanings, by names in the message that no translation changes, or by its English text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another connection reads the slot: stand by, or take over.
    SlotActive {
        /// Its server process, when the message names it.
        pid: Option<i32>,
    },
    /// There is no such slot: create it, and rebuild what it leaves behind.
    SlotMissing,
    /// Somebody made it in the meantime.
    SlotExists,
    /// The slot is invalidated, or its log removed; it cannot be revived.
    SlotLost,
    /// The slot belongs to another database, or is a physical one.
    SlotForeign,
    /// `max_replication_slots` are in use.
    SlotsFull,
    /// `max_wal_senders`, or all connections, are in use.
    SendersFull,
    /// `wal_level` is not `logical`.
    WalLevel,
    /// The role has no REPLICATION.
    Privilege,
    /// The publication does not exist, now or at the position being decoded.
    PublicationMissing,
    /// The server does not know an option, or the command at all: a pooler, as a rule.
    Unsupported,
    /// `lock_timeout` passed.
    LockTimeout,
    /// The server, or this connection of it, is shutting down or starting up.
    Shutdown,
    /// None of these: see the SQLSTATE.
    Other,
}

impl Reason {
    /// What `error` means.
    pub fn of(error: &ServerError) -> Self {
        let message = error.message.as_str();
        let detail = error.detail.as_deref().unwrap_or_default();
        match error.code.as_str() {
            "55006" => Self::SlotActive { pid: pid_in(message) },
            "42704" if message.contains("publication") => Self::PublicationMissing,
            "42704" => Self::SlotMissing,
            "42710" => Self::SlotExists,
            "55000" if message.contains("wal_level") => Self::WalLevel,
            "55000"
                if message.contains("can no longer")
                    || message.contains("cannot read from")
                    || detail.contains("invalidated") =>
            {
                Self::SlotLost
            }
            "55000" if message.contains("physical") || message.contains("database") => {
                Self::SlotForeign
            }
            // "requested WAL segment … has already been removed"
            "58P01" => Self::SlotLost,
            "53400" => Self::SlotsFull,
            "53300" => Self::SendersFull,
            "42501" => Self::Privilege,
            "0A000" | "42601" => Self::Unsupported,
            "55P03" => Self::LockTimeout,
            "57P01" | "57P02" | "57P03" => Self::Shutdown,
            _ => Self::Other,
        }
    }
}

/// "replication slot … is active for PID 4711": the last number.
fn pid_in(message: &str) -> Option<i32> {
    let last = message.rsplit(|it: char| !it.is_ascii_digit()).find(|it| !it.is_empty())?;
    last.parse().ok()
}

impl WalError {
    /// What the server meant; `None` when it was not the server.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Server(error) => Some(Reason::of(error)),
            Self::Connect(ConnectError::Refused { source, .. }) => Some(Reason::of(source)),
            Self::Blocked { .. } => Some(Reason::LockTimeout),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Connect(error) => error.class(),
            Self::Server(error) => match Reason::of(error) {
                Reason::SlotMissing | Reason::SlotLost => Class::Lost,
                Reason::SlotForeign | Reason::Unsupported => Class::Refused,
                _ => error.class(),
            },
            Self::Ended | Self::Closed | Self::Io(_) | Self::Blocked { .. } => Class::Transient,
            Self::Frame(_) | Self::Unexpected(_) => Class::Bug,
        }
    }

    /// What the operator could do, when we know.
    pub fn hint(&self) -> Option<String> {
        if let Self::Connect(error) = self {
            return error.hint();
        }
        let hint = match self.reason()? {
            Reason::SlotActive { pid: Some(pid) } => {
                return Some(format!(
                    "another reader holds it; to take over: select pg_terminate_backend({pid})"
                ));
            }
            Reason::SlotActive { pid: None } => "another reader holds it",
            Reason::SlotForeign => "choose another name for the slot",
            Reason::SlotsFull => {
                "drop a slot that nobody needs, or raise max_replication_slots (needs a restart)"
            }
            Reason::SendersFull => "raise max_wal_senders (needs a restart)",
            Reason::WalLevel => "alter system set wal_level = logical, and restart the server",
            Reason::Privilege => "alter role … replication (on RDS: grant rds_replication)",
            Reason::PublicationMissing => {
                "create the publication before the slot: a slot that is older cannot be read"
            }
            Reason::Unsupported => POOLER_HINT,
            Reason::LockTimeout => "end that transaction, or wait",
            Reason::SlotMissing
            | Reason::SlotExists
            | Reason::SlotLost
            | Reason::Shutdown
            | Reason::Other => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<io::Error> for WalError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str, message: &str, detail: Option<&str>) -> WalError {
        WalError::Server(Box::new(ServerError {
            code: code.to_owned(),
            message: message.to_owned(),
            detail: detail.map(str::to_owned),
            hint: None,
        }))
    }

    #[test]
    fn one_sqlstate_may_have_several_meanings() {
        for (code, message, detail, reason, class) in [
            (
                "55006",
                r#"replication slot "p2" is active for PID 4711"#,
                None,
                Reason::SlotActive { pid: Some(4711) },
                Class::Transient,
            ),
            (
                "42704",
                r#"replication slot "p" does not exist"#,
                None,
                Reason::SlotMissing,
                Class::Lost,
            ),
            (
                "42704",
                r#"publication "p" does not exist"#,
                None,
                Reason::PublicationMissing,
                Class::Refused,
            ),
            (
                "55000",
                "logical decoding requires wal_level >= logical",
                None,
                Reason::WalLevel,
                Class::Refused,
            ),
            (
                "55000",
                r#"cannot read from logical replication slot "p""#,
                Some(
                    "This slot has been invalidated because it exceeded the maximum reserved size.",
                ),
                Reason::SlotLost,
                Class::Lost,
            ),
            (
                "55000",
                r#"can no longer access replication slot "p""#,
                None,
                Reason::SlotLost,
                Class::Lost,
            ),
            (
                "55000",
                "cannot use physical replication slot for logical decoding",
                None,
                Reason::SlotForeign,
                Class::Refused,
            ),
            ("53400", "all replication slots are in use", None, Reason::SlotsFull, Class::Refused),
            ("42601", "syntax error", None, Reason::Unsupported, Class::Refused),
            ("57P01", "terminating connection", None, Reason::Shutdown, Class::Transient),
        ] {
            let error = server(code, message, detail);
            assert_eq!(error.reason(), Some(reason), "{message}");
            assert_eq!(error.class(), class, "{message}");
        }
    }
}
