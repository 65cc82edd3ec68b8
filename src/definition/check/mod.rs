//! From what is written to what it means: every rule of the format, all problems at once.

mod table;
mod rules;
mod history;
mod mixing;
mod upcasts;

use std::ops::Range;
use std::path::Path;

pub(super) use self::upcasts::{clash, share, shared};
use super::datum::Datum;
use super::draft::{self, Draft, Entry, Text};
use super::expr::Expr;
use super::handler::Code;
use super::hash;
use super::model::{Column, Definition, EventMatch, KeyPart, OnError};
use super::order;
use super::problem::{Problem, Source};
use super::sql::{self, Sql};
use crate::config::nearest;
use crate::ident::Ident;

/// A generation's partition is called `<table>_<generation>`, which must fit into 63 bytes.
const LONGEST_TABLE: usize = 50;

/// Tables that are not read models.
const RESERVED_TABLES: &[&str] = &["events"];

/// Reads one file.
///
/// # Errors
/// All problems in it, in the order of their places.
pub fn parse(file: &Path, text: &str) -> Result<Definition, Vec<Problem>> {
    let mut source = Source::new(file, text);
    let mut draft = draft::read(&mut source);
    // what was lost with a wrong shape would be reported again as missing
    let is_whole = source.problems.is_empty();
    let mut check = Check { source, columns: Vec::new(), is_whole };
    let code = check.code(&mut draft);
    let sql = check.sql(&draft, code.is_some());
    let definition = check.definition(&draft, code, sql);
    let problems = check.source.finish();
    match definition {
        Some(definition) if problems.is_empty() => Ok(definition),
        _ => Err(problems),
    }
}

pub(super) struct Check<'a> {
    pub(super) source: Source<'a>,
    pub(super) columns: Vec<Column>,
    /// Whether nothing was lost with a wrong shape, which would be reported again as missing.
    pub(super) is_whole: bool,
}

