//! How a change meets a row: what the statement that writes to Postgres does, in memory.
//!
//! A table in memory applies changes to the rows it holds. A build from history, which sees all events
//! of a row at once, applies them to nothing and has the row as it will be stored.

use std::sync::Arc;

use crate::definition::{ColumnType, Datum, Definition, Lookup, Op, Order, Value};
use crate::fold::cell::Texts;
use crate::fold::compose::{ComposeError, Meaning, compose};
use crate::fold::rows::{Changes, Row, bit};

/// Applies the changes of one definition.
#[derive(Debug)]
pub struct Settler {
    definition: Arc<Definition>,
    columns: Vec<Plan>,
}

/// What is worked out once of a column.
#[derive(Debug)]
struct Plan {
    role: Role,
    /// What a new row has; null for a default that only Postgres can compute.
    default: Value<'static>,
    /// Whether it survives a new epoch.
    outlives: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Key,
    /// What rules write; `delta` is how a value that is not set meets the row's.
    Written {
        delta: Option<Op>,
    },
    /// The highest position wins, or the lowest.
    ByPosition {
        first: bool,
    },
    /// The epoch's rank, what lookups fill, and what Postgres computes.
    Other,
}

/// A row: a value for each column of the definition.
#[derive(Clone, Debug, Default)]
pub struct Stored<'a> {
    /// The values.
    pub values: Vec<Value<'a>>,
    /// Where order is `position`: that of the event that wrote each column, or 0.
    pub positions: Vec<i64>,
}

impl Settler {
    /// For a definition.
    pub fn new(definition: Arc<Definition>) -> Self {
        let keys: Vec<_> = definition.key_columns().collect();
        let written: Vec<_> = definition.written_columns().collect();
        let plan = |(at, column): (usize, &crate::definition::Column)| {
            let ops = definition.ops_of(at);
            let role = if keys.contains(&at) {
                Role::Key
            } else if !written.contains(&at) {
                Role::Other
            } else if definition.order == Order::Position
                && ops.iter().any(|op| op.is_order_sensitive())
            {
                Role::ByPosition { first: ops.contains(&Op::SetOnce) }
            } else {
                Role::Written { delta: ops.into_iter().find(|op| *op != Op::Set) }
            };
            let default = column.default_value.as_ref();
            let default = default.and_then(|it| column.ty.fit(Datum::of(it)).ok());
            let outlives = definition.epoch.as_ref().is_some_and(|it| it.keeps(at));
            Plan { role, default: default.map_or(Value::Null, |it| it.to_static()), outlives }
        };
        let columns = definition.columns.iter().enumerate().map(plan).collect();
        Self { definition, columns }
    }

    /// The definition.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// Applies the `row`-th change to `stored`, which holds the row if it `is_there` already. Returns
    /// whether it is there afterwards. `look_up` finds what a lookup has for a row of this order.
    ///
    /// # Errors
    /// When a stored and a pending value cannot be combined; the row is worth nothing then.
    pub fn apply<'a>(
        &self,
        stored: &mut Stored<'a>,
        is_there: bool,
        (changes, row): (&'a Changes, usize),
        mut look_up: impl FnMut(&Lookup, i64) -> Option<Value<'a>>,
    ) -> Result<bool, ComposeError> {
        let Some(facts) = changes.rows.get(row) else { return Ok(is_there) };
        if facts.deleted {
            return Ok(false);
        }
        if !is_there || facts.replaced {
            self.clear(stored);
        }
        let is_stale = self.enter_epoch(stored, facts);
        for (at, plan) in self.columns.iter().enumerate() {
            if is_stale && !plan.outlives && plan.role != Role::Key {
                continue;
            }
            self.column(stored, plan, at, (changes, row))?;
        }
        for lookup in &self.definition.lookups {
            if let Some(found) = look_up(lookup, facts.order)
                && let Some(to) = stored.values.get_mut(lookup.column)
            {
                *to = found;
            }
        }
        Ok(true)
    }

