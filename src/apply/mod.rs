//! The way out: pending rows and their checkpoint, into Postgres, in one transaction.
//!
//! * `statement`: the one statement that writes a projection's rows
//! * `array`: a column of pending rows as a binary array
//! * `writer`: the transaction
//! * `generation`: the tables of a projection
//! * `control`: what the control tables know

pub mod statement;
pub mod array;
pub mod writer;
pub mod generation;
pub mod control;
