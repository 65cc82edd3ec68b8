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
mod wal;
mod migrate;
mod write_side;
mod access;
mod embedded;
mod http;
mod cli;
mod status;
mod dev;
mod definition_naive;
mod fold;
mod live;
mod redefine;
mod crash;
mod slot;
mod lanes;
mod hazards;
mod badinput;
