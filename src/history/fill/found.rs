//! What lookups find while history is folded run by run: what the statement that writes a row would
//! find in the run's history up to the event that wrote the row last.

use std::collections::HashMap;
use std::ops::Range;

use uuid::Uuid;

use crate::definition::Which;

/// The values of one lookup in the runs that have been folded and not written.
#[derive(Debug)]
pub(super) struct Found {
    which: Which,
    text: String,
    /// A version, and where the value's text is that counts from there on.
    entries: Vec<(i32, Range<usize>)>,
    runs: HashMap<Uuid, Range<usize>, foldhash::fast::FixedState>,
    /// Where the entries of the run begin that is being folded.
    open: usize,
}

impl Found {
    pub(super) fn new(which: Which) -> Self {
        Self { which, text: String::new(), entries: Vec::new(), runs: HashMap::default(), open: 0 }
    }

    /// Takes note of a value in the run that is being folded.
    pub(super) fn see(&mut self, version: i32, value: &str) {
        let last = self.entries.get(self.open..).and_then(<[_]>::last);
        if let Some((_, known)) = last
            && (self.which == Which::First || self.text.get(known.clone()) == Some(value))
        {
            return;
        }
        let start = self.text.len();
        self.text.push_str(value);
        self.entries.push((version, start..self.text.len()));
    }

    /// The run has ended. Where it has made no row, nobody will ask.
    pub(super) fn end(&mut self, run: Uuid, has_rows: bool) {
        let entries = self.open..self.entries.len();
        if has_rows && !entries.is_empty() {
            self.runs.insert(run, entries);
            self.open = self.entries.len();
            return;
        }
        if let Some((_, first)) = self.entries.get(self.open) {
            self.text.truncate(first.start);
        }
        self.entries.truncate(self.open);
    }

    /// What a row of a run has that an event of version `order` wrote last.
    pub(super) fn find(&self, run: Uuid, order: i64) -> Option<&str> {
        let entries = self.entries.get(self.runs.get(&run)?.clone())?;
        let until = entries.partition_point(|(version, _)| i64::from(*version) <= order);
        let (_, text) = entries.get(until.checked_sub(1)?)?;
        self.text.get(text.clone())
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.entries.len() * size_of::<(i32, Range<usize>)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_what_was_there_when_it_was_last_written() {
        let run = Uuid::from_u128;
        let (mut first, mut last) = (Found::new(Which::First), Found::new(Which::Last));
        for found in [&mut first, &mut last] {
            found.see(2, "a");
            found.see(3, "b");
            found.see(5, "b");
            found.end(run(1), true);
            found.see(1, "never asked for");
            found.end(run(2), false);
            found.see(1, "c");
            found.end(run(3), true);
        }

        assert_eq!([1, 2, 4].map(|it| first.find(run(1), it)), [None, Some("a"), Some("a")]);
        assert_eq!([1, 2, 9].map(|it| last.find(run(1), it)), [None, Some("a"), Some("b")]);
        assert_eq!([2, 3].map(|it| last.find(run(it), 9)), [None, Some("c")]);
        assert_eq!(last.text, "abc");
    }
}
