//! Which events of all runs have been shown, when commits do not come in the order of positions.
//!
//! A position is taken before its transaction commits, so a low one may appear after a high one. A
//! position is *settled* once every transaction has ended that was open when a poll first saw it or a
//! higher one: nothing can appear below it any more. Each poll reads again from the last settled
//! position, and a set of what was shown keeps lines from being shown twice. No clock and no guess
//! about how long a transaction lasts is involved.
//!
//! A transaction gets its id a moment after its first position; therefore a position settles a poll
//! later than the ids alone would say.

use std::collections::{BTreeSet, VecDeque};

/// The place in the events table up to which everything has been shown, and what was beyond it.
#[derive(Debug)]
pub(super) struct Cursor {
    settled: i64,
    highest: i64,
    seen: BTreeSet<i64>,
    /// Positions that settle when all transactions below an id have ended.
    waiting: VecDeque<(i64, u64)>,
    /// What settles with this poll.
    settling: i64,
    /// The first event of this poll that the log does not have yet.
    held: Option<i64>,
}

impl Cursor {
    /// Everything up to `position` counts as shown.
    pub(super) fn after(position: i64) -> Self {
        Self {
            settled: position,
            highest: position,
            seen: BTreeSet::new(),
            waiting: VecDeque::new(),
            settling: position,
            held: None,
        }
    }

    /// Where the next poll begins to read: after this position.
    pub(super) fn settled(&self) -> i64 {
        self.settled
    }

    /// A poll begins, with a snapshot taken before its rows are read: every transaction below
    /// `oldest_open` has ended, and none from `next` on has begun.
    pub(super) fn begin(&mut self, oldest_open: u64, next: u64) {
        self.held = None;
        while let Some(&(position, id)) = self.waiting.front()
            && id <= oldest_open
        {
            self.settling = position;
            self.waiting.pop_front();
        }
        let last = self.waiting.back().map_or(self.settling, |(position, _)| *position);
        if last < self.highest {
            self.waiting.push_back((self.highest, next));
        }
    }

    /// An event that the log has: whether it is to be shown.
    pub(super) fn show(&mut self, position: i64) -> bool {
        self.highest = self.highest.max(position);
        self.seen.insert(position)
    }

    /// An event that the log does not have yet: nothing from here on is settled.
    pub(super) fn hold(&mut self, position: i64) {
        self.highest = self.highest.max(position);
        self.held = Some(self.held.map_or(position, |it| it.min(position)));
    }

    /// The poll has read everything after [`Cursor::settled`].
    pub(super) fn end(&mut self) {
        let before_held = self.held.map_or(i64::MAX, |it| it - 1);
        self.settled = self.settling.min(before_held).max(self.settled);
        self.seen = self.seen.split_off(&(self.settled + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(cursor: &mut Cursor, ids: (u64, u64), rows: &[i64]) -> Vec<i64> {
        cursor.begin(ids.0, ids.1);
        let from = cursor.settled();
        let shown = rows.iter().copied().filter(|it| from < *it && cursor.show(*it)).collect();
        cursor.end();
        shown
    }

    #[test]
    fn a_low_position_that_commits_late_is_shown_once() {
        let mut cursor = Cursor::after(10);

        // Transaction 100 holds position 11 and stays open.
        assert_eq!(poll(&mut cursor, (100, 101), &[12]), [12]);
        assert_eq!(poll(&mut cursor, (100, 103), &[12, 13]), [13]);
        assert_eq!(poll(&mut cursor, (100, 104), &[12, 13]), Vec::<i64>::new());
        assert_eq!(cursor.settled(), 10);
        assert_eq!(poll(&mut cursor, (104, 104), &[11, 12, 13]), [11]);
        assert_eq!(poll(&mut cursor, (104, 104), &[11, 12, 13]), Vec::<i64>::new());
        assert_eq!(poll(&mut cursor, (104, 104), &[11, 12, 13]), Vec::<i64>::new());
        assert_eq!(cursor.settled(), 13);
        assert!(cursor.seen.is_empty());
    }

    #[test]
    fn an_event_without_its_line_is_waited_for() {
        let mut cursor = Cursor::after(0);

        for _ in 0..4 {
            cursor.begin(50, 50);
            cursor.show(1);
            cursor.hold(2);
            cursor.show(3);
            cursor.end();
        }
        assert_eq!(cursor.settled(), 1);

        assert_eq!(poll(&mut cursor, (50, 50), &[2, 3]), [2]);
        assert_eq!(cursor.settled(), 3);
    }
}
