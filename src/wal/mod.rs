//! The way in: the write-ahead log as a stream of logical replication messages.
//!
//! A replication connection is an ordinary one whose start-up packet says `replication=database`. It
//! speaks the simple query protocol until `START_REPLICATION`, and copies in both directions after:
//!
//! ```text
//! connect ──▶ log-in ──▶ idle ──START_REPLICATION──▶ streaming ──CopyDone──▶ draining ──▶ closed
//!                        │  ▲                         server: XLogData, keepalive
//!                        └──┘ simple_query            we: status updates
//! ```
//!
//! [`ReplicationConnection`] is the connection while idle, [`Stream`] while streaming. Reading is
//! split in two: [`Stream::fill`] waits for bytes, [`Stream::next`] takes frames out of them without waiting or
//! copying, so that a reader can take thousands between two system calls.
//!
//! What it does not do: decode pgoutput, reconnect, keep time. Those belong to the caller; so does the decision
//! what may be acknowledged.
//!
//! See "Streaming Replication Protocol" and "Logical Streaming Replication Protocol" in the
//! Postgres documentation. `tokio_postgres` cannot do any of this: it has neither the start-up
//! parameter nor `CopyBoth`.

pub mod error;
pub mod frames;
mod channel;
mod auth;
pub mod conn;
pub mod slot;
pub mod frame;
pub mod stream;
pub mod backoff;

pub use backoff::Backoff;
pub use conn::{ReplicationConnection, Row};
pub use error::{Reason, WalError};
pub use frame::Frame;
pub use slot::{Ensured, Snapshot, System};
pub use stream::{Stream, StreamOptions};
