//! The checks of `[[on]]`: a rule, its key and its operations.

use std::ops::Range;

use super::Check;
use crate::definition::datum::Datum;
use crate::definition::draft::{DraftOperation, DraftRule, Entry, Text};
use crate::definition::expr::Expr;
use crate::definition::model::{EventMatch, KeyPart, Op, Operation, Rule};
use crate::definition::types::ColumnType;

impl Check<'_> {
    pub(super) fn rule(&mut self, draft: &DraftRule, table_key: &[KeyPart]) -> Option<Rule> {
        let in_foreach = draft.foreach.is_some();
        let events = self.event_match(&draft.events, &draft.span);
        let when = draft.when.as_ref().and_then(|it| self.expr(it, false));
        let foreach = draft.foreach.as_ref().and_then(|it| self.expr(it, false));
        if let (Some(expr), Some(text)) = (&foreach, &draft.foreach)
            && let Some(sample) = expr.sample()
            && !matches!(sample, Datum::Json(_) | Datum::Null)
        {
            let message = format!("`foreach` goes over an array, and this is {sample}");
            self.source.problem(&text.span, message, "expected an array", None);
        }
        let key = draft
            .key
            .as_ref()
            .map(|(span, parts)| self.rule_key(parts, span, in_foreach, table_key));
        let operations: Vec<_> =
            draft.operations.iter().filter_map(|it| self.operation(it, in_foreach)).collect();
        self.columns_once(draft);
        match (&draft.delete, draft.operations.first()) {
            (Some(span), Some(_)) => {
                let hint = "use two `[[on]]` tables; rules apply in the order of the file";
                self.source.problem(
                    span,
                    "a rule that deletes the row and changes it",
                    "either this or operations",
                    Some(hint.to_owned()),
                );
            }
            (None, None) if self.is_whole => {
                let hint = "for example: set = { status = \"'running'\" }";
                self.source.problem(
                    &draft.span,
                    "a rule that does nothing",
                    "no operation here",
                    Some(hint.to_owned()),
                );
            }
            _ => {}
        }
        let line = self.source.line(draft.span.start);
        Some(Rule { events, when, foreach, key, operations, delete: draft.delete.is_some(), line })
    }

    /// The events that a table of the file is for.
    pub(in crate::definition) fn event_match(
        &mut self,
        events: &[Text],
        span: &Range<usize>,
    ) -> EventMatch {
        if events.is_empty() && self.is_whole {
            let hint = "event = \"run_started\", a list of types, or \"*\" for all";
            self.source.problem(span, "missing `event`", "in this rule", Some(hint.to_owned()));
        }
        if events.iter().any(|it| it.value == "*") {
            if let [_, second, ..] = events {
                let label = "`*` takes all events already";
                self.source.problem(&second.span, "`*` beside other types", label, None);
            }
            return EventMatch::Any;
        }
        if let Some(empty) = events.iter().find(|it| it.value.is_empty()) {
            self.source.problem(&empty.span, "empty event type", "no event has it", None);
        }
        EventMatch::Types(events.iter().map(|it| it.value.clone()).collect())
    }

    /// In the order of the table's key, with all of its columns and no other.
    fn rule_key(
        &mut self,
        entries: &[Entry],
        span: &Range<usize>,
        in_foreach: bool,
        table_key: &[KeyPart],
    ) -> Vec<KeyPart> {
        let mut parts = self.key(entries, span, in_foreach);
        let place = |part: &KeyPart| table_key.iter().position(|it| it.column == part.column);
        let is_same = parts.len() == table_key.len() && parts.iter().all(|it| place(it).is_some());
        if !is_same && parts.len() == entries.len() && !table_key.is_empty() {
            let names = table_key.iter().filter_map(|it| self.columns.get(it.column));
            let names: Vec<_> = names.map(|it| it.name.as_str()).collect();
            let label = format!("expected: {}", names.join(", "));
            self.source.problem(
                span,
                "a rule's key has the columns of the table's key",
                label,
                None,
            );
        }
        parts.sort_by_key(place);
        parts
    }

    fn operation(&mut self, draft: &DraftOperation, in_foreach: bool) -> Option<Operation> {
        let column = self.column(&draft.column);
        let value = self.expr(&draft.value, in_foreach);
        let (column, value) = (column?, value?);
        self.is_writable(column, &draft.column);
        let ty = self.columns.get(column)?.ty.clone();
        let (is_possible, needs) = match draft.op {
            Op::Set | Op::SetOnce => (true, ""),
            Op::Add => (ty.is_numeric(), "a number type"),
            Op::Min | Op::Max => (ty.is_ordered(), "a number type, timestamptz or date"),
            Op::Append => {
                (ty == ColumnType::Jsonb || ty.element().is_some(), "jsonb or an array type")
            }
            Op::Merge => (ty == ColumnType::Jsonb, "jsonb"),
        };
        if !is_possible && ty != ColumnType::Other(String::new()) {
            let op = draft.op.name();
            let message = format!("`{op}` cannot work on `{}`, which is {ty}", draft.column.value);
            self.source.problem(&draft.column.span, message, format!("`{op}` needs {needs}"), None);
        } else if draft.op == Op::Set && self.sets_forbidden_null(column, &value) {
            let message = format!("`{}` is `not null`", draft.column.value);
            self.source.problem(&draft.value.span, message, "always null", None);
        } else if draft.op != Op::Append {
            self.fits(column, &value, &draft.value);
        }
        let line = self.source.line(draft.column.span.start);
        Some(Operation { op: draft.op, column, value, line })
    }

    /// Whether a constant null would be set where none may be.
    fn sets_forbidden_null(&self, column: usize, value: &Expr) -> bool {
        self.columns.get(column).is_some_and(|it| it.not_null)
            && value.as_constant().is_some_and(Datum::is_null)
    }

    /// One operation a column and rule: which of two would win is nothing a file should leave open.
    fn columns_once(&mut self, draft: &DraftRule) {
        for (at, operation) in draft.operations.iter().enumerate() {
            let before = draft.operations.get(..at).unwrap_or_default();
            if let Some(first) = before.iter().find(|it| it.column.value == operation.column.value)
            {
                let name = &operation.column.value;
                let label = format!("`{}` has it already", first.op.name());
                let message = format!("two operations on `{name}` in one rule");
                self.source.problem(&operation.column.span, message, label, None);
            }
        }
    }
}
