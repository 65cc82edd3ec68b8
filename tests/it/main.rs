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
mod definition;
mod embedded;
mod http;
mod migrate;
mod order;
mod status;
mod support;
mod write_side;
