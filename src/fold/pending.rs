//! What has been folded and not been taken: pending rows, found by their key.

use smallvec::SmallVec;

use crate::definition::{ColumnType, Definition, Op, Order, Value};
use crate::event::Event;
use crate::fold::cell::{Cell, TooMuchText};
use crate::fold::compose::{ComposeError, Meaning, compose};
use crate::fold::plan::Plan;
use crate::fold::rows::{Changes, KeyIndex, Row, bit, hash_key};
use crate::fold::work::{Assignment, Step, Work};

/// Pending rows.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) changes: Changes,
    /// Memory of rows that have been written.
    pub(super) spare: Option<Changes>,
    pub(super) index: KeyIndex,
    pub(super) hasher: foldhash::fast::FixedState,
}

impl Pending {
    /// Does to a row what one step says; `known` is the row of the step's key, once it is known.
    pub(super) fn apply(
        &mut self,
        (definition, plan): (&Definition, &Plan),
        event: &Event<'_>,
        work: &Work<'_>,
        (step, known): (&Step, &mut Option<usize>),
    ) -> Result<(), TooMuchText> {
        let mut row = match *known {
            Some(row) => row,
            None => {
                let key = work.keys.get(step.key).map(SmallVec::as_slice).unwrap_or_default();
                self.row((definition, plan), key, event, work.epoch)?
            }
        };
        *known = Some(row);
        if step.deletes {
            self.delete(plan, row);
            return Ok(());
        }
        if let Some(row) = self.changes.rows.get_mut(row) {
            row.deleted = false;
        }
        for it in work.assignments.get(step.assignments.clone()).unwrap_or_default() {
            row = self.assign((definition, plan), row, it, event)?;
        }
        *known = Some(row);
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
    ) -> Result<usize, TooMuchText> {
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
        self.find_as(plan, hash, known, at)?;
        Ok(at)
    }

    /// Makes `row` the newest of its key, in the place of `known`.
    fn find_as(
        &mut self,
        plan: &Plan,
        hash: u64,
        known: Option<usize>,
        row: usize,
    ) -> Result<(), TooMuchText> {
        let number = u32::try_from(row).map_err(|_| TooMuchText)?;
        if let Some(known) = known.and_then(|it| self.changes.rows.get_mut(it)) {
            known.later = Some(number);
        }
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
        Ok(())
    }

    /// A second change to a row, in the pass after the first.
    fn second(
        &mut self,
        plan: &Plan,
        with_positions: bool,
        row: usize,
    ) -> Result<usize, TooMuchText> {
        let Some(facts) = self.changes.rows.get(row) else { return Ok(row) };
        let next = Row::new(facts.order, facts.epoch, facts.pass + 1);
        let at = self.changes.open(next, with_positions);
        for &column in &plan.key_columns {
            let cell = self.changes.cell(row, column);
            self.changes.put(at, column, cell);
        }
        let hash = self.changes.hash_of(&self.hasher, row, &plan.key_columns);
        self.find_as(plan, hash, Some(row), at)?;
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

    /// Returns the row that now holds the value.
    fn assign(
        &mut self,
        (definition, plan): (&Definition, &Plan),
        row: usize,
        assignment: &Assignment<'_>,
        event: &Event<'_>,
    ) -> Result<usize, TooMuchText> {
        let Assignment { op, column, value } = assignment;
        let Some(ty) = definition.columns.get(*column).map(|it| &it.ty) else { return Ok(row) };
        if plan.ordered.get(*column).copied().unwrap_or_default() {
            self.write_in_order(row, *column, *op, value, event)?;
            return Ok(row);
        }
        match self.write(row, *column, (*op, ty), value) {
            Ok(()) => Ok(row),
            Err(ComposeError::TooMuchText(error)) => Err(error),
            // whether the two come to a value is for the database to say, which knows the row: where
            // the batch ends must not decide whether the event fails
            Err(_) => {
                let row = self.second(plan, definition.order == Order::Position, row)?;
                match self.write(row, *column, (*op, ty), value) {
                    Err(ComposeError::TooMuchText(error)) => Err(error),
                    // nothing is pending there that could be in the way
                    Ok(()) | Err(_) => Ok(row),
                }
            }
        }
    }

    fn write(
        &mut self,
        row: usize,
        column: usize,
        (op, ty): (Op, &ColumnType),
        value: &Value<'_>,
    ) -> Result<(), ComposeError> {
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
    ) -> Result<(), TooMuchText> {
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
