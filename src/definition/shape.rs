//! What follows from a definition: which columns a rule writes, and how.

use super::model::{Definition, EventMatch, Op, Order};
use super::order;

impl Definition {
    /// The columns of the key, in the key's order.
    pub fn key_columns(&self) -> impl Iterator<Item = usize> {
        self.key.iter().map(|it| it.column)
    }

    /// The column that holds the run's id, where a row belongs to one run.
    pub fn run_column(&self) -> Option<usize> {
        self.key.iter().find(|it| it.value.as_field() == Some("run_id")).map(|it| it.column)
    }

    /// Whether every row belongs to one run, whichever rule makes it.
    pub fn belongs_to_runs(&self) -> bool {
        order::is_by_run(&self.key, &self.rules)
    }

    /// Whether no two events ever touch the same row, so that rows are only ever added.
    pub fn is_unique_per_event(&self) -> bool {
        let names = |field: &str| self.key.iter().any(|it| it.value.as_field() == Some(field));
        let own_keys = self.rules.iter().any(|rule| rule.key.is_some() || rule.delete);
        let unique =
            names("position") || names("run_id") && (names("version") || names("event_id"));
        unique && !own_keys && self.epoch.is_none() && self.lookups.is_empty()
    }

    /// Whether some rule removes rows.
    pub fn deletes(&self) -> bool {
        self.rules.iter().any(|rule| rule.delete)
    }

    /// The columns that Postgres does not compute: all that a new row is given.
    pub fn stored_columns(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().enumerate().filter(|(_, it)| !it.generated).map(|(at, _)| at)
    }

    /// The columns whose values come from rules and the key.
    pub fn written_columns(&self) -> impl Iterator<Item = usize> {
        self.stored_columns().filter(|&column| {
            let ranked = self.epoch.as_ref().is_some_and(|it| it.column == column);
            let looked_up = self.lookups.iter().any(|it| it.column == column);
            !ranked && !looked_up
        })
    }

    /// The operations that rules use on a column, each once, in the order of [`Op::ALL`].
    pub fn ops_of(&self, column: usize) -> Vec<Op> {
        let used = |op: &Op| {
            let operations = self.rules.iter().flat_map(|rule| &rule.operations);
            operations.into_iter().any(|it| it.column == column && it.op == *op)
        };
        Op::ALL.into_iter().filter(used).collect()
    }

    /// Columns for which the position of the event that wrote them must be remembered: those of
    /// order-sensitive operations where rows gather events of many runs.
    pub fn ordered_columns(&self) -> impl Iterator<Item = usize> {
        let by_position = self.order == Order::Position;
        (0..self.columns.len()).filter(move |&column| {
            by_position && self.ops_of(column).iter().any(|op| op.is_order_sensitive())
        })
    }

    /// Whether every event that touches a row sets this column, so that a pending row always has it.
    pub fn always_sets(&self, column: usize) -> bool {
        if self.key_columns().any(|it| it == column) {
            return true;
        }
        if self.deletes() || self.epoch.is_some() || self.ops_of(column) != [Op::Set] {
            return false;
        }
        let own_keys = self.rules.iter().any(|rule| rule.key.is_some());
        !own_keys
            && self.rules.iter().any(|rule| {
                let unconditional = rule.events == EventMatch::Any
                    && rule.when.is_none()
                    && rule.foreach.is_none()
                    && rule.key.is_none();
                unconditional && rule.operations.iter().any(|it| it.column == column)
            })
    }
}
