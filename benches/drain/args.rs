//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Drains a backlog of events and compares with `pg_recvlogical`; measures latency under a steady
/// load.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "drain")]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    pub(crate) what: What,
    /// Events of the backlog, in runs of 20
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) events: u32,
    /// Events a transaction; `all` puts the whole backlog into one
    #[arg(long, value_delimiter = ',', default_value = "1,100,10000,all")]
    pub(crate) transactions: Vec<Transaction>,
    /// Runs that are active at once, their events taking turns; all of them when not given
    #[arg(long)]
    pub(crate) window: Option<u32>,
    /// Sets of projections, each measured: names joined by `+`, or `all`
    #[arg(long, value_delimiter = ',', default_value = "run_status,all")]
    pub(crate) projections: Vec<String>,
    /// Pairs of `pg_recvlogical` and projector a set
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: usize,
    /// Events a second of the live load
    #[arg(long, value_delimiter = ',', default_value = "500,2000")]
    pub(crate) rates: Vec<u32>,
    /// How long the live load lasts, after 2 s that do not count
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u32,
    /// Connections that append the live load
    #[arg(long, default_value_t = 4)]
    pub(crate) writers: u32,
    /// How they append it, an event a transaction
    #[arg(long, value_enum, default_value = "insert")]
    pub(crate) load: Load,
    /// Events of history before the live load: the second half of the load then runs beside rebuilds
    /// of `run_status`, one after the other, and each half is told by itself
    #[arg(long, value_name = "EVENTS")]
    pub(crate) beside_rebuild: Option<u32>,
    /// How all programs reach the server
    #[arg(long, value_enum, default_value = "tcp")]
    pub(crate) transport: Transport,
    /// Where the servers' data directories are made
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    #[serde(skip)]
    bench: bool,
}

/// Which measurements to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// A backlog
    Drain,
    /// Commit → visible
    Latency,
    /// Both
    All,
    /// A backlog with broadcasts and without
    Broadcasts,
    /// Rebuilds from history, against one set-based statement a table
    Rebuild,
}

/// How the live load is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// Plain prepared inserts: the cheapest writer there is
    Insert,
    /// Calls of `append_events`, which looks at the run first
    AppendEvents,
}

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// 127.0.0.1
    Tcp,
    /// A Unix socket
    Socket,
}

/// How many events a transaction of the backlog holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Transaction {
    /// So many.
    Of(u32),
    /// All of them.
    Whole,
}

impl Transaction {
    /// The number for a backlog of `events`.
    pub(crate) fn size(self, events: u32) -> u32 {
        match self {
            Self::Of(size) => size.min(events),
            Self::Whole => events,
        }
    }
}

impl FromStr for Transaction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Err("a transaction holds at least one event".to_owned()),
            Ok(size) => Ok(Self::Of(size)),
            Err(_) if text == "all" => Ok(Self::Whole),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(size) => size.fmt(f),
            Self::Whole => "all".fmt(f),
        }
    }
}
