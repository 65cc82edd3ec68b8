//! Read models made from the events table itself.
//!
//! * `event`: a row of the events table as an event
//! * `build`: a whole generation, under the exported snapshot of a slot
//! * `refold`: the rows of single runs, in the midst of the stream

mod event;
pub mod build;
pub mod refold;
