//! Postgres as a place: how to reach it, what it answers, and what it is able to do.
//!
//! ```text
//! Settings ──▶ dial (socket, TLS) ──▶ connect: tokio_postgres::Client      SQL
//!                                └──▶ wal::ReplicationConnection                     replication
//! ```
//!
//! Both kinds of connection come through one door, [`dial`], so that hosts, `sslmode`, certificates
//! and errors mean the same for both. Every failure has a [`Class`], which says what to do about it.
//!
//! What libpq knows and this does not: client certificates, GSSAPI, service files, and
//! `target_session_attrs`.

pub mod class;
pub mod connect;
pub mod dial;
pub mod error;
pub mod facts;
pub mod findings;
pub mod pgpass;
pub mod settings;
pub mod tls;

pub use class::{Class, class};
pub use connect::{Remarks, SharedClient, connect, connect_listening};
pub use error::{ConnectError, ServerError};
pub use settings::Settings;
