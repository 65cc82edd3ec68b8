//! Why a session ended, and what to do about it.

use std::error::Error;
use std::time::Duration;

use tokio_postgres::Error as PgError;

use crate::apply::error::WriteError;
use crate::apply::rebuilds::OrphanError;
use crate::engine::lane::LaneError;
use crate::engine::reader::ReaderError;
use crate::history::error::BuildError;
use crate::ident::IdentError;
use crate::migrate::MigrateError;
use crate::pg::findings::Finding;
use crate::pg::{Class, ConnectError, class};
use crate::realtime::link::{LIMIT, LinkError};
use crate::wal::error::{Reason, WalError};

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No connection for SQL.
    #[error("cannot connect to the database")]
    Connect(#[from] ConnectError),
    /// The schema is not what this version works with.
    #[error(transparent)]
    Schema(#[from] MigrateError),
    /// The server is not set up for this.
    #[error("the database cannot be followed")]
    Server(#[source] Box<Unfit>),
    /// Another process follows the log for this slot.
    #[error("another projector follows slot `{0}`")]
    Standby(String),
    /// A connection that a session before has lost is still there for the server.
    #[error("the connection before this one still holds slot `{0}`")]
    Lingers(String),
    /// The slot holds back more log than it may.
    #[error("slot `{slot}` keeps {kept} bytes of log, more than limits.max_slot_lag ({limit})")]
    SlotTooFar {
        /// The slot, which has been dropped.
        slot: String,
        /// What it kept.
        kept: u64,
        /// What it may keep.
        limit: u64,
    },
    /// The publication was dropped, and perhaps made anew: what was appended in between never comes.
    #[error("publication `{0}` was dropped; its slot is made anew")]
    PublicationGone(String),
    /// The replication connection.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The reader.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// A lane.
    #[error("lane `{lane}` cannot write")]
    Lane {
        /// Which.
        lane: String,
        /// Why.
        #[source]
        source: LaneError,
    },
    /// Read models cannot be made from history.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The connection broke in the midst of a swap.
    #[error("it is not known whether a new generation serves already")]
    Unsure(#[source] Box<BuildError>),
    /// There is no room for a second generation.
    #[error("the new rows need about {needed} bytes, and {free} are free in {directory}")]
    Disk {
        /// What those that serve take.
        needed: u64,
        /// What is left.
        free: u64,
        /// Where the server has its data.
        directory: String,
    },
    /// An index of a second generation is more log at once than a slot may keep.
    #[error(
        "an index of the new rows comes to about {needed} bytes of log at once, and a slot may keep {limit} (max_slot_wal_keep_size): it would be lost"
    )]
    Log {
        /// What the one that serves takes.
        needed: u64,
        /// What the server lets a slot keep.
        limit: u64,
    },
    /// The server gave the build's slot up.
    #[error(
        "the build's slot was given up: {needed} bytes of log were written since it began, and a slot may keep {limit} (max_slot_wal_keep_size)"
    )]
    LogLost {
        /// What was written since the build began.
        needed: u64,
        /// What the server lets a slot keep.
        limit: u64,
        /// What the stream ended with.
        #[source]
        source: Box<BuildError>,
    },
    /// The slots keep all the log that they may, and do not let go of it.
    #[error(
        "slots have let go of no log within {waited:?}: what the build writes would cost one that may keep {limit} bytes (max_slot_wal_keep_size)"
    )]
    LogDry {
        /// How long it was waited for.
        waited: Duration,
        /// What the server lets a slot keep.
        limit: u64,
    },
    /// What an unfinished build left cannot be looked for.
    #[error(transparent)]
    Orphans(#[from] OrphanError),
    /// The definitions are others now, in a way that the lanes must be started anew for.
    #[error("the definitions have changed")]
    Redefined,
    /// The control connection.
    #[error("the control connection failed")]
    Control(#[from] PgError),
    /// A name is too long.
    #[error(transparent)]
    Name(#[from] IdentError),
    /// The target of broadcasts cannot be spoken to at all.
    #[error("there can be no HTTP client for broadcasts")]
    Http(#[from] reqwest::Error),
    /// A task ended that must not.
    #[error("the {0} ended by itself")]
    Vanished(&'static str),
    /// The operating system refused a thread.
    #[error("cannot start the reader")]
    Thread(#[from] std::io::Error),
}

/// What keeps a server from being followed.
#[derive(Debug)]
pub struct Unfit(pub Vec<Finding>);

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, finding) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}

impl Error for Unfit {}

/// What to do when a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Begin the next at once: it will be different.
    Again,
    /// Begin the next after a while.
    Wait,
    /// Look from time to time whether the other is gone.
    StandBy,
    /// Nothing that waiting mends.
    None,
}

impl EngineError {
    /// What to do about it, when something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Schema(error) => error.hint().map(str::to_owned),
            Self::Server(unfit) => unfit.0.first().map(|it| it.hint.clone()),
            Self::Wal(error)
            | Self::Reader(ReaderError::Wal(error))
            | Self::Build(BuildError::Wal { source: error, .. }) => error.hint(),
            Self::LogLost { needed, .. } => Some(format!(
                "it is tried again; `alter system set max_slot_wal_keep_size = '{}MB'` and \
                 `select pg_reload_conf()` make it succeed, and may be taken back afterwards",
                2 * needed / 1_048_576 + 1
            )),
            Self::LogDry { limit, .. } => Some(format!(
                "`select slot_name, active, restart_lsn, safe_wal_size from pg_replication_slots` shows \
                 which one stands still; `alter system set max_slot_wal_keep_size = '{}MB'` and \
                 `select pg_reload_conf()` give it room",
                4 * limit / 1_048_576 + 1
            )),
            _ => None,
        }
    }

    /// Whether only a changed configuration mends it.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Connect(error) => error.class() == Class::Config,
            Self::Wal(error) => error.class() == Class::Config,
            _ => false,
        }
    }

    /// Whether somebody has changed the server, and may put it right while we wait.
    pub(super) fn is_of_the_setup(&self) -> bool {
        match self {
            Self::Server(_) | Self::Schema(_) => true,
            Self::Wal(error) | Self::Reader(ReaderError::Wal(error)) => {
                error.class() == Class::Refused
            }
            _ => false,
        }
    }

    /// The server process that reads the slot instead of us.
    pub(super) fn reader_of_slot(&self) -> Option<i32> {
        match self {
            Self::Wal(error) | Self::Reader(ReaderError::Wal(error)) => match error.reason() {
                Some(Reason::SlotActive { pid }) => pid,
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether no connection was made at all.
    pub(super) fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Wal(WalError::Connect(_)))
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = error.source();
        }
        text
    }

    /// A word for the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Schema(_) | Self::Server(_) | Self::Name(_) => "setup",
            Self::Standby(_) | Self::Lingers(_) => "standby",
            Self::SlotTooFar { .. } => "slot_limit",
            Self::PublicationGone(_) => "publication",
            Self::Wal(_) | Self::Reader(_) => "replication",
            Self::Lane { .. } => "write",
            Self::Build(_)
            | Self::Unsure(_)
            | Self::Disk { .. }
            | Self::Log { .. }
            | Self::LogDry { .. }
            | Self::LogLost { .. } => "build",
            Self::Control(_) | Self::Orphans(_) => "control",
            Self::Redefined => "reload",
            Self::Vanished(_) | Self::Thread(_) | Self::Http(_) => "internal",
        }
    }

    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Standby(_) => Remedy::StandBy,
            Self::SlotTooFar { .. } | Self::PublicationGone(_) | Self::Redefined => Remedy::Again,
            Self::Connect(error) => by_class(error.class()),
            Self::Wal(error) | Self::Reader(ReaderError::Wal(error)) => by_wal(error),
            Self::Reader(ReaderError::LaneEnded(_) | ReaderError::Silent(_))
            | Self::Vanished(_)
            | Self::Lingers(_)
            | Self::LogLost { .. }
            | Self::Unsure(_) => Remedy::Wait,
            Self::Reader(ReaderError::Decode(_) | ReaderError::Assemble(_)) => Remedy::None,
            Self::Lane {
                source: LaneError::Torn(_) | LaneError::Careful(_) | LaneError::Parked,
                ..
            } => Remedy::Again,
            Self::Lane { source: LaneError::Write(error), .. } => by_write(error),
            Self::Build(BuildError::Write(error)) => by_write(error),
            Self::Build(BuildError::Wal { source, .. }) => by_wal(source),
            Self::Build(BuildError::Connect(error)) => by_class(error.class()),
            Self::Build(
                BuildError::Overtaken { .. } | BuildError::Silent { .. } | BuildError::Spool(_),
            ) => Remedy::Wait,
            Self::Build(BuildError::Read(error)) | Self::Control(error) => by_class(class(error)),
            Self::Build(_) => Remedy::None,
            Self::Schema(MigrateError::Database(error))
            | Self::Orphans(OrphanError::Database(error)) => by_class(class(error)),
            Self::Orphans(OrphanError::Name(_))
            | Self::Disk { .. }
            | Self::Log { .. }
            | Self::LogDry { .. }
            | Self::Schema(_)
            | Self::Server(_)
            | Self::Name(_)
            | Self::Http(_)
            | Self::Thread(_) => Remedy::None,
        }
    }
}

