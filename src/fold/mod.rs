//! What a batch of events does to the rows of a projection: one change a row. Pure.
//!
//! * `cell`: a column's pending value · `rows`: pending rows, found by their key
//! * `compose`: how one more operation changes a column
//! * this file: from an event, by the rules, to operations
//! * `memory`: changes applied to a table in memory, as the database applies them
//! * `cases`: given/expect cases run on that table
//!
//! Folding a batch needs nothing that is stored. Where two events of a row cannot be put together
//! without knowing it (an attempt ends and the next begins), the row gets a second change in a later
//! *pass*. So any split of the same events into batches gives the same rows.

pub mod cell;
pub mod rows;
pub mod compose;
pub mod memory;
pub mod cases;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::definition::{
    ColumnType, Definition, EvalError, EventMatch, Items, KeyPart, Misfit, Op, Operation, Order,
    Rule, Scope, Value,
};
use crate::event::Event;
use crate::fold::cell::{Cell, Kind, TooMuchText};
use crate::fold::compose::{ComposeError, Meaning, compose};
use crate::fold::rows::{Changes, KeyIndex, Row, bit, hash_key};

/// Folds events into the pending rows of one projection.
#[derive(Debug)]
pub struct Fold {
    definition: Arc<Definition>,
    plan: Plan,
    pending: Pending,
}

/// What has been folded and not been taken.
#[derive(Debug)]
struct Pending {
    changes: Changes,
    /// Memory of rows that have been written.
    spare: Option<Changes>,
    index: KeyIndex,
    hasher: foldhash::fast::FixedState,
}

/// What is worked out once from a definition.
#[derive(Debug)]
struct Plan {
    /// The rules of each event type that a rule names.
    named: HashMap<Box<str>, Box<[usize]>>,
    /// The rules of all other events.
    any: Box<[usize]>,
    key_columns: Vec<usize>,
    /// Per column, whether a position is kept with its cell.
    ordered: Vec<bool>,
    /// Whether two events, or two elements of one, may touch the same row.
    rows_meet: bool,
}

/// A rule could not be applied to an event. Nothing of the event has been folded into the row that
/// it failed on beyond the operations before it: the caller drops the fold.
#[derive(Debug)]
pub struct FoldError {
    /// The projection.
    pub projection: String,
    /// The line of the rule, or of the operation in it.
    pub line: usize,
    /// The column, where one was being written.
    pub column: Option<String>,
    /// The event, as `run/version`.
    pub event: String,
    /// Its type.
    pub kind: String,
    /// Its position.
    pub position: i64,
    /// The file of the definition.
    pub file: String,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with an event in the eyes of a rule.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The expression failed.
    #[error(transparent)]
    Expression(#[from] EvalError),
    /// The value does not fit the column.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The value cannot be combined with what is there.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// A part of the key is null.
    #[error("the key is null: the event does not say which row it means")]
    NullKey,
}

impl From<TooMuchText> for Reason {
    fn from(error: TooMuchText) -> Self {
        Self::Compose(error.into())
    }
}

impl fmt::Display for FoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, event, kind, position, reason, .. } = self;
        write!(f, "{file}:{line}: ")?;
        if let Some(column) = &self.column {
            write!(f, "column `{column}`: ")?;
        }
        write!(f, "{reason} (event {event}, type `{kind}`, position {position})")
    }
}

impl std::error::Error for FoldError {}

/// Memory below this is always kept …
const KEPT_BYTES: usize = 1024 * 1024;
/// … and above it only while at least this part of it was used.
const KEPT_PART: usize = 4;

type Key<'a> = SmallVec<[Value<'a>; 4]>;

impl Fold {
    /// An empty fold.
    pub fn new(definition: Arc<Definition>) -> Self {
        let plan = Plan::new(&definition);
        let kinds = definition.columns.iter().map(|it| Kind::of(&it.ty)).collect();
        let changes = Changes::new(kinds, 0);
        let hasher = foldhash::fast::FixedState::default();
        let pending = Pending { changes, spare: None, index: KeyIndex::default(), hasher };
        Self { definition, plan, pending }
    }

