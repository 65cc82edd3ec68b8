//! Integration tests: the real binary, a real Postgres, real crashes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on says so by failing"
)]

mod definition;
mod definition_naive;
mod order;
mod support;
