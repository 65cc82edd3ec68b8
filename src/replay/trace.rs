//! One projection, event by event.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

use super::cause::causes;
use super::change::{RowChange, RowValues, between};
use super::lookups::Past;
use crate::definition::{Definition, Scope, Value};
use crate::fold::compose::ComposeError;
use crate::fold::letters::{Letter, key_json};
use crate::fold::memory::{MemoryTable, json};
use crate::fold::rows::Changes;
use crate::fold::{Fold, FoldError};

/// The rows of a projection after some events.
#[derive(Debug)]
pub(super) struct Trace {
    fold: Fold,
    table: MemoryTable,
    past: Past,
    written: Written,
    aside: SetAside,
    /// Whether each event has a row of its own.
    is_log: bool,
}

/// Rows that no later event touches: only the last are kept, so that a long run's log takes no more
/// memory than a short one's.
#[derive(Debug)]
struct Written {
    rows: VecDeque<RowValues>,
    most: usize,
    count: usize,
}

/// Events that a rule failed on, and those that waited for them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SetAside {
    /// The first of them.
    pub events: Vec<AsideEvent>,
    /// How many there are in all.
    pub count: usize,
}

/// An event that was not applied to a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AsideEvent {
    /// Its version.
    pub version: i32,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The row's key; null where no rule could tell it.
    pub key: Option<RowValues>,
    /// `file:line` of the rule that failed; empty for an event that waited.
    pub rule: String,
    /// What is wrong.
    pub error: String,
}

/// How many events that were set aside are kept.
const MOST_ASIDE: usize = 20;

/// An event could not be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceError {
    /// A rule failed.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A new value does not go with what the row holds.
    #[error("{file}: {source}")]
    Compose { file: String, source: ComposeError },
}

impl Trace {
    /// No events yet. Of rows that are never touched again, the last `most` are kept.
    pub(super) fn new(definition: &Arc<Definition>, most: usize) -> Self {
        Self {
            fold: Fold::new(Arc::clone(definition)),
            table: MemoryTable::new(Arc::clone(definition)),
            past: Past::new(definition),
            written: Written { rows: VecDeque::new(), most, count: 0 },
            aside: SetAside::default(),
            is_log: definition.is_unique_per_event(),
        }
    }

    pub(super) fn definition(&self) -> &Arc<Definition> {
        self.fold.definition()
    }

    /// The next event.
    ///
    /// # Errors
    /// When it cannot be applied; then the rows are as before.
    pub(super) fn event(&mut self, scope: &Scope<'_>) -> Result<(), TraceError> {
        let changes = self.fold(scope)?;
        self.apply(&changes)?;
        self.fold.recycle(changes);
        Ok(())
    }

    /// The next event, what it did to each row, and from which rows it was set aside.
    ///
    /// # Errors
    /// As [`event`](Self::event).
    pub(super) fn step(
        &mut self,
        scope: &Scope<'_>,
    ) -> Result<(Vec<RowChange>, Vec<AsideEvent>), TraceError> {
        let changes = self.fold(scope)?;
        let definition = Arc::clone(self.definition());
        let keys = keys(&definition, &changes);
        let before: Vec<_> = keys.iter().map(|key| self.table.row(key)).collect();
        self.settle(&changes)?;
        let mut steps = Vec::with_capacity(keys.len());
        for (key, before) in keys.iter().zip(before) {
            let after = self.table.row(key);
            let causes = causes(&definition, scope, key);
            let named = named(&definition, key);
            steps.push(between(&definition, named, (before.as_ref(), after.as_ref()), &causes));
        }
        drop(keys);
        self.put_away();
        let aside = changes.letters.iter().map(AsideEvent::of).collect();
        self.fold.recycle(changes);
        Ok((steps, aside))
    }