    /// The definition that it folds by.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// What has been folded since the last [`take`](Self::take).
    pub fn changes(&self) -> &Changes {
        &self.pending.changes
    }

    /// Gives away what has been folded and starts anew.
    pub fn take(&mut self) -> Changes {
        let Pending { changes, spare, index, .. } = &mut self.pending;
        index.clear();
        let next = spare.take().unwrap_or_else(|| changes.emptied());
        std::mem::replace(changes, next)
    }

    /// Takes back the memory of rows that have been written. Two sets of it go to and fro, and their
    /// pages stay warm; what was needed once and is not any more is given up.
    pub fn recycle(&mut self, mut written: Changes) {
        let used = written.bytes();
        written.clear();
        if written.capacity_bytes() <= KEPT_BYTES.max(KEPT_PART * used) {
            self.pending.spare = Some(written);
        }
    }

    /// Folds one event.
    ///
    /// # Errors
    /// When a rule cannot be applied to it.
    pub fn event(&mut self, scope: &Scope<'_>) -> Result<(), FoldError> {
        let Self { definition, plan, pending } = self;
        let rules = plan.named.get(scope.event().kind).unwrap_or(&plan.any);
        pending.changes.events += 1;
        // rules without a key of their own share the table's, and with it the row
        let mut shared = None;
        for rule in rules.iter().filter_map(|&at| definition.rules.get(at)) {
            let explain = |line: usize, column: Option<usize>, reason: Reason| {
                failure(definition, scope.event(), line, column, reason)
            };
            if let Some(when) = &rule.when {
                let datum =
                    when.evaluate(scope).map_err(|it| explain(rule.line, None, it.into()))?;
                if !datum.is_truthy() {
                    continue;
                }
            }
            let Some(foreach) = &rule.foreach else {
                pending.rule((definition, plan), rule, scope, &mut shared)?;
                continue;
            };
            let items = foreach
                .evaluate(scope)
                .and_then(Items::new)
                .map_err(|it| explain(rule.line, None, it.into()))?;
            for (number, item) in items.iter().enumerate() {
                let scope = scope.with_item(item, number);
                pending.rule((definition, plan), rule, &scope, &mut None)?;
            }
        }
        Ok(())
    }
}

impl Pending {
    fn rule(
        &mut self,
        (definition, plan): (&Definition, &Plan),
        rule: &Rule,
        scope: &Scope<'_>,
        shared: &mut Option<usize>,
    ) -> Result<(), FoldError> {
        let explain = |line: usize, column: Option<usize>, reason: Reason| {
            failure(definition, scope.event(), line, column, reason)
        };
        let epoch =
            rank(definition, scope).map_err(|(column, it)| explain(rule.line, Some(column), it))?;
        let (row, own_key) = match (&rule.key, *shared) {
            (None, Some(row)) => (row, false),
            (key, _) => {
                let parts = key.as_ref().unwrap_or(&definition.key);
                let key = evaluate_key(definition, parts, scope)
                    .map_err(|(column, reason)| explain(rule.line, Some(column), reason))?;
                let row = self
                    .row((definition, plan), &key, scope.event(), epoch)
                    .map_err(|it| explain(rule.line, None, it))?;
                (row, rule.key.is_some() || rule.foreach.is_some())
            }
        };
        if !own_key {
            *shared = Some(row);
        }
        if rule.delete {
            self.delete(plan, row);
            return Ok(());
        }
        if let Some(row) = self.changes.rows.get_mut(row) {
            row.deleted = false;
        }
        for operation in &rule.operations {
            self.operation((definition, plan), row, operation, scope)
                .map_err(|reason| explain(operation.line, Some(operation.column), reason))?;
        }
        Ok(())
    }

