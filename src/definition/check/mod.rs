//! From what is written to what it means: every rule of the format, all problems at once.

mod table;
mod rules;
mod history;
mod mixing;

use std::ops::Range;
use std::path::Path;

use super::datum::Datum;
use super::draft::{self, Draft, Entry, Text};
use super::expr::Expr;
use super::hash;
use super::model::{Column, Definition, KeyPart};
use super::near;
use super::order;
use super::problem::{Problem, Source};
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
        let tenant = draft.tenant.as_ref().and_then(|it| self.tenant(it));
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
            misfit.found
        } else {
            format!("`{}`", value.text())
        };
        let message = format!("`{name}` is {} and cannot hold {found}", column.ty);
        self.source.problem(&text.span, message, format!("expected {}", misfit.expected), None);
    }
}
