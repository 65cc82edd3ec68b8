//! Which operations may meet on one column: what a batch does to a column must come to one change.

use super::Check;
use crate::definition::draft::{Draft, DraftOperation};
use crate::definition::model::{Op, Order};

/// A fold keeps a bit a column.
const MOST_COLUMNS: usize = 64;

impl Check<'_> {
    /// A column takes `set` and one other operation; where rows gather events of many runs, one
    /// operation alone, since positions tell only events of one operation apart.
    pub(super) fn mixing(&mut self, draft: &Draft, order: Order) {
        let operations = || draft.rules.iter().flat_map(|rule| &rule.operations);
        for (number, operation) in operations().enumerate() {
            let meets = |first: &&DraftOperation| {
                let same = first.column.value == operation.column.value && first.op != operation.op;
                let with_set = first.op == Op::Set || operation.op == Op::Set;
                same && (!with_set || order == Order::Position)
            };
            let Some(first) = operations().take(number).find(meets) else { continue };
            let column = &operation.column.value;
            let (one, other) = (first.op.name(), operation.op.name());
            let message = format!("`{one}` and `{other}` cannot both write column `{column}`");
            let hint = match order {
                Order::Position => "events of many runs meet in a row: use one operation a column",
                _ => "use a column for each; `set` may go with any one of them",
            };
            let label = format!("`{one}` writes it elsewhere");
            self.source.problem(&operation.column.span, message, label, Some(hint.to_owned()));
        }
    }

    pub(super) fn column_count(&mut self, draft: &Draft) {
        let Some((name, _)) = draft.columns.get(MOST_COLUMNS) else { return };
        let message = format!("a table has {MOST_COLUMNS} columns at most");
        let label = format!("column {}", MOST_COLUMNS + 1);
        self.source.problem(&name.span, message, label, None);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::definition::parse;

    fn problems(key: &str, operations: &str) -> Vec<String> {
        let text = format!(
            "table = \"t\"\nkey = {{ {key} }}\n[columns]\nid = \"uuid\"\nn = \"int\"\n\
             [[on]]\nevent = \"a\"\nset = {{ n = \"`1`\" }}\n{operations}"
        );
        let found = parse(Path::new("t.toml"), &text).err().unwrap_or_default();
        found.into_iter().map(|it| it.message).collect()
    }

    const BY_RUN: &str = "id = \"run_id\"";
    const BY_PROJECT: &str = "id = \"project_id\"";
    const ADD: &str = "[[on]]\nevent = \"b\"\nadd = { n = \"`1`\" }\n";
    const MAX: &str = "[[on]]\nevent = \"c\"\nmax = { n = \"`1`\" }\n";

    #[test]
    fn two_operations_besides_set_on_one_column_are_refused() {
        assert_eq!(problems(BY_RUN, ADD), [""; 0]);
        assert_eq!(
            problems(BY_RUN, &format!("{ADD}{MAX}")),
            ["`add` and `max` cannot both write column `n`"]
        );
    }

    #[test]
    fn where_runs_meet_in_a_row_a_column_takes_one_operation() {
        assert_eq!(problems(BY_PROJECT, ""), [""; 0]);
        assert_eq!(problems(BY_PROJECT, ADD), ["`set` and `add` cannot both write column `n`"]);
    }
}