    /// A row of defaults.
    fn clear(&self, stored: &mut Stored<'_>) {
        stored.values.clear();
        stored.values.extend(self.columns.iter().map(|it| it.default.clone()));
        stored.positions.clear();
        if self.definition.order == Order::Position {
            stored.positions.resize(self.columns.len(), 0);
        }
    }

    /// Whether the change is of an epoch that the row has left behind.
    fn enter_epoch(&self, stored: &mut Stored<'_>, facts: &Row) -> bool {
        let Some(epoch) = &self.definition.epoch else { return false };
        let known = match stored.values.get(epoch.column) {
            Some(Value::Int(it)) => Some(*it),
            _ => None,
        };
        let Some(rank) = facts.epoch.map(i64::from) else { return false };
        if known.is_some_and(|it| rank < it) {
            return true;
        }
        if known.is_some_and(|it| it < rank) {
            for (to, plan) in stored.values.iter_mut().zip(&self.columns) {
                if !plan.outlives {
                    *to = plan.default.clone();
                }
            }
        }
        if let Some(to) = stored.values.get_mut(epoch.column) {
            *to = Value::Int(rank);
        }
        false
    }

    fn column<'a>(
        &self,
        stored: &mut Stored<'a>,
        plan: &Plan,
        at: usize,
        (changes, row): (&'a Changes, usize),
    ) -> Result<(), ComposeError> {
        let (Some(to), Some(facts)) = (stored.values.get_mut(at), changes.rows.get(row)) else {
            return Ok(());
        };
        let pending = || changes.texts.value(changes.cell(row, at));
        match plan.role {
            Role::Other => {}
            Role::Key => *to = pending(),
            Role::ByPosition { first } => {
                let position = changes.positions.get(row * changes.stride + at).copied();
                let (Some(known), Some(position)) = (stored.positions.get_mut(at), position) else {
                    return Ok(());
                };
                let wins =
                    if first { *known == 0 || position < *known } else { *known <= position };
                if position != 0 && wins {
                    *to = pending();
                    *known = position;
                }
            }
            Role::Written { .. } if facts.set & bit(at) != 0 => *to = pending(),
            Role::Written { delta: Some(op) } if facts.delta & bit(at) != 0 => {
                let Some(ty) = self.definition.columns.get(at).map(|it| &it.ty) else {
                    return Ok(());
                };
                *to = combine((op, ty), to, pending())?;
            }
            Role::Written { .. } => {}
        }
        Ok(())
    }
}

/// Puts a stored value and a delta together.
fn combine<'a>(
    (op, ty): (Op, &ColumnType),
    stored: &Value<'a>,
    pending: Value<'a>,
) -> Result<Value<'a>, ComposeError> {
    if op != Op::Append && matches!(stored, Value::Null) {
        return Ok(pending);
    }
    let mut texts = Texts::default();
    let mut cell = (Meaning::Set, texts.store(stored)?);
    let values = match op {
        // a list of elements goes in one by one
        Op::Append => elements(&pending, ty),
        _ => vec![pending],
    };
    for value in values {
        cell = compose(&mut texts, (op, ty), cell, &value)?;
    }
    Ok(texts.value(cell.1).to_static())
}

/// The elements of an array in the text form of its column.
fn elements(list: &Value<'_>, ty: &ColumnType) -> Vec<Value<'static>> {
    let Value::Text(text) = list else { return Vec::new() };
    let array = match ty.element() {
        None => text.to_string(),
        Some(_) => array_literal_to_json(text),
    };
    let elements: Vec<serde_json::Value> = serde_json::from_str(&array).unwrap_or_default();
    elements
        .into_iter()
        .map(|element| match (&element, ty.element()) {
            (serde_json::Value::String(it), Some(_)) => Value::Text(it.clone().into()),
            _ => Value::Text(element.to_string().into()),
        })
        .collect()
}

/// A Postgres array whose elements are quoted, as the fold writes them, is a JSON array but for its
/// braces.
pub(super) fn array_literal_to_json(text: &str) -> String {
    let inner = text.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap_or(text);
    format!("[{inner}]")
}
