//! The checks of the table: its columns and indexes.

use super::Check;
use crate::definition::columns;
use crate::definition::draft::{Draft, Text};
use crate::definition::json;
use crate::definition::model::{Column, Index};
use crate::definition::types::ColumnType;

/// Columns that Postgres or the projector has already.
const RESERVED_COLUMNS: &[&str] =
    &["_positions", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

impl Check<'_> {
    pub(super) fn all_columns(&mut self, draft: &Draft) -> Vec<Column> {
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

    /// `projector.can_read`, which guards the rows, takes a uuid.
    pub(super) fn tenant(&mut self, text: &Text) -> Option<usize> {
        let place = self.column(text)?;
        let ty = &self.columns.get(place)?.ty;
        if *ty != ColumnType::Uuid {
            let message = format!("the tenant's column `{}` is {ty}", text.value);
            self.source.problem(&text.span, message, "expected uuid", None);
        }
        Some(place)
    }

    pub(super) fn index(&mut self, text: &Text) -> Option<Index> {
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
}
