//! The hash of a definition: the same for the same meaning.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::model::{Definition, EventMatch, KeyPart, Rule};
use super::upcast::{Edit, Takes, Upcast};

/// Says which normal form was hashed; a new one makes every projection build anew.
const FORM: &str = "projection 1";

/// SHA-256 of the normal form, in hexadecimal.
///
/// The normal form has neither comments, blanks nor the order of keys, but the order of columns and
/// rules. The lane is not in it: it says when rows are written, not what they are.
pub(super) fn of(definition: &Definition) -> String {
    let mut form = Form(Sha256::new());
    form.line(&[FORM, &definition.name]);
    for column in &definition.columns {
        form.line(&["column", column.name.as_str(), &plain(&column.declared)]);
    }
    form.key(definition, "key", &definition.key);
    if let Some(tenant) = definition.tenant {
        form.line(&["tenant", name(definition, tenant)]);
    }
    for index in &definition.indexes {
        form.line(&["index", &index.columns]);
    }
    let mut lookups: Vec<_> = definition.lookups.iter().collect();
    lookups.sort_by_key(|it| it.column);
    for lookup in lookups {
        let which = format!("{:?}", lookup.which);
        form.line(&["lookup", name(definition, lookup.column), &which]);
        let path: Vec<_> = lookup.path.iter().map(String::as_str).collect();
        form.line(&path);
    }
    if let Some(epoch) = &definition.epoch {
        form.line(&["epoch", name(definition, epoch.column), epoch.value.text()]);
        let mut keep: Vec<_> = epoch.keep.iter().map(|it| name(definition, *it)).collect();
        keep.sort_unstable();
        form.line(&keep);
    }
    if let Some(sql) = &definition.sql {
        form.line(&["sql", &plain(&sql.text)]);
        if let EventMatch::Types(types) = &sql.events {
            form.line(&types.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
    if let Some(code) = &definition.code {
        form.line(&["handler", &code.name]);
    }
    for rule in &definition.rules {
        form.rule(definition, rule);
    }
    // in which file one stands, and where, means nothing; nor does one of events that no rule takes
    let mut upcasts: Vec<_> = definition.upcasts.iter().filter(|it| definition.sees(it)).collect();
    upcasts.sort_by_cached_key(|it| (it.takes.leads_to(), format!("{:?}", it.events)));
    upcasts.into_iter().for_each(|it| form.upcast(it));
    form.finish()
}

/// Without needless blanks, unless some may be within quotes.
fn plain(sql: &str) -> Cow<'_, str> {
    if sql.contains(['\'', '"']) {
        return Cow::Borrowed(sql);
    }
    Cow::Owned(sql.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn name(definition: &Definition, column: usize) -> &str {
    definition.columns.get(column).map_or("", |it| it.name.as_str())
}

fn edit(edit: &Edit) -> Vec<String> {
    let path = |it: &[String]| format!("{it:?}");
    match edit {
        Edit::Rename { from, to } => vec!["rename".to_owned(), path(to), path(from)],
        Edit::Remove(from) => vec!["remove".to_owned(), path(from)],
        Edit::Set { to, value } => vec!["set".to_owned(), path(to), value.text().to_owned()],
        Edit::Default { to, value } => {
            vec!["default".to_owned(), path(to), value.text().to_owned()]
        }
    }
}

struct Form(Sha256);

impl Form {
    /// Each part with its length, so that no two lines look alike.
    fn line(&mut self, parts: &[&str]) {
        self.0.update(parts.len().to_le_bytes());
        for part in parts {
            self.0.update(part.len().to_le_bytes());
            self.0.update(part.as_bytes());
        }
    }

    fn key(&mut self, definition: &Definition, label: &str, key: &[KeyPart]) {
        for part in key {
            self.line(&[label, name(definition, part.column), part.value.text()]);
        }
    }

    fn rule(&mut self, definition: &Definition, rule: &Rule) {
        self.line(&["on"]);
        self.events(&rule.events);
        for (label, expr) in [("when", &rule.when), ("foreach", &rule.foreach)] {
            if let Some(expr) = expr {
                self.line(&[label, expr.text()]);
            }
        }
        if let Some(key) = &rule.key {
            self.key(definition, "rule key", key);
        }
        if rule.delete {
            self.line(&["delete"]);
        }
        // one operation a column, so their order means nothing
        let mut operations: Vec<_> = rule.operations.iter().collect();
        operations.sort_by_key(|it| it.column);
        for it in operations {
            self.line(&[it.op.name(), name(definition, it.column), it.value.text()]);
        }
    }

    fn events(&mut self, events: &EventMatch) {
        match events {
            EventMatch::Any => self.line(&["event", "*"]),
            EventMatch::Types(types) => {
                let mut types: Vec<_> = types.iter().map(String::as_str).collect();
                types.sort_unstable();
                self.line(&types);
            }
        }
    }

    fn upcast(&mut self, upcast: &Upcast) {
        let takes = match upcast.takes {
            Takes::From(it) => ["from".to_owned(), it.to_string()],
            Takes::Before(it) => ["before".to_owned(), it.to_string()],
        };
        self.line(&["upcast", upcast.version.text(), &takes[0], &takes[1]]);
        self.events(&upcast.events);
        // no place is written twice, so their order means nothing
        let mut edits: Vec<_> = upcast.edits.iter().map(edit).collect();
        edits.sort_unstable();
        for it in &edits {
            let parts: Vec<_> = it.iter().map(String::as_str).collect();
            self.line(&parts);
        }
    }

    fn finish(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0.finalize() {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}
