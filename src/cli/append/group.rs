//! Lines of one run that follow each other: one call, one transaction.

use std::fmt;

use uuid::Uuid;

use crate::cli::append::line::Line;

/// About how much text a call may carry, in bytes.
const LARGEST: usize = 4 << 20;

/// Lines for one call of `append_events`; never empty.
#[derive(Debug)]
pub(super) struct Group {
    lines: Vec<Line>,
    bytes: usize,
}

impl Group {
    /// A group of one.
    pub(super) fn new(line: Line) -> Self {
        Self { bytes: line.element.len(), lines: vec![line] }
    }

    /// Adds `line` if it belongs here and there is room, and otherwise gives it back. A line that
    /// expects a version begins a group, so that what it expects is checked.
    pub(super) fn add(&mut self, line: Line, most: usize) -> Result<(), Line> {
        let room = self.lines.len() < most && self.bytes + line.element.len() <= LARGEST;
        let same = self.run_id() == line.run_id && self.project_id() == line.project_id;
        if !room || !same || line.expected_version.is_some() {
            return Err(line);
        }
        self.bytes += line.element.len();
        self.lines.push(line);
        Ok(())
    }

    pub(super) fn project_id(&self) -> Uuid {
        self.lines.first().map(|it| it.project_id).unwrap_or_default()
    }

    pub(super) fn run_id(&self) -> Uuid {
        self.lines.first().map(|it| it.run_id).unwrap_or_default()
    }

    pub(super) fn expected_version(&self) -> Option<i32> {
        self.lines.first().and_then(|it| it.expected_version)
    }

    /// How many events it holds.
    pub(super) fn len(&self) -> u64 {
        self.lines.len() as u64
    }

    /// The events as a JSON array.
    pub(super) fn elements(&self) -> String {
        let elements: Vec<_> = self.lines.iter().map(|it| it.element.as_str()).collect();
        format!("[{}]", elements.join(","))
    }

    /// One group a line, in order.
    pub(super) fn split(self) -> impl Iterator<Item = Self> {
        self.lines.into_iter().map(Self::new)
    }

    /// The numbers of its lines. Bad lines in between may have been left out.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.lines.iter().map(|it| it.number).collect()
    }
}

/// `line 3` or `lines 3 to 7`
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.lines {
            [first, .., last] => write!(f, "lines {} to {}", first.number, last.number),
            [only] => write!(f, "line {}", only.number),
            [] => Ok(()),
        }
    }
}