    /// What the next event does to the row of `key`, if it names it. Other rows are not followed.
    ///
    /// # Errors
    /// As [`event`](Self::event).
    pub(super) fn touch(
        &mut self,
        scope: &Scope<'_>,
        key: &[Value<'_>],
    ) -> Result<Touched, TraceError> {
        let changes = self.fold(scope)?;
        let definition = Arc::clone(self.definition());
        if !changes.letters.is_empty() {
            let name = key_json(&definition, key);
            let letter = changes.letters.iter().find(|it| it.key.as_ref() == Some(&name));
            if let Some(letter) = letter {
                return Ok(Touched::SetAside(AsideEvent::of(letter)));
            }
        }
        let is_named = keys(&definition, &changes).iter().any(|it| it == key);
        let mut touched = Touched::Not;
        if is_named {
            let before = self.table.row(key);
            self.settle(&changes)?;
            let after = self.table.row(key);
            let causes = causes(&definition, scope, key);
            let named = named(&definition, key);
            let change = between(&definition, named, (before.as_ref(), after.as_ref()), &causes);
            touched = Touched::Changed(change);
        }
        self.fold.recycle(changes);
        Ok(touched)
    }

    /// What was set aside.
    pub(super) fn aside(&self) -> &SetAside {
        &self.aside
    }

    /// The row of a key.
    pub(super) fn row(&self, key: &[Value<'_>]) -> Option<RowValues> {
        self.table.row(key)
    }

    /// The rows, in the order of their keys, and how many there are in all.
    pub(super) fn rows(&self, most: usize) -> (Vec<RowValues>, usize) {
        if self.is_log {
            return (self.written.rows.iter().cloned().collect(), self.written.count);
        }
        let mut rows = self.table.rows();
        let definition = self.definition();
        let names: Vec<_> = definition
            .key_columns()
            .filter_map(|it| definition.columns.get(it))
            .map(|it| it.name.as_str())
            .collect();
        rows.sort_by(|a, b| by_key(&names, a, b));
        let count = rows.len();
        rows.drain(..count.saturating_sub(most));
        (rows, count)
    }

    fn fold(&mut self, scope: &Scope<'_>) -> Result<Changes, TraceError> {
        let definition = Arc::clone(self.definition());
        self.past.event(&definition, scope.event());
        match self.fold.event(scope) {
            Ok(()) => {
                let changes = self.fold.take();
                self.aside.count += changes.letters.len();
                let room = MOST_ASIDE.saturating_sub(self.aside.events.len());
                self.aside.events.extend(changes.letters.iter().take(room).map(AsideEvent::of));
                Ok(changes)
            }
            Err(error) => {
                // what was folded before the rule failed
                drop(self.fold.take());
                Err(error.into())
            }
        }
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), TraceError> {
        self.settle(changes)?;
        self.put_away();
        Ok(())
    }

    fn settle(&mut self, changes: &Changes) -> Result<(), TraceError> {
        self.table.apply(changes, &self.past.events()).map_err(|source| TraceError::Compose {
            file: self.fold.definition().file.display().to_string(),
            source,
        })
    }

    /// Moves rows that are final out of the table.
    fn put_away(&mut self) {
        if !self.is_log || self.table.is_empty() {
            return;
        }
        let Written { rows, most, count } = &mut self.written;
        for row in self.table.rows() {
            *count += 1;
            rows.push_back(row);
            if *most < rows.len() {
                rows.pop_front();
            }
        }
        self.table.clear();
    }
}

/// What an event did to one row.
#[derive(Debug)]
pub(super) enum Touched {
    /// It did not name the row.
    Not,
    /// It named the row.
    Changed(RowChange),
    /// It named the row, and was not applied.
    SetAside(AsideEvent),
}

impl AsideEvent {
    fn of(letter: &Letter) -> Self {
        Self {
            version: letter.version,
            kind: letter.kind.clone(),
            // what was written as an object is one
            key: letter.key.as_deref().and_then(|it| serde_json::from_str(it).ok()),
            rule: letter.rule.clone(),
            error: letter.error.clone(),
        }
    }
}

/// The keys of pending rows, each once.
fn keys<'a>(definition: &Definition, changes: &'a Changes) -> Vec<Vec<Value<'a>>> {
    let mut keys: Vec<Vec<Value<'a>>> = Vec::new();
    for row in 0..changes.rows.len() {
        let cells = definition.key_columns().map(|column| changes.cell(row, column));
        let key: Vec<_> = cells.map(|cell| changes.texts.value(cell)).collect();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// A key's columns by name.
pub(super) fn named(definition: &Definition, key: &[Value<'_>]) -> RowValues {
    let columns = definition.key_columns().filter_map(|it| definition.columns.get(it));
    let pairs = columns.zip(key);
    pairs
        .map(|(column, value)| (column.name.as_str().to_owned(), json(&column.ty, value)))
        .collect()
}

/// Numbers by value, all else by its text.
fn by_key(names: &[&str], a: &RowValues, b: &RowValues) -> std::cmp::Ordering {
    let order = names.iter().map(|name| {
        let (a, b) = (a.get(*name), b.get(*name));
        let number = |it: Option<&serde_json::Value>| it.and_then(serde_json::Value::as_f64);
        match (number(a), number(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => a.map(ToString::to_string).cmp(&b.map(ToString::to_string)),
        }
    });
    order.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}
