//! The way out: pending rows and their checkpoint, into Postgres, in one transaction.
//!
//! * `error`: what can go wrong · `statement`: the one statement that writes a projection's rows
//! * `array`: a column of pending rows as a binary array
//! * `copy`: rows as `COPY` takes them · `bulk`: many new rows, copied
//! * `gathered`: events for a definition's own statement
//! * `letters`: events that were set aside
//! * `pipeline`: statements on their way · `writer`: the transaction
//! * `careful`: written one by one where the database refuses some of it
//! * `generation`: the tables of a projection
//! * `control`: what the control tables know · `rebuilds`: the one of them that tells of rebuilds
//! * `cases`: given/expect cases of a definition's own statement

pub mod error;
pub mod statement;
pub mod array;
pub mod letters;
pub mod gathered;
pub mod copy;
pub mod bulk;
mod pipeline;
pub mod writer;
pub mod careful;
pub mod generation;
pub mod control;
pub mod rebuilds;
pub mod cases;
