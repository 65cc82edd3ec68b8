//! Topics that may fall silent: whoever lost the last line of one is told by a beacon.
//!
//! A message that is lost shows with the next one on its topic. After the last there is no next one, so
//! some time after it the topic's head is told once more, without lines. A topic has one beacon for each
//! silence, and none before it has had a line.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Instant;

/// Topics of a definition that are watched at once: about 1 MiB. Beyond it a topic has no beacon until
/// others have had theirs; its viewers look by themselves from time to time.
const WATCHED: usize = 10_000;

/// When to look at which topic: each is in it once.
#[derive(Debug, Default)]
pub(super) struct Beacons(BinaryHeap<Reverse<(Instant, Arc<str>)>>);

impl Beacons {
    /// Looks at a topic at `at`, which is not watched so far. Whether there is room for it.
    pub(super) fn watch(&mut self, topic: &Arc<str>, at: Instant) -> bool {
        let is_room = self.0.len() < WATCHED;
        if is_room {
            self.0.push(Reverse((at, Arc::clone(topic))));
        }
        is_room
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// A topic that is to be looked at by `now`. It is not watched any more.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Arc<str>> {
        let is_due = self.next().is_some_and(|it| it <= now);
        is_due.then(|| self.0.pop()).flatten().map(|Reverse((_, topic))| topic)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
