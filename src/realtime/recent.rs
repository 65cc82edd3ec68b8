//! The topics that were spoken on last, of which the line before is known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Topics that are remembered at least: about 2 MiB. As many again may be.
const REMEMBERED: usize = 10_000;

/// What is known of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The cursor of the last line.
    pub(super) head: i64,
    /// Whether a line before it is not below it.
    is_late: bool,
    /// When the last message was sent.
    pub(super) sent_at: Option<Instant>,
    /// Whether somebody will look whether it has fallen silent.
    pub(super) is_watched: bool,
}

impl Seen {
    /// Of the last line, which all lines before it are below; `None` when that is not so.
    pub(super) fn cursor(&self) -> Option<i64> {
        (!self.is_late).then_some(self.head)
    }
}

/// A bounded memory of topics: two generations, of which the older is dropped when the younger is full.
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: HashMap<Arc<str>, Seen>,
    old: HashMap<Arc<str>, Seen>,
}

impl Recent {
    pub(super) fn get(&self, topic: &str) -> Option<Seen> {
        self.young.get(topic).or_else(|| self.old.get(topic)).copied()
    }

    /// A line was seen on a topic. One that is below those before it could be missed without a trace:
    /// what comes after it is not to name it as the one before.
    pub(super) fn saw(&mut self, topic: &Arc<str>, cursor: i64) {
        let known = self.young.get(topic).copied().or_else(|| self.old.remove(topic));
        let is_late = known.and_then(|it| it.cursor()).is_some_and(|last| cursor < last);
        let sent_at = known.and_then(|it| it.sent_at);
        let is_watched = known.is_some_and(|it| it.is_watched);
        let seen = Seen { head: cursor, is_late, sent_at, is_watched };
        if let Some(it) = self.young.get_mut(topic) {
            *it = seen;
            return;
        }
        if REMEMBERED <= self.young.len() {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Arc::clone(topic), seen);
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, topic: &str) -> Option<&mut Seen> {
        self.young.get_mut(topic).or_else(|| self.old.get_mut(topic))
    }

    pub(super) fn forget(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
