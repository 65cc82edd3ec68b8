//! Given/expect cases: events folded into a table in memory.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::definition::case::{Case, Difference, compare};
use crate::definition::{Definition, Scope, Scratch};
use crate::event::Event;
use crate::fold::compose::ComposeError;
use crate::fold::letters::Letter;
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
    /// An event was set aside, and the case does not expect that.
    #[error(
        "event {} (type `{}`) is set aside: {}: {}; a case that means this says so: set_aside = […]",
        .0.version, .0.kind, .0.rule, .0.error
    )]
    SetAside(Box<Letter>),
}

/// What the events of a case come to.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    rows: Vec<Map<String, Json>>,
    letters: Vec<Letter>,
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
    let whole = outcome(definition, &events, events.len().max(1), redactor)?;
    let single = outcome(definition, &events, 1, redactor)?;
    let differences = differences(case, whole)?;
    if differences.is_empty() { self::differences(case, single) } else { Ok(differences) }
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
) -> Result<Vec<Map<String, Json>>, CaseError> {
    let Outcome { rows, mut letters } = outcome(definition, events, size, redactor)?;
    if letters.is_empty() { Ok(rows) } else { Err(CaseError::SetAside(letters.remove(0).into())) }
}

/// Holds rows, and the errors of events that failed, against what the case says.
fn differences(case: &Case, outcome: Outcome) -> Result<Vec<Difference>, CaseError> {
    let mut failed = outcome.letters.into_iter().filter(|it| it.is_tried);
    let mut differences = compare(&case.expect, &outcome.rows);
    for expected in &case.set_aside {
        let found = failed.next().map(|it| format!("{}: {}", it.kind, it.error));
        if !found.as_ref().is_some_and(|it| it.contains(expected.as_str())) {
            differences.push(Difference::SetAside { expected: expected.clone(), found });
        }
    }
    failed.next().map_or(Ok(differences), |more| Err(CaseError::SetAside(more.into())))
}

fn outcome(
    definition: &Arc<Definition>,
    events: &[Event<'_>],
    size: usize,
    redactor: &Redactor,
) -> Result<Outcome, CaseError> {
    let mut table = MemoryTable::new(Arc::clone(definition));
    let mut fold = Fold::new(Arc::clone(definition));
    let mut letters = Vec::new();
    let mut scratch = Scratch::default();
    for batch in events.chunks(size) {
        for event in batch {
            fold.event(&Scope::new(*event, &mut scratch, redactor))?;
        }
        let mut changes = fold.take();
        letters.append(&mut changes.letters);
        table.apply(&changes, events)?;
    }
    Ok(Outcome { rows: table.rows(), letters })
}
