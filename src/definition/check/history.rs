//! The checks of what depends on a row's other events: lookups, epochs, the order; and whether rows
//! are complete.

use super::Check;
use crate::definition::draft::{Draft, DraftLookup};
use crate::definition::model::{Epoch, Lookup, Op, Order, Which};

impl Check<'_> {
    pub(super) fn lookup(&mut self, draft: &DraftLookup) -> Option<Lookup> {
        let column = self.column(&draft.column);
        let which = match draft.which.value.as_str() {
            "first" => Some(Which::First),
            "last" => Some(Which::Last),
            other => {
                let message = format!("unknown lookup `{other}`");
                self.source.problem(&draft.which.span, message, "one of: first, last", None);
                None
            }
        };
        let expr = self.expr(&draft.path, false)?;
        let path = expr.as_payload_path().filter(|it| !it.is_empty()).map(<[String]>::to_vec);
        if path.is_none() {
            let hint = Some("for example: \"payload.workflow\"".to_owned());
            self.source.problem(
                &draft.path.span,
                "a lookup needs a plain path",
                "expected payload.…",
                hint,
            );
        }
        let column = column?;
        self.is_writable(column, &draft.column);
        Some(Lookup { column, which: which?, path: path? })
    }

    pub(super) fn epoch(&mut self, draft: &Draft) -> Option<Epoch> {
        let epoch = draft.epoch.as_ref()?;
        let column = self.column(&epoch.column);
        let value = self.expr(&epoch.value, false);
        let keep: Vec<_> = epoch.keep.iter().filter_map(|it| self.column(it)).collect();
        let (column, value) = (column?, value?);
        let ty = &self.columns.get(column)?.ty;
        if !ty.is_integer() {
            let message =
                format!("an epoch's column is an integer, and `{}` is {ty}", epoch.column.value);
            self.source.problem(&epoch.column.span, message, "expected an integer type", None);
        }
        self.fits(column, &value, &epoch.value);
        let mut named = draft.rules.iter().flat_map(|it| &it.operations).map(|it| &it.column);
        if let Some(text) = named.find(|it| it.value == epoch.column.value) {
            let message = format!("`{}` is written by the epoch", text.value);
            self.source.problem(&text.span, message, "no rule may name it", None);
        }
        Some(Epoch { column, value, keep })
    }

    /// Every `not null` column has something that fills it.
    pub(super) fn filled(&mut self, draft: &Draft) {
        let rules = draft.rules.iter();
        let names = rules.flat_map(|it| it.operations.iter().map(|it| &it.column));
        let names = names.chain(draft.key.iter().map(|it| &it.0));
        let names = names.chain(draft.lookups.iter().map(|it| &it.column));
        let names: Vec<_> = names.chain(draft.epoch.as_ref().map(|it| &it.column)).collect();
        for column in &self.columns {
            let name = column.name.as_str();
            let is_filled = column.default.is_some() || column.generated;
            if !column.not_null || is_filled || names.iter().any(|it| it.value == name) {
                continue;
            }
            let written = draft.columns.iter().find(|it| it.0.value == name);
            let Some((text, _)) = written else { continue };
            let hint = "set it in a rule for event \"*\", or give it a default".to_owned();
            let message = format!("`{name}` is `not null`, and nothing sets it");
            let label = "no rule, no lookup, no default";
            self.source.problem(&text.span, message, label, Some(hint));
        }
    }

    /// What needs an order within the row is refused where rows gather events of many runs.
    pub(super) fn order(&mut self, draft: &Draft, is_by_run: bool, order: Order) {
        let hint =
            Some("a key column that is exactly `run_id` gives each run its own rows".to_owned());
        if !is_by_run && let Some(lookup) = draft.lookups.first() {
            let message = "a lookup reads the row's run, and rows of this table have none";
            self.source.problem(
                &lookup.column.span,
                message,
                "no `run_id` in the key",
                hint.clone(),
            );
        }
        if order != Order::Position {
            return;
        }
        if let Some(epoch) = &draft.epoch {
            let message = "an epoch needs rows that belong to one run";
            self.source.problem(
                &epoch.column.span,
                message,
                "no `run_id` in the key",
                hint.clone(),
            );
        }
        for rule in &draft.rules {
            for operation in &rule.operations {
                if matches!(operation.op, Op::Append | Op::Merge) {
                    let message = format!(
                        "`{}` needs an order, and events of many runs meet in a row in no fixed one",
                        operation.op.name()
                    );
                    self.source.problem(
                        &operation.column.span,
                        message,
                        "no `run_id` in the key",
                        hint.clone(),
                    );
                }
            }
            if let Some(span) = &rule.delete {
                let message = "`delete` needs an order, and events of many runs meet in a row in no fixed one";
                self.source.problem(span, message, "no `run_id` in the key", hint.clone());
            }
        }
    }
}
