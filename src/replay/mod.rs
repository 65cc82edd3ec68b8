//! Time travel: what read models said at an earlier moment, and why a row says what it says. From
//! history alone; no table is touched.
//!
//! * `archive`: where history is, and the statements that read it
//! * `lookups`: the few events that `[lookup]` may still need
//! * `cause`: which lines of a definition an event's effect on a row comes from
//! * `change`: what an event did to a row, column by column
//! * `trace`: one projection, event by event
//! * `run`: a run's projections at a moment, or step by step
//! * `key`: a row's key as people write it
//! * `explain`: the events that touched one row
//!
//! Events are folded one at a time by the same [`Fold`](crate::fold::Fold) as live ones, into tables
//! in memory. That is slower than batches, and it tells exactly which event did what.
//!
//! What it deliberately does not do: columns that Postgres computes (`generated always as`) and
//! defaults that are expressions are left out or null, since nobody but Postgres can tell them.

pub mod archive;
mod lookups;
mod cause;
pub mod change;
pub mod trace;
pub mod run;
pub mod key;
pub mod explain;

pub use self::archive::Archive;
pub use self::run::Replay;