impl Check<'_> {
    /// Code in the place of rules: what it may do is checked as rules are.
    fn code(&mut self, draft: &mut Draft) -> Option<Code> {
        let handler = draft.handler.take()?;
        if !draft.rules.is_empty() {
            let message = "a definition has rules or code, and this has both";
            self.source.problem(&handler.span, message, "beside `[[on]]`", None);
        }
        if handler.rules.is_empty() && self.is_whole {
            let hint = "the columns of each: set = [\"status\"]".to_owned();
            let message = "`[handler]` declares no operation";
            self.source.problem(&handler.span, message, "which may the code use?", Some(hint));
        }
        let Some(name) = handler.name else {
            let hint = "another one whenever the code's meaning changes: name = \"orders 1\"";
            let message = "`[handler]` has no `name`";
            self.source.problem(&handler.span, message, "in this table", Some(hint.to_owned()));
            return None;
        };
        draft.rules = handler.rules;
        Some(Code { name: name.value, handler: None })
    }

    /// A statement in the place of rules.
    fn sql(&mut self, draft: &Draft, has_code: bool) -> Option<Sql> {
        let Some(text) = &draft.sql else {
            if let Some(first) = draft.events.iter().flatten().next() {
                let message = "`events` is for a definition with `sql`; rules have `event`";
                self.source.problem(&first.span, message, "not here", None);
            }
            return None;
        };
        if !draft.rules.is_empty() || has_code || !draft.lookups.is_empty() || draft.epoch.is_some()
        {
            let message = "a statement makes the rows, or rules do";
            let label = "beside `[[on]]`, `[handler]`, `[lookup]` or `[epoch]`";
            self.source.problem(&text.span, message, label, None);
        }
        if draft.on_error.as_ref().is_some_and(|it| it.value == "park") {
            let hint = "leave it out: a statement that fails does not say which row is to blame";
            let span = draft.on_error.as_ref().map_or(0..0, |it| it.span.clone());
            let message = "no rows can be parked for a statement";
            self.source.problem(&span, message, "expected pause", Some(hint.to_owned()));
        }
        if let Some(table) = &draft.table
            && let Some(name) = sql::names_with_schema(&text.value, &table.value)
        {
            let message = format!("the statement names its table with a schema: `{name}`");
            let hint =
                format!("write `{}`: it stands for the generation that is written", table.value);
            self.source.problem(&text.span, message, "in this statement", Some(hint));
        }
        let is_any = draft.events.as_ref().is_none_or(|it| it.iter().any(|it| it.value == "*"));
        let types = draft.events.iter().flatten().map(|it| it.value.clone()).collect();
        let events = if is_any { EventMatch::Any } else { EventMatch::Types(types) };
        let text = text.value.trim().trim_end_matches(';').trim_end().to_owned();
        Some(Sql { text, events })
    }

    fn definition(
        &mut self,
        draft: &Draft,
        code: Option<Code>,
        sql: Option<Sql>,
    ) -> Option<Definition> {
        self.columns = self.all_columns(draft);
        let table = self.table(draft);
        let key = self.key(&draft.key, &(0..0), false);
        if self.is_whole && draft.key.is_empty() {
            self.missing("key", "which row an event touches: key = { run_id = \"run_id\" }");
        }
        if self.is_whole && draft.columns.is_empty() {
            self.missing("columns", "[columns] with a line a column: run_id = \"uuid\"");
        }
        if self.is_whole && draft.rules.is_empty() && sql.is_none() {
            self.missing("on", "at least one `[[on]]` with an `event` and an operation");
        }
        let tenant = draft.tenant.as_ref().and_then(|it| self.tenant(it));
        let indexes = draft.indexes.iter().filter_map(|it| self.index(it)).collect();
        let rules: Vec<_> = draft.rules.iter().filter_map(|it| self.rule(it, &key)).collect();
        let lookups: Vec<_> = draft.lookups.iter().filter_map(|it| self.lookup(it)).collect();
        let epoch = self.epoch(draft);
        let on_error = if sql.is_some() { OnError::Pause } else { self.on_error(draft) };
        let upcasts = self.upcasts(&draft.upcasts);
        if self.is_whole && sql.is_none() {
            self.filled(draft);
        }
        if !self.source.problems.is_empty() {
            return None;
        }

        let order = order::of(&key, &rules, epoch.is_some());
        self.order(draft, order::is_by_run(&key, &rules), order);
        self.mixing(draft, order);
        self.column_count(draft);
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
            upcasts: upcasts.into(),
            order,
            code,
            sql,
            on_error,
            hash: String::new(),
            file: self.source.file.to_owned(),
            text: self.source.text.into(),
        };
        definition.hash = hash::of(&definition);
        Some(definition)
    }

    pub(super) fn missing(&mut self, key: &str, hint: &str) {
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

    fn on_error(&mut self, draft: &Draft) -> OnError {
        let Some(text) = &draft.on_error else { return OnError::default() };
        OnError::named(&text.value).unwrap_or_else(|| {
            let near = nearest(&text.value, OnError::NAMES);
            let hint = near.map(|it| format!("did you mean `{it}`?"));
            let message = format!("unknown policy `{}`", text.value);
            let label = format!("one of: {}", OnError::NAMES.join(", "));
            self.source.problem(&text.span, message, label, hint);
            OnError::default()
        })
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

    /// The place of a column by name.
    fn column(&mut self, name: &Text) -> Option<usize> {
        let place = self.columns.iter().position(|it| it.name.as_str() == name.value);
        if place.is_none() {
            let names = self.columns.iter().map(|it| it.name.as_str());
            let hint = match nearest(&name.value, names) {
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
            if value.as_constant().is_some_and(Datum::is_null) {
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

    pub(super) fn expr(&mut self, text: &Text, in_foreach: bool) -> Option<Expr> {
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
    pub(super) fn inside(&self, text: &Text, offset: usize, length: usize) -> Range<usize> {
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

    /// Holds an expression whose kind is known against its column.
    fn fits(&mut self, column: usize, value: &Expr, text: &Text) {
        let Some(column) = self.columns.get(column) else { return };
        let Some(sample) = value.sample() else { return };
        if column.ty.takes_all_kinds() {
            return;
        }
        let Err(misfit) = column.ty.fit(sample) else { return };
        let name = column.name.as_str();
        let found = if value.as_constant().is_some() {
            misfit.found.to_string()
        } else {
            format!("`{}`", value.text())
        };
        let message = format!("`{name}` is {} and cannot hold {found}", column.ty);
        self.source.problem(&text.span, message, format!("expected {}", misfit.expected), None);
    }
}
