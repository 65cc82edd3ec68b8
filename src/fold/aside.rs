//! Which rows of an event must wait, and what is written down of it.

use hashbrown::HashTable;
use smallvec::{SmallVec, smallvec};

use crate::definition::{Definition, OnError, Value};
use crate::event::Event;
use crate::fold::error::{FoldError, Reason};
use crate::fold::letters::{Letter, key_json};
use crate::fold::rows::hash_key;
use crate::fold::work::{Failure, Work};
use crate::lsn::Lsn;
use crate::redact::Redactor;

/// The rows that are parked, and how many may be.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) parked: Parked,
    pub(super) limit: usize,
    /// The one row that counts, where it is not all.
    pub(super) only: Option<Box<[Value<'static>]>>,
    /// Where the events come from, for what is written down.
    pub(super) lsn: Lsn,
}

impl Default for Aside {
    fn default() -> Self {
        Self { parked: Parked::default(), limit: usize::MAX, only: None, lsn: Lsn::ZERO }
    }
}

impl Aside {
    /// Whether no row is parked: the one question on the way of every event.
    pub(super) fn is_empty(&self) -> bool {
        self.parked.keys.is_empty() && self.only.is_none()
    }

    /// Parks the rows that an event failed on, and writes a letter for each of its rows that is
    /// parked. Returns for each of the event's keys whether its row must wait.
    pub(super) fn sort(
        &mut self,
        definition: &Definition,
        event: &Event<'_>,
        work: &Work<'_>,
        (letters, redactor): (&mut Vec<Letter>, &Redactor),
    ) -> Result<SmallVec<[bool; 4]>, FoldError> {
        for failure in &work.failures {
            let is_other = match failure.key.and_then(|it| work.keys.get(it)) {
                Some(key) => self.is_other(key),
                None => self.only.is_some(),
            };
            if is_other {
                continue;
            }
            self.park(definition, event, work, failure, (&mut *letters, redactor))?;
        }
        let mut blocked = smallvec![false; work.keys.len()];
        for (at, key) in work.keys.iter().enumerate() {
            let is_other = self.is_other(key);
            if !is_other && !self.parked.contains(key) {
                continue;
            }
            if let Some(it) = blocked.get_mut(at) {
                *it = true;
            }
            // rules may name a row twice
            if is_other || work.keys.iter().take(at).any(|it| it == key) {
                continue;
            }
            let letter = Letter::new(event, Some(key_json(definition, key)), self.lsn, redactor);
            let failed = |it: &&Failure| it.key.and_then(|it| work.keys.get(it)) == Some(key);
            letters.push(match work.failures.iter().find(failed) {
                Some(failure) => letter.failed(definition, failure.line, said(definition, failure)),
                None => letter,
            });
        }
        Ok(blocked)
    }

    /// Whether a row does not count.
    fn is_other(&self, key: &[Value<'_>]) -> bool {
        self.only.as_ref().is_some_and(|only| only.as_ref() != key)
    }

    fn park(
        &mut self,
        definition: &Definition,
        event: &Event<'_>,
        work: &Work<'_>,
        failure: &Failure,
        (letters, redactor): (&mut Vec<Letter>, &Redactor),
    ) -> Result<(), FoldError> {
        let key = failure.key.and_then(|it| work.keys.get(it));
        if key.is_some_and(|it| self.parked.contains(it)) {
            return Ok(());
        }
        let refuse =
            |reason| Err(FoldError::new(definition, event, failure.line, failure.column, reason));
        if definition.on_error == OnError::Pause {
            return refuse(failure.reason.clone());
        }
        match key {
            Some(key) => self.parked.insert(key.iter().map(Value::to_static).collect()),
            None => {
                self.parked.keyless += 1;
                let letter = Letter::new(event, None, self.lsn, redactor);
                let said = said(definition, failure);
                letters.push(letter.failed(definition, failure.line, said));
            }
        }
        if self.limit < self.parked.len() {
            let last = failure.reason.to_string();
            return refuse(Reason::TooManyParked { limit: self.limit, last });
        }
        Ok(())
    }
}

/// What is wrong, with the column that it is about.
fn said(definition: &Definition, failure: &Failure) -> String {
    match failure.column.and_then(|it| definition.columns.get(it)) {
        Some(column) => format!("column `{}`: {}", column.name.as_str(), failure.reason),
        None => failure.reason.to_string(),
    }
}

/// The rows whose events are set aside.
#[derive(Clone, Debug, Default)]
pub(super) struct Parked {
    keys: HashTable<Box<[Value<'static>]>>,
    hasher: foldhash::fast::FixedState,
    /// Events that are set aside without a row.
    pub(super) keyless: usize,
}

impl Parked {
    /// How many rows are parked, and events set aside that have none.
    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.keyless
    }

    pub(super) fn contains(&self, key: &[Value<'_>]) -> bool {
        let hash = hash_key(&self.hasher, key);
        self.keys.find(hash, |it| it.as_ref() == key).is_some()
    }

    pub(super) fn insert(&mut self, key: Box<[Value<'static>]>) {
        if !self.contains(&key) {
            let hash = hash_key(&self.hasher, &key);
            self.keys.insert_unique(hash, key, |it| hash_key(&self.hasher, it));
        }
    }

    pub(super) fn remove(&mut self, key: &[Value<'_>]) {
        let hash = hash_key(&self.hasher, key);
        if let Ok(found) = self.keys.find_entry(hash, |it| it.as_ref() == key) {
            drop(found.remove());
        }
    }
}
