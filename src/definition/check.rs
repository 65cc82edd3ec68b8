//! From what is written to what it means: every rule of the format, all problems at once.

use std::ops::Range;
use std::path::Path;

use super::columns;
use super::draft::{self, Draft, DraftLookup, DraftRule, Entry, Text};
use super::expr::Expr;
use super::hash;
use super::json;
use super::model::{
    Column, Definition, Epoch, EventMatch, Index, KeyPart, Lookup, Op, Operation, Order, Rule,
    Which,
};
use super::near;
use super::order;
use super::problem::{Problem, Source};
use super::types::ColumnType;
use crate::ident::Ident;

/// A generation's partition is called `<table>_<generation>`, which must fit into 63 bytes.
const LONGEST_TABLE: usize = 50;

/// Tables that are not read models.
const RESERVED_TABLES: &[&str] = &["events"];

/// Columns that Postgres or the projector has already.
const RESERVED_COLUMNS: &[&str] =
    &["_positions", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// Reads one file.
///
/// # Errors
/// All problems in it, in the order of their places.
pub fn parse(file: &Path, text: &str) -> Result<Definition, Vec<Problem>> {
    let mut source = Source::new(file, text);
    let draft = draft::read(&mut source);
    // what was lost with a wrong shape would be reported again as missing
    let is_whole = source.problems.is_empty();
    let mut check = Check { source, columns: Vec::new(), is_whole };
    let definition = check.definition(&draft);
    let mut problems = check.source.problems;
    problems.sort_by_key(|it| (it.line, it.column));
    problems.dedup();
    match definition {
        Some(definition) if problems.is_empty() => Ok(definition),
        _ => Err(problems),
    }
}

struct Check<'a> {
    source: Source<'a>,
    columns: Vec<Column>,
    is_whole: bool,
}

