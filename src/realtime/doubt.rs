//! Whether it is the messages that are wrong, or the target that refuses whatever it is sent.
//!
//! A gateway that answers 400 to everything looks, one message at a time, like messages of which each
//! is bad. So a message that is refused alone is not given up for that. Two things must speak for it:
//! another one that is surely in order is taken in its place, and it is not one of a row, in which
//! messages of many topics were refused and none was taken between.

use std::sync::Arc;

/// Messages of so many topics in a row are not all bad. A run may well log one line after the other
/// that is too large; that five do so while nothing else is told is less likely than a limit, or a rule
/// about topics, that the operator does not know of.
const TOPICS: usize = 5;

/// The topics of messages that were refused since one was taken.
#[derive(Debug, Default)]
pub(super) struct Doubt(Vec<Arc<str>>);

impl Doubt {
    /// A message was taken.
    pub(super) fn taken(&mut self) {
        self.0.clear();
    }

    /// A message of this topic was refused, alone.
    pub(super) fn refused(&mut self, topic: &Arc<str>) {
        if self.0.len() < TOPICS && !self.0.contains(topic) {
            self.0.push(Arc::clone(topic));
        }
    }

    /// Whether so many were refused that it is not the messages' fault.
    pub(super) fn is_general(&self) -> bool {
        TOPICS <= self.0.len()
    }
}
