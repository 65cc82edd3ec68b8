//! Believable workflow runs: what `dev` drives, and what tests and the benchmark append.
//!
//! A [`Simulator`] keeps many runs in flight and hands out one append at a time, in an order in
//! which the runs interleave. Runs retry steps, pause, fail, are replayed, branch and are canceled,
//! and their payloads hold things that must not leave unredacted.
//!
//! It is pure: the same seed and the same moments give the same appends. How fast they are appended
//! is the caller's to decide, and so is what the clock says.

mod catalog;
mod simulator;
mod story;

pub use simulator::{Append, Options, PROJECTS, Simulator};