impl From<LinkError> for EngineError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Connect(error) => Self::Connect(error),
            LinkError::Query(error) => Self::Control(error),
            LinkError::Silent => Self::Reader(ReaderError::Silent(LIMIT)),
        }
    }
}

fn by_class(class: Class) -> Remedy {
    match class {
        Class::Transient | Class::Lost => Remedy::Wait,
        Class::Poison | Class::Refused | Class::Config | Class::Bug => Remedy::None,
    }
}

fn by_wal(error: &WalError) -> Remedy {
    match error.reason() {
        Some(Reason::SlotActive { .. }) => Remedy::StandBy,
        Some(Reason::SlotMissing | Reason::SlotLost) => Remedy::Again,
        _ => by_class(error.class()),
    }
}

/// Whether a projection's rows, its table or its statement are at fault, and not the connection: the
/// others can go on without it.
pub(super) fn is_of_the_rows(error: &PgError) -> bool {
    !matches!(class(error), Class::Transient | Class::Lost | Class::Config)
}

/// A projection whose rows are refused has left by the next session.
fn by_write(error: &WriteError) -> Remedy {
    match error {
        WriteError::Overtaken(_) | WriteError::NotVisible { .. } | WriteError::NoPosition => {
            Remedy::Wait
        }
        // the projection has left by the next session
        WriteError::Fold(_) => Remedy::Again,
        WriteError::Rows { source, .. } if is_of_the_rows(source) => Remedy::Again,
        WriteError::Rows { source, .. } | WriteError::Transaction(source) => {
            by_class(class(source))
        }
    }
}
