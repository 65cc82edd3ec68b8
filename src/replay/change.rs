//! What an event did to a row, column by column.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::cause::Causes;
use crate::definition::Definition;

/// A row's columns by name.
pub type RowValues = Map<String, Json>;

/// What one event did to one row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowChange {
    /// The projection.
    pub projection: String,
    /// The row's key.
    pub key: RowValues,
    /// What became of the row.
    pub change: Kind,
    /// The columns that are not as before, in the definition's order.
    pub columns: Vec<ColumnChange>,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It was not there before.
    Added,
    /// It was there, and is.
    Changed,
    /// It is not there any more.
    Removed,
    /// Rules wrote it, and all is as before.
    Untouched,
    /// A rule failed on the event, or on one of the row's before it: the row waits.
    SetAside,
}

/// A column before and after an event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnChange {
    /// Its name.
    pub column: String,
    /// Null where there was no row, too.
    pub before: Json,
    /// Null where there is no row any more, too.
    pub after: Json,
    /// What wrote it: `file:line` of rules, `[lookup]`, `[epoch]`, `default` or `key`.
    pub by: Vec<String>,
}

/// The difference of two states of a row.
pub(super) fn between(
    definition: &Definition,
    key: RowValues,
    (before, after): (Option<&RowValues>, Option<&RowValues>),
    causes: &Causes,
) -> RowChange {
    let value = |row: Option<&RowValues>, name: &str| {
        row.and_then(|it| it.get(name)).cloned().unwrap_or_default()
    };
    let mut columns = Vec::new();
    for at in definition.stored_columns() {
        let Some(column) = definition.columns.get(at) else { continue };
        let name = column.name.as_str();
        let (before, after) = (value(before, name), value(after, name));
        if before != after {
            let by = by(definition, at, (&before, &after), causes);
            columns.push(ColumnChange { column: name.to_owned(), before, after, by });
        }
    }
    let change = match (before, after) {
        (None, Some(_)) => Kind::Added,
        (Some(_), None) => Kind::Removed,
        _ if columns.is_empty() => Kind::Untouched,
        _ => Kind::Changed,
    };
    RowChange { projection: definition.name.clone(), key, change, columns }
}

/// What wrote a column.
fn by(
    definition: &Definition,
    column: usize,
    (before, after): (&Json, &Json),
    causes: &Causes,
) -> Vec<String> {
    let file = definition.file.display();
    let place = |line: usize| format!("{file}:{line}");
    let mut by: Vec<_> = causes.of(column).map(place).collect();
    if after.is_null() && by.is_empty() {
        by.extend(causes.of_removal().map(place));
    }
    if !by.is_empty() {
        return by;
    }
    let ranked = definition.epoch.as_ref();
    let other = if definition.key_columns().any(|it| it == column) {
        "key"
    } else if definition.lookups.iter().any(|it| it.column == column) {
        "[lookup]"
    } else if ranked.is_some_and(|it| it.column == column) || !before.is_null() {
        "[epoch]"
    } else {
        "default"
    };
    vec![other.to_owned()]
}
