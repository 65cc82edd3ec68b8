//! Read models made from the events table itself.
//!
//! A generation is made beside whatever serves, and can be brought to exactly any position:
//!
//! ```text
//! anchor ──▶ fill ──▶ follow ──────▶ install
//! slot,      history  the slot,      the swap, in one
//! snapshot   up to C  exactly to P   transaction
//! ```
//!
//! * `source`: where history is, and what is made of it · `error`: why it could not be
//! * `anchor`: a temporary slot and the snapshot at its beginning · `tape`: what comes through the slot, in
//!   a file (`spool`) where it is much
//! * `event`: a row of the events table as an event
//! * `fill`: a table from the history that the snapshot sees · `pace`: how it gives way to others
//! * `heads`: which events come late · `refold`: the rows of single runs, made anew
//! * `follow`: what the slot has beyond the snapshot
//! * `install`: a finished generation begins to serve · `key`: which keys a table can take on

pub mod event;
mod held;
mod spool;
pub mod tape;
pub mod anchor;
pub mod error;
pub mod fill;
pub mod follow;
pub mod heads;
pub mod key;
pub mod pace;
pub mod install;
pub mod refold;
pub mod retry;
pub mod source;
