//! A read model in memory: changes are applied to it as the database applies them to the table.
//!
//! It is what given/expect cases run on, and the yardstick of the statement that writes to Postgres.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};
use uuid::Uuid;

use crate::definition::{
    ColumnType, Datum, Definition, Lookup, Op, Order, Value, Which, time_text,
};
use crate::event::Event;
use crate::fold::cell::Texts;
use crate::fold::compose::{ComposeError, Meaning, compose};
use crate::fold::rows::{Changes, bit};

/// The rows of a projection, by key.
#[derive(Debug)]
pub struct MemoryTable {
    definition: Arc<Definition>,
    rows: BTreeMap<String, Stored>,
}

#[derive(Clone, Debug)]
struct Stored {
    values: Vec<Value<'static>>,
    positions: Vec<i64>,
}

impl MemoryTable {
    /// An empty table.
    pub fn new(definition: Arc<Definition>) -> Self {
        Self { definition, rows: BTreeMap::new() }
    }

    /// Applies pending rows; `history` is where lookups read.
    ///
    /// # Errors
    /// When a stored and a pending value cannot be combined.
    pub fn apply(&mut self, changes: &Changes, history: &[Event<'_>]) -> Result<(), ComposeError> {
        for pass in 0..changes.passes {
            for row in changes.pass(pass) {
                self.apply_row(changes, row, history)?;
            }
        }
        Ok(())
    }

    /// The rows as JSON objects, ordered by key. Columns that Postgres computes are left out.
    pub fn rows(&self) -> Vec<Map<String, Json>> {
        let row = |stored: &Stored| {
            self.definition
                .stored_columns()
                .filter_map(|at| {
                    let column = self.definition.columns.get(at)?;
                    let value = stored.values.get(at)?;
                    Some((column.name.as_str().to_owned(), json(&column.ty, value)))
                })
                .collect()
        };
        self.rows.values().map(row).collect()
    }

    fn apply_row(
        &mut self,
        changes: &Changes,
        row: usize,
        history: &[Event<'_>],
    ) -> Result<(), ComposeError> {
        let Some(facts) = changes.rows.get(row) else { return Ok(()) };
        let definition = Arc::clone(&self.definition);
        let key: Vec<_> = definition
            .key_columns()
            .map(|column| changes.texts.value(changes.cell(row, column)))
            .collect();
        let key = format!("{key:?}");
        if facts.deleted {
            self.rows.remove(&key);
            return Ok(());
        }
        let before = self.rows.get(&key).cloned();
        let kept = before.clone().filter(|_| !facts.replaced);
        let mut after = kept.clone().unwrap_or_else(|| self.fresh_row());
        let mut stale = false;
        if let Some(epoch) = &definition.epoch {
            let stored = match after.values.get(epoch.column) {
                Some(Value::Int(it)) => Some(*it),
                _ => None,
            };
            let rank = facts.epoch.map(i64::from);
            stale = rank.is_some() && rank < stored;
            if stored.is_some() && stored < rank {
                let fresh = self.fresh_row();
                for column in 0..definition.columns.len() {
                    let (Some(to), Some(from)) =
                        (after.values.get_mut(column), fresh.values.get(column))
                    else {
                        continue;
                    };
                    if !epoch.keeps(column) {
                        *to = from.clone();
                    }
                }
            }
            if let (Some(to), Some(rank)) = (after.values.get_mut(epoch.column), rank)
                && !stale
            {
                *to = Value::Int(rank);
            }
        }
        for column in definition.written_columns() {
            let kept = definition.epoch.as_ref().is_some_and(|it| it.keeps(column));
            let is_key = definition.key_columns().any(|it| it == column);
            if !stale || kept || is_key {
                apply_column(&definition, changes, (row, column), &mut after)?;
            }
        }
        for lookup in &definition.lookups {
            let run = definition.run_column().map(|it| changes.texts.value(changes.cell(row, it)));
            let (Some(Value::Uuid(run)), Some(to)) = (run, after.values.get_mut(lookup.column))
            else {
                continue;
            };
            if let Some(found) = look_up(lookup, run, facts.order, history) {
                let ty = definition.columns.get(lookup.column).map(|it| &it.ty);
                let fitted = ty.and_then(|ty| ty.fit(datum(&found)).ok());
                *to = fitted.map_or(Value::Null, owned);
            }
        }
        self.rows.insert(key, after);
        Ok(())
    }

    /// A row of defaults. A default that is an expression is null here.
    fn fresh_row(&self) -> Stored {
        let default = |column: &crate::definition::Column| {
            let default = column.default_value.as_ref();
            default.map_or(Value::Null, |it| column.ty.fit(datum(it)).map_or(Value::Null, owned))
        };
        Stored {
            values: self.definition.columns.iter().map(default).collect(),
            positions: vec![0; self.definition.columns.len()],
        }
    }
}

fn apply_column(
    definition: &Definition,
    changes: &Changes,
    (row, column): (usize, usize),
    after: &mut Stored,
) -> Result<(), ComposeError> {
    let Some(facts) = changes.rows.get(row) else { return Ok(()) };
    let (Some(to), Some(ty)) =
        (after.values.get_mut(column), definition.columns.get(column).map(|it| &it.ty))
    else {
        return Ok(());
    };
    let pending = changes.texts.value(changes.cell(row, column));
    if definition.key_columns().any(|it| it == column) {
        *to = owned(pending);
        return Ok(());
    }
    let ops = definition.ops_of(column);
    if definition.order == Order::Position && ops.iter().any(|op| op.is_order_sensitive()) {
        let Some(known) = after.positions.get_mut(column) else { return Ok(()) };
        let position = changes.positions.get(row * changes.stride + column).copied().unwrap_or(0);
        let wins = match ops.contains(&Op::SetOnce) {
            true => *known == 0 || position < *known,
            false => *known <= position,
        };
        if position != 0 && wins {
            *to = owned(pending);
            *known = position;
        }
        return Ok(());
    }
    let bit = bit(column);
    if facts.set & bit != 0 {
        *to = owned(pending);
    } else if facts.delta & bit != 0
        && let Some(op) = ops.into_iter().find(|op| *op != Op::Set)
    {
        let mut texts = Texts::default();
        let stored = texts.store(to)?;
        let values = match op {
            // a list of elements goes in one by one
            Op::Append => elements(&pending, ty),
            _ => vec![owned(pending)],
        };
        let mut cell = (Meaning::Set, stored);
        for value in values {
            cell = compose(&mut texts, (op, ty), cell, &value)?;
        }
        *to = owned(texts.value(cell.1));
    }
    Ok(())
}

/// The elements of an array in the text form of its column.
fn elements(list: &Value<'_>, ty: &ColumnType) -> Vec<Value<'static>> {
    let Value::Text(text) = list else { return Vec::new() };
    let array = match ty.element() {
        None => text.to_string(),
        Some(_) => array_literal_to_json(text),
    };
    let elements: Vec<Json> = serde_json::from_str(&array).unwrap_or_default();
    elements
        .into_iter()
        .map(|element| match (&element, ty.element()) {
            (Json::String(it), Some(_)) => Value::Text(it.clone().into()),
            _ => Value::Text(element.to_string().into()),
        })
        .collect()
}

/// A Postgres array whose elements are quoted, as the fold writes them, is a JSON array but for its
/// braces.
fn array_literal_to_json(text: &str) -> String {
    let inner = text.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap_or(text);
    format!("[{inner}]")
}

fn datum(json: &Json) -> Datum<'_> {
    match json {
        Json::Null => Datum::Null,
        Json::Bool(it) => Datum::Bool(*it),
        Json::Number(it) => Datum::Number(it.to_string().into()),
        Json::String(it) => Datum::Text(it.as_str().into()),
        it => Datum::Json(it.to_string().into()),
    }
}

fn look_up(lookup: &Lookup, run: Uuid, order: i64, history: &[Event<'_>]) -> Option<Json> {
    let mut events: Vec<_> =
        history.iter().filter(|it| it.run_id == run && i64::from(it.version) <= order).collect();
    events.sort_by_key(|it| it.version);
    let value = |event: &&Event<'_>| {
        let payload: Json = serde_json::from_str(event.payload).ok()?;
        let found = lookup.path.iter().try_fold(&payload, |at, key| at.get(key))?;
        (!found.is_null()).then(|| found.clone())
    };
    match lookup.which {
        Which::First => events.iter().find_map(value),
        Which::Last => events.iter().rev().find_map(value),
    }
}

fn owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Bool(it) => Value::Bool(it),
        Value::Int(it) => Value::Int(it),
        Value::Float(it) => Value::Float(it),
        Value::Text(it) => Value::Text(it.into_owned().into()),
        Value::Uuid(it) => Value::Uuid(it),
        Value::Time(it) => Value::Time(it),
    }
}

fn json(ty: &ColumnType, value: &Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(it) => Json::Bool(*it),
        Value::Int(it) => Json::from(*it),
        Value::Float(it) => Number::from_f64(*it).map_or(Json::Null, Json::Number),
        Value::Uuid(it) => Json::String(it.to_string()),
        Value::Time(it) => Json::String(time_text(*it)),
        Value::Text(it) => {
            let parsed = match ty {
                ColumnType::Json | ColumnType::Jsonb | ColumnType::Numeric => {
                    serde_json::from_str(it).ok()
                }
                _ if ty.element().is_some() => {
                    serde_json::from_str(&array_literal_to_json(it)).ok()
                }
                _ => None,
            };
            parsed.unwrap_or_else(|| Json::String(it.to_string()))
        }
    }
}
