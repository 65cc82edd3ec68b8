//! Whether read models say what history says, at exactly one position of the log.
//!
//! ```text
//!  history ──fill──▶ scratch table ──follow──▶ exactly L ──┐
//!                                                          ├─▶ compared row by row, in key order
//!  live table ──one snapshot: rows and checkpoint L────────┘
//! ```
//!
//! Nothing is paused: the live table is read in one snapshot, in which its rows and its checkpoint
//! agree, and the scratch table is brought to that checkpoint. Rows are compared as they stream by,
//! so that memory does not grow with their number.
//!
//! * `check`: the procedure · `quiet`: what can be said where nobody follows the log
//! * `shape`: how a table's rows are read and ordered · `compare`: two streams of rows
//! * `scratch`: tables that an ended process has left

pub mod check;
pub mod compare;
pub mod error;
mod quiet;
pub mod scratch;
mod shape;