    /// The pending row of a key: the one there is, or a new one where there is none or where the
    /// event's epoch is not the row's.
    fn row(
        &mut self,
        (definition, plan): (&Definition, &Plan),
        key: &[Value<'_>],
        event: &Event<'_>,
        epoch: Option<i32>,
    ) -> Result<usize, Reason> {
        let hash = if plan.rows_meet { hash_key(&self.hasher, key) } else { 0 };
        let order = match definition.order {
            Order::Position => event.position,
            Order::Version | Order::Unordered => i64::from(event.version),
        };
        let known = match plan.rows_meet {
            true => self.index.find(hash, &self.changes, &plan.key_columns, key),
            false => None,
        };
        let mut pass = 0;
        if let Some(known) = known
            && let Some(row) = self.changes.rows.get_mut(known)
        {
            if row.epoch == epoch {
                row.order = row.order.max(order);
                return Ok(known);
            }
            pass = row.pass + 1;
        }
        let with_positions = definition.order == Order::Position;
        let at = self.changes.open(Row::new(order, epoch, pass), with_positions);
        for (&column, value) in plan.key_columns.iter().zip(key) {
            let cell = self.changes.texts.store(value)?;
            self.changes.put(at, column, cell);
        }
        let number = u32::try_from(at).map_err(|_| TooMuchText)?;
        match known {
            _ if !plan.rows_meet => {}
            Some(known) => {
                let known = u32::try_from(known).map_err(|_| TooMuchText)?;
                self.index.replace(hash, known, number);
            }
            None => {
                let Self { index, changes, hasher, .. } = self;
                index.insert(hash, number, |row| {
                    changes.hash_of(hasher, row as usize, &plan.key_columns)
                });
            }
        }
        Ok(at)
    }

    fn delete(&mut self, plan: &Plan, row: usize) {
        let Some(facts) = self.changes.rows.get_mut(row) else { return };
        facts.deleted = true;
        facts.replaced = true;
        facts.set = 0;
        facts.delta = 0;
        for column in 0..self.changes.stride {
            if !plan.key_columns.contains(&column) {
                self.changes.put(row, column, Cell::Null);
                if let Some(at) = self.changes.positions.get_mut(row * self.changes.stride + column)
                {
                    *at = 0;
                }
            }
        }
    }

    fn operation(
        &mut self,
        (definition, plan): (&Definition, &Plan),
        row: usize,
        operation: &Operation,
        scope: &Scope<'_>,
    ) -> Result<(), Reason> {
        let Operation { op, column, value, .. } = operation;
        let Some(ty) = definition.columns.get(*column).map(|it| &it.ty) else { return Ok(()) };
        let datum = value.evaluate(scope)?;
        let value = match (op, ty.element()) {
            (Op::Append, Some(element)) => element.fit(datum)?,
            _ => ty.fit(datum)?,
        };
        if plan.ordered.get(*column).copied().unwrap_or_default() {
            return self.write_in_order(row, *column, *op, &value, scope.event());
        }
        self.write(row, *column, (*op, ty), &value)
    }

    fn write(
        &mut self,
        row: usize,
        column: usize,
        (op, ty): (Op, &ColumnType),
        value: &Value<'_>,
    ) -> Result<(), Reason> {
        let bit = bit(column);
        let Some(facts) = self.changes.rows.get(row) else { return Ok(()) };
        let meaning = if facts.set & bit != 0 {
            Meaning::Set
        } else if facts.delta & bit != 0 {
            Meaning::Delta
        } else {
            Meaning::Keep
        };
        let cell = self.changes.cell(row, column);
        let (meaning, cell) = compose(&mut self.changes.texts, (op, ty), (meaning, cell), value)?;
        self.changes.put(row, column, cell);
        let Some(facts) = self.changes.rows.get_mut(row) else { return Ok(()) };
        match meaning {
            Meaning::Keep => {}
            Meaning::Delta => facts.delta |= bit,
            Meaning::Set => {
                facts.set |= bit;
                facts.delta &= !bit;
            }
        }
        Ok(())
    }

    /// Where rows gather events of many runs, events come in the order of their commits, which is
    /// not that of their positions: the highest position wins, for `set_once` the lowest.
    fn write_in_order(
        &mut self,
        row: usize,
        column: usize,
        op: Op,
        value: &Value<'_>,
        event: &Event<'_>,
    ) -> Result<(), Reason> {
        let at = row * self.changes.stride + column;
        let Some(known) = self.changes.positions.get_mut(at) else { return Ok(()) };
        let wins = match op {
            Op::SetOnce => {
                !matches!(value, Value::Null) && (*known == 0 || event.position < *known)
            }
            _ => *known <= event.position,
        };
        if wins {
            *known = event.position;
            let cell = self.changes.texts.store(value)?;
            self.changes.put(row, column, cell);
        }
        Ok(())
    }
}

impl Plan {
    fn new(definition: &Definition) -> Self {
        let of = |kind: Option<&str>| -> Box<[usize]> {
            let takes = |rule: &Rule| match kind {
                Some(kind) => rule.events.matches(kind),
                None => rule.events == EventMatch::Any,
            };
            let rules = definition.rules.iter().enumerate();
            rules.filter(|(_, rule)| takes(rule)).map(|(at, _)| at).collect()
        };
        let kinds = definition.rules.iter().filter_map(|rule| match &rule.events {
            EventMatch::Types(types) => Some(types),
            EventMatch::Any => None,
        });
        let named = kinds.flatten().map(|kind| (kind.as_str().into(), of(Some(kind)))).collect();
        let mut ordered = vec![false; definition.columns.len()];
        for column in definition.ordered_columns() {
            if let Some(it) = ordered.get_mut(column) {
                *it = true;
            }
        }
        let foreach = definition.rules.iter().any(|rule| rule.foreach.is_some());
        let rows_meet = foreach || !definition.is_unique_per_event();
        let key_columns = definition.key_columns().collect();
        Self { named, any: of(None), key_columns, ordered, rows_meet }
    }
}

fn evaluate_key<'a>(
    definition: &Definition,
    parts: &'a [KeyPart],
    scope: &'a Scope<'a>,
) -> Result<Key<'a>, (usize, Reason)> {
    let mut key = Key::new();
    for KeyPart { column, value } in parts {
        let explain = |reason| (*column, reason);
        let datum = value.evaluate(scope).map_err(|it| explain(it.into()))?;
        let Some(ty) = definition.columns.get(*column).map(|it| &it.ty) else { continue };
        let value = ty.fit(datum).map_err(|it| explain(it.into()))?;
        if matches!(value, Value::Null) {
            return Err(explain(Reason::NullKey));
        }
        key.push(value);
    }
    Ok(key)
}

/// The rank of an event, where the definition has epochs and the event has a rank.
fn rank(definition: &Definition, scope: &Scope<'_>) -> Result<Option<i32>, (usize, Reason)> {
    let Some(epoch) = &definition.epoch else { return Ok(None) };
    let explain = |reason| (epoch.column, reason);
    let datum = epoch.value.evaluate(scope).map_err(|it| explain(it.into()))?;
    match ColumnType::Int4.fit(datum).map_err(|it| explain(it.into()))? {
        Value::Int(rank) => Ok(i32::try_from(rank).ok()),
        _ => Ok(None),
    }
}

fn failure(
    definition: &Definition,
    event: &Event<'_>,
    line: usize,
    column: Option<usize>,
    reason: Reason,
) -> FoldError {
    let column = column.and_then(|it| definition.columns.get(it));
    FoldError {
        projection: definition.name.clone(),
        line,
        column: column.map(|it| it.name.as_str().to_owned()),
        event: format!("{}/{}", event.run_id, event.version),
        kind: event.kind.to_owned(),
        position: event.position,
        file: definition.file.display().to_string(),
        reason,
    }
}
