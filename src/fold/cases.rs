//! Given/expect cases: events folded into a table in memory.

use std::sync::Arc;

use crate::definition::case::{Case, Difference, compare};
use crate::definition::{Definition, Scope, Scratch};
use crate::event::Event;
use crate::fold::compose::ComposeError;
use crate::fold::memory::MemoryTable;
use crate::fold::{Fold, FoldError};
use crate::redact::Redactor;

/// Why a case has no rows to compare.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// A rule failed on one of the events.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A stored and a pending value could not be combined.
    #[error(transparent)]
    Compose(#[from] ComposeError),
}

/// Folds the given events twice, once in one batch and once event by event, and compares the rows
/// with what is expected: where the two disagree, both differences are told.
///
/// # Errors
/// When a rule fails on an event.
pub fn run(
    definition: &Definition,
    case: &Case,
    redactor: &Redactor,
) -> Result<Vec<Difference>, CaseError> {
    let definition = &Arc::new(definition.clone());
    let events: Vec<Event<'_>> = case.given.events().collect();
    let whole = rows(definition, &events, events.len().max(1), redactor)?;
    let single = rows(definition, &events, 1, redactor)?;
    let differences = compare(&case.expect, &whole);
    if differences.is_empty() {
        return Ok(compare(&case.expect, &single));
    }
    Ok(differences)
}

/// The rows that events make when they are folded in batches of `size`.
///
/// # Errors
/// When a rule fails on an event.
pub fn rows(
    definition: &Arc<Definition>,
    events: &[Event<'_>],
    size: usize,
    redactor: &Redactor,
) -> Result<Vec<serde_json::Map<String, serde_json::Value>>, CaseError> {
    let mut table = MemoryTable::new(Arc::clone(definition));
    let mut fold = Fold::new(Arc::clone(definition));
    let mut scratch = Scratch::default();
    for batch in events.chunks(size) {
        for event in batch {
            fold.event(&Scope::new(*event, &mut scratch, redactor))?;
        }
        table.apply(&fold.take(), events)?;
    }
    Ok(table.rows())
}
