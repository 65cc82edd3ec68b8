//! Projector keeps read models in step with an append-only Postgres table: exactly once, by LSN.
//!
//! The modules stand in the order in which an event meets them; a module may use the ones before it
//! and never one after it (`tests/it/order.rs` checks that).
//!
//! ```text
//! wal ──▶ pgoutput ──▶ assembler ──▶ engine ──▶ fold ──▶ apply ──▶ wal (acknowledge)
//! bytes   messages     event::Batch  queues     one       rows and
//!                                               change    checkpoint in
//!                                               a row     one transaction
//! ```

// words everybody uses
pub mod lsn;
pub mod ident;
pub mod event;
pub mod redact;
pub mod metrics;
pub mod config;

// Postgres as a place
pub mod pg;
pub mod migrate;

// the way in
pub mod wal;
pub mod pgoutput;
pub mod assembler;

// what it means
pub mod definition;
pub mod fold;

// the way out
pub mod apply;
pub mod history;
pub mod replay;
pub mod verify;
pub mod realtime;

// all together
pub mod engine;
pub mod http;

// the faces
pub mod embedded;
pub mod workload;
pub mod cli;
