//! How a table's rows are read for comparing: as lines of `COPY`'s text format, in the key's order.
//!
//! The client must order keys as the server does. Ids, booleans and whole numbers have one order
//! everywhere; everything else is ordered by the bytes of its text.

use std::cmp::Ordering;

use crate::definition::{ColumnType, Definition};
use crate::ident::QualifiedName;

/// The columns of a table in the order in which they are read: the key's first.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    columns: Vec<Column>,
    keys: usize,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    /// As SQL, in a form in which equal values are the same text.
    value: String,
    ty: ColumnType,
}

impl Shape {
    /// Of a definition's table: all its columns, those that Postgres computes included.
    pub(super) fn of(definition: &Definition) -> Self {
        let keys: Vec<_> = definition.key_columns().collect();
        let others = (0..definition.columns.len()).filter(|it| !keys.contains(it));
        let columns = keys.iter().copied().chain(others).filter_map(|at| {
            let column = definition.columns.get(at)?;
            let name = &column.name;
            let value = match column.ty {
                ColumnType::Numeric => format!("trim_scale({name})"),
                ColumnType::Json => format!("{name}::jsonb"),
                _ => name.to_string(),
            };
            Some(Column { name: name.as_str().to_owned(), value, ty: column.ty.clone() })
        });
        Self { keys: keys.len(), columns: columns.collect() }
    }

    /// The statement that reads a table.
    pub(super) fn copy(&self, table: &QualifiedName) -> String {
        let list: Vec<_> = self.columns.iter().map(|it| it.value.as_str()).collect();
        let order: Vec<_> = self.columns.iter().take(self.keys).map(Column::order).collect();
        let (list, order) = (list.join(", "), order.join(", "));
        format!("copy (select {list} from {table} order by {order}) to stdout")
    }

    /// The key's columns as text, of rows that `source` has as `r`.
    pub(super) fn select_keys(&self, source: &str) -> String {
        let text = |it: &Column| format!("((r).{}::text)", quoted(&it.name));
        let list: Vec<_> = self.columns.iter().take(self.keys).map(text).collect();
        format!("select distinct array[{}] from {source}", list.join(", "))
    }

    /// The names of the key's columns.
    pub(super) fn key_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().take(self.keys).map(|it| it.name.as_str())
    }

    /// The key of a row.
    pub(super) fn key(&self, fields: &[Option<String>]) -> Vec<Option<String>> {
        fields.iter().take(self.keys).cloned().collect()
    }

    /// Which of two rows the server sends first.
    pub(super) fn order(&self, a: &[Option<String>], b: &[Option<String>]) -> Ordering {
        let keys = self.columns.iter().zip(a.iter().zip(b)).take(self.keys);
        let orders = keys.map(|(column, (a, b))| match (&column.ty, a, b) {
            (ty, Some(a), Some(b)) if ty.is_integer() => {
                a.parse::<i64>().ok().cmp(&b.parse::<i64>().ok())
            }
            _ => a.cmp(b),
        });
        orders.fold(Ordering::Equal, Ordering::then)
    }

    /// The columns, by name, in which two rows of one key differ.
    pub(super) fn differing(
        &self,
        a: &[Option<String>],
        b: &[Option<String>],
    ) -> impl Iterator<Item = (&str, usize)> {
        self.columns.iter().enumerate().skip(self.keys).filter_map(move |(at, column)| {
            let (a, b) = (a.get(at)?, b.get(at)?);
            let same = a == b || column.ty.is_float() && is_close(a.as_deref(), b.as_deref());
            (!same).then_some((column.name.as_str(), at))
        })
    }
}

impl Column {
    fn order(&self) -> String {
        match self.ty {
            ColumnType::Uuid | ColumnType::Bool => self.value.clone(),
            _ if self.ty.is_integer() => self.value.clone(),
            _ => format!("{}::text collate \"C\"", self.value),
        }
    }
}

/// Floats are summed in whatever order batches come, and each order rounds in its own way.
fn is_close(a: Option<&str>, b: Option<&str>) -> bool {
    const ROUNDING: f64 = 1e-6;
    let number = |it: Option<&str>| it.and_then(|it| it.parse::<f64>().ok());
    let (Some(a), Some(b)) = (number(a), number(b)) else { return false };
    (a - b).abs() <= ROUNDING * a.abs().max(b.abs())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The fields of a line of `COPY`'s text format; `None` is null.
pub(super) fn fields(line: &[u8]) -> Vec<Option<String>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let field = |it: &[u8]| (it != b"\\N").then(|| unescape(it));
    line.split(|it| *it == b'\t').map(field).collect()
}

fn unescape(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    if !text.contains('\\') {
        return text.into_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let char = match char {
            '\\' => match chars.next() {
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        };
        plain.push(char);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_as_copy_has_put_it_together() {
        let fields = fields(b"a\\tb\\\\N\t\\N\t\t\\n\n");

        assert_eq!(
            fields,
            [Some("a\tb\\N".to_owned()), None, Some(String::new()), Some("\n".to_owned())]
        );
    }

    #[test]
    fn sums_of_floats_may_round_differently_and_other_numbers_may_not() {
        assert!(is_close(Some("0.30000000000000004"), Some("0.3")));
        assert!(is_close(Some("-0"), Some("0")));
        assert!(!is_close(Some("0.31"), Some("0.3")));
        assert!(!is_close(None, Some("0.3")));
    }
}