impl Check<'_> {
    fn definition(&mut self, draft: &Draft) -> Option<Definition> {
        self.columns = self.all_columns(draft);
        let table = self.table(draft);
        let key = self.key(&draft.key, &(0..0), false);
        if self.is_whole && draft.key.is_empty() {
            self.missing("key", "which row an event touches: key = { run_id = \"run_id\" }");
        }
        if self.is_whole && draft.columns.is_empty() {
            self.missing("columns", "[columns] with a line a column: run_id = \"uuid\"");
        }
        if self.is_whole && draft.rules.is_empty() {
            self.missing("on", "at least one `[[on]]` with an `event` and an operation");
        }
        let tenant = draft.tenant.as_ref().and_then(|it| self.column(it));
        let indexes = draft.indexes.iter().filter_map(|it| self.index(it)).collect();
        let rules: Vec<_> = draft.rules.iter().filter_map(|it| self.rule(it, &key)).collect();
        let lookups: Vec<_> = draft.lookups.iter().filter_map(|it| self.lookup(it)).collect();
        let epoch = self.epoch(draft);
        if self.is_whole {
            self.filled(draft);
        }
        if !self.source.problems.is_empty() {
            return None;
        }

        let order = order::of(&key, &rules, epoch.is_some());
        self.order(draft, &key, order);
        let table = table?;
        let mut definition = Definition {
            name: table.as_str().to_owned(),
            table,
            key,
            tenant,
            columns: std::mem::take(&mut self.columns),
            indexes,
            lane: draft.lane.as_ref().map_or("default", |it| it.value.as_str()).to_owned(),
            rules,
            lookups,
            epoch,
            order,
            hash: String::new(),
            file: self.source.file.to_owned(),
        };
        definition.hash = hash::of(&definition);
        Some(definition)
    }

    fn missing(&mut self, key: &str, hint: &str) {
        let message = format!("missing `{key}`");
        self.source.problem(&(0..0), message, "in this file", Some(hint.to_owned()));
    }

    fn table(&mut self, draft: &Draft) -> Option<Ident> {
        let Some(text) = &draft.table else {
            if self.is_whole {
                self.missing("table", "the name of the read model: table = \"run_status\"");
            }
            return None;
        };
        if RESERVED_TABLES.contains(&text.value.as_str()) {
            let message = format!("the table `{}` is not a read model", text.value);
            self.source.problem(&text.span, message, "reserved", None);
        }
        if LONGEST_TABLE < text.value.len() {
            let message = format!("table name of {} bytes", text.value.len());
            self.source.problem(&text.span, message, format!("at most {LONGEST_TABLE}"), None);
        }
        self.ident(text)
    }

    fn ident(&mut self, text: &Text) -> Option<Ident> {
        match Ident::new(text.value.as_str()) {
            Ok(it) => Some(it),
            Err(error) => {
                self.source.problem(&text.span, error.to_string(), "", None);
                None
            }
        }
    }

    fn all_columns(&mut self, draft: &Draft) -> Vec<Column> {
        draft.columns.iter().filter_map(|(name, text)| self.one_column(name, text)).collect()
    }

    /// A column with a bad text stays, so that its uses are not reported too.
    fn one_column(&mut self, name: &Text, text: &Text) -> Option<Column> {
        let ident = self.ident(name)?;
        if RESERVED_COLUMNS.contains(&name.value.as_str()) {
            let message = format!("the column name `{}` is taken", name.value);
            self.source.problem(&name.span, message, "reserved", None);
        }
        let read = columns::read(&text.value).unwrap_or_else(|bad| {
            let span = self.inside(text, bad.offset, bad.length);
            self.source.problem(&span, bad.message, "in this column", bad.hint);
            let ty = ColumnType::Other(String::new());
            columns::Declaration {
                ty,
                not_null: false,
                generated: false,
                default: None,
                default_value: None,
            }
        });
        let column = Column {
            name: ident,
            declared: text.value.trim().to_owned(),
            ty: read.ty,
            not_null: read.not_null,
            generated: read.generated,
            default: read.default,
            default_value: read.default_value,
        };
        self.default_fits(&column, text);
        Some(column)
    }

    fn default_fits(&mut self, column: &Column, text: &Text) {
        let Some(default) = &column.default_value else { return };
        // what is still a text is for Postgres to read
        if default.is_string() {
            return;
        }
        let default = default.to_string();
        if let Err(misfit) = column.ty.fit(json::datum(&default)) {
            let message =
                format!("the default of `{}` does not fit its type", column.name.as_str());
            self.source.problem(&text.span, message, misfit.to_string(), None);
        }
    }

    /// The place of a column by name.
    fn column(&mut self, name: &Text) -> Option<usize> {
        let place = self.columns.iter().position(|it| it.name.as_str() == name.value);
        if place.is_none() {
            let names = self.columns.iter().map(|it| it.name.as_str());
            let hint = match near::nearest(&name.value, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add it under `[columns]`, as {} = \"text\"", name.value),
            };
            let message = format!("unknown column `{}`", name.value);
            self.source.problem(&name.span, message, "not under `[columns]`", Some(hint));
        }
        place
    }

    fn key(&mut self, entries: &[Entry], span: &Range<usize>, in_foreach: bool) -> Vec<KeyPart> {
        let mut parts = Vec::new();
        for (name, text) in entries {
            let column = self.column(name);
            let value = self.expr(text, in_foreach);
            let (Some(column), Some(value)) = (column, value) else { continue };
            self.is_writable(column, name);
            if value.as_constant().is_some_and(super::Datum::is_null) {
                let message = format!("the key column `{}` would always be null", name.value);
                self.source.problem(&text.span, message, "no row has a null key", None);
            }
            self.fits(column, &value, text);
            parts.push(KeyPart { column, value });
        }
        if entries.is_empty() && span.start < span.end {
            self.source.problem(span, "empty `key`", "name the key's columns", None);
        }
        parts
    }

    fn index(&mut self, text: &Text) -> Option<Index> {
        let (mut columns, mut names) = (Vec::new(), Vec::new());
        for part in text.value.split(',') {
            let words: Vec<_> = part.split_whitespace().collect();
            let (name, order) = words.split_first().unwrap_or((&"", &[]));
            let order = order.join(" ").to_lowercase();
            let known = [
                "",
                "asc",
                "desc",
                "asc nulls first",
                "asc nulls last",
                "desc nulls first",
                "desc nulls last",
                "nulls first",
                "nulls last",
            ];
            if !known.contains(&order.as_str()) {
                let hint = "columns with `asc` or `desc`: \"project_id, started_at desc\"";
                let message = format!("cannot read the index on `{}`", part.trim());
                self.source.problem(&text.span, message, "in this index", Some(hint.to_owned()));
                return None;
            }
            let offset = text.value.find(name).unwrap_or_default();
            let span = self.inside(text, offset, name.len().max(1));
            let place = self.column(&Text { value: (*name).to_owned(), span })?;
            let ident = self.columns.get(place)?.name.clone();
            columns.push(if order.is_empty() {
                ident.to_string()
            } else {
                format!("{ident} {order}")
            });
            names.push(ident);
        }
        Some(Index { columns: columns.join(", "), names })
    }

    fn rule(&mut self, draft: &DraftRule, table_key: &[KeyPart]) -> Option<Rule> {
        let in_foreach = draft.foreach.is_some();
        let events = self.events(draft);
        let when = draft.when.as_ref().and_then(|it| self.expr(it, false));
        let foreach = draft.foreach.as_ref().and_then(|it| self.expr(it, false));
        if let (Some(expr), Some(text)) = (&foreach, &draft.foreach)
            && let Some(sample) = expr.sample()
            && !matches!(sample, super::Datum::Json(_) | super::Datum::Null)
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

    fn events(&mut self, draft: &DraftRule) -> EventMatch {
        if draft.events.is_empty() && self.is_whole {
            let hint = "event = \"run_started\", a list of types, or \"*\" for all";
            self.source.problem(
                &draft.span,
                "missing `event`",
                "in this rule",
                Some(hint.to_owned()),
            );
        }
        if draft.events.iter().any(|it| it.value == "*") {
            if let [_, second, ..] = draft.events.as_slice() {
                let label = "`*` takes all events already";
                self.source.problem(&second.span, "`*` beside other types", label, None);
            }
            return EventMatch::Any;
        }
        if let Some(empty) = draft.events.iter().find(|it| it.value.is_empty()) {
            self.source.problem(&empty.span, "empty event type", "no event has it", None);
        }
        EventMatch::Types(draft.events.iter().map(|it| it.value.clone()).collect())
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

    fn operation(&mut self, draft: &draft::DraftOperation, in_foreach: bool) -> Option<Operation> {
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
        } else if draft.op != Op::Append {
            self.fits(column, &value, &draft.value);
        }
        let line = self.source.line(draft.column.span.start);
        Some(Operation { op: draft.op, column, value, line })
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

    fn lookup(&mut self, draft: &DraftLookup) -> Option<Lookup> {
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

    fn epoch(&mut self, draft: &Draft) -> Option<Epoch> {
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

    fn expr(&mut self, text: &Text, in_foreach: bool) -> Option<Expr> {
        match Expr::compile(&text.value) {
            Ok(expr) if expr.uses_item() && !in_foreach => {
                let hint = "`foreach` in the same rule brings them: foreach = \"payload.items\"";
                let message = "`item` and `index` without `foreach`";
                self.source.problem(&text.span, message, "", Some(hint.to_owned()));
                None
            }
            Ok(expr) => Some(expr),
            Err(error) => {
                let span = self.inside(text, error.offset, error.length);
                self.source.problem(&span, error.message, "", error.hint);
                None
            }
        }
    }

    /// The place of a part of a text: exact where TOML has it without escapes, else the whole.
    fn inside(&self, text: &Text, offset: usize, length: usize) -> Range<usize> {
        let written = self.source.text.get(text.span.clone()).unwrap_or_default();
        match written.find(&text.value) {
            Some(start) if !text.value.is_empty() => {
                let start = text.span.start + start + offset;
                start..start + length
            }
            _ => text.span.clone(),
        }
    }

    fn is_writable(&mut self, column: usize, name: &Text) {
        if self.columns.get(column).is_some_and(|it| it.generated) {
            let message = format!("`{}` is generated: Postgres computes it", name.value);
            self.source.problem(&name.span, message, "cannot be assigned", None);
        }
    }

    fn fits(&mut self, column: usize, value: &Expr, text: &Text) {
        let Some(column) = self.columns.get(column) else { return };
        let (
            Some(sample),
            ColumnType::Bool
            | ColumnType::Int2
            | ColumnType::Int4
            | ColumnType::Int8
            | ColumnType::Float4
            | ColumnType::Float8
            | ColumnType::Numeric
            | ColumnType::Uuid
            | ColumnType::Timestamptz
            | ColumnType::Date,
        ) = (value.sample(), &column.ty)
        else {
            return;
        };
        let Err(misfit) = column.ty.fit(sample) else { return };
        let name = column.name.as_str();
        let found = if value.as_constant().is_some() {
            misfit.found
        } else {
            format!("`{}`", value.text())
        };
        let message = format!("`{name}` is {} and cannot hold {found}", column.ty);
        self.source.problem(&text.span, message, format!("expected {}", misfit.expected), None);
    }

    /// Every `not null` column has something that fills it.
    fn filled(&mut self, draft: &Draft) {
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
    fn order(&mut self, draft: &Draft, key: &[KeyPart], order: Order) {
        let hint =
            Some("a key column that is exactly `run_id` gives each run its own rows".to_owned());
        let is_by_run = order::is_by_run(key);
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
