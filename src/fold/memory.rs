//! A read model in memory: changes are applied to it as the database applies them to the table.
//!
//! It is what given/expect cases run on, and the yardstick of the statement that writes to Postgres.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};
use uuid::Uuid;

use crate::definition::{ColumnType, Datum, Definition, Lookup, Value, Which, time_text};
use crate::event::Event;
use crate::fold::compose::ComposeError;
use crate::fold::rows::Changes;
use crate::fold::settle::{Settler, Stored, array_literal_to_json};

/// The rows of a projection, by key.
#[derive(Debug)]
pub struct MemoryTable {
    settler: Settler,
    rows: BTreeMap<String, Stored<'static>>,
}

impl MemoryTable {
    /// An empty table.
    pub fn new(definition: Arc<Definition>) -> Self {
        Self { settler: Settler::new(definition), rows: BTreeMap::new() }
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
        self.rows.values().map(|it| self.object(it)).collect()
    }

    /// The row of a key, as in [`rows`](Self::rows).
    pub fn row(&self, key: &[Value<'_>]) -> Option<Map<String, Json>> {
        self.rows.get(&key_text(key)).map(|it| self.object(it))
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    fn object(&self, stored: &Stored<'_>) -> Map<String, Json> {
        let definition = self.settler.definition();
        let member = |at: usize| {
            let column = definition.columns.get(at)?;
            let value = stored.values.get(at)?;
            Some((column.name.as_str().to_owned(), json(&column.ty, value)))
        };
        definition.stored_columns().filter_map(member).collect()
    }

    fn apply_row(
        &mut self,
        changes: &Changes,
        row: usize,
        history: &[Event<'_>],
    ) -> Result<(), ComposeError> {
        let definition = self.settler.definition();
        let key: Vec<_> = definition
            .key_columns()
            .map(|column| changes.texts.value(changes.cell(row, column)))
            .collect();
        let key = key_text(&key);
        let run = definition.run_column().map(|it| changes.texts.value(changes.cell(row, it)));
        let look_up = |lookup: &Lookup, order| {
            let Some(Value::Uuid(run)) = run else { return None };
            let found = look_up(lookup, run, order, history)?;
            let ty = definition.columns.get(lookup.column).map(|it| &it.ty);
            let fitted = ty.and_then(|ty| ty.fit(Datum::of(&found)).ok());
            Some(fitted.map_or(Value::Null, |it| it.to_static()))
        };
        let before = self.rows.get(&key);
        let is_there = before.is_some();
        let mut row_now: Stored<'_> = before.cloned().unwrap_or_default();
        let stays = self.settler.apply(&mut row_now, is_there, (changes, row), look_up)?;
        if stays {
            let values = row_now.values.iter().map(Value::to_static).collect();
            self.rows.insert(key, Stored { values, positions: row_now.positions });
        } else {
            self.rows.remove(&key);
        }
        Ok(())
    }
}

/// What rows are found by.
fn key_text(key: &[Value<'_>]) -> String {
    format!("{key:?}")
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

/// Decimals of so many characters are exact as floats.
const DIGITS: usize = 16;

/// A column's value as JSON, as Postgres' `to_jsonb` has it up to how times and numbers are written.
pub fn json(ty: &ColumnType, value: &Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(it) => Json::Bool(*it),
        Value::Int(it) => Json::from(*it),
        Value::Float(it) => Number::from_f64(*it).map_or(Json::Null, Json::Number),
        Value::Uuid(it) => Json::String(it.to_string()),
        Value::Time(it) => Json::String(time_text(*it)),
        Value::Text(it) => {
            let parsed = match ty {
                ColumnType::Json | ColumnType::Jsonb => serde_json::from_str(it).ok(),
                // with more digits it would be another number
                ColumnType::Numeric if it.len() <= DIGITS || it.parse::<i64>().is_ok() => {
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
