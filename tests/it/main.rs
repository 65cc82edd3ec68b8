//! Integration tests: the real binary, a real Postgres, real crashes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on says so by failing"
)]

mod support;

mod order;
mod docs;
mod config;
mod definition;
mod pgoutput;
mod pg;
mod poison;
mod secrets;
mod wal;
mod migrate;
mod write_side;
mod access;
mod topics;
mod isolation;
mod verbs;
mod embedded;
mod hold;
mod http;
mod console;
mod streams;
mod cli;
mod status;
mod dev;
mod definition_naive;
mod fold;
mod live;
mod members;
mod rebuild;
mod redefine;
mod plan;
mod history;
mod verify;
mod crash;
mod slot;
mod sql_projection;
mod lanes;
mod handler;
mod hazards;
mod badinput;
mod broadcast;
mod broadcast_definition;
mod broadcast_keep;
mod broadcast_refused;
mod broadcast_sql;
mod replay;
mod explain;
mod upcast;
mod upcast_built;
mod hub;
