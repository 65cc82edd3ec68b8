//! Integration tests: the real binary, a real Postgres, real crashes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on says so by failing"
)]

mod cli;
mod config;
mod access;
mod embedded;
mod http;
mod definition;
mod migrate;
mod order;
mod status;
mod pgoutput;
mod support;
mod write_side;
