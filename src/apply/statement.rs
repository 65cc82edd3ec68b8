//! The one statement that writes the pending rows of a projection, made from its definition.
//!
//! Rows come in as parallel arrays (`unnest`), one array a column, and meet the table in a `MERGE`:
//! one statement a table and batch, whatever mixture of new, changed and deleted rows it carries,
//! and none of the row locks that `INSERT … ON CONFLICT DO UPDATE` writes to the log. The engine is
//! the table's only writer, so that nobody can insert between the match and the insert.
//!
//! A table whose key is unique to an event (its run and version) only ever grows: it gets a plain
//! `INSERT`.
//!
//! Names in the statement: `t` the stored row, `u` the pending row with `c0 …` its cells, `s` and
//! `d` the bits of the columns that are set and combined, `f` flags (1 deleted, 2 replaced), `o` the
//! row's order, `e` its epoch, `p0 …` the position of each order-sensitive column.

use postgres_types::Type;

use crate::config::Columns;
use crate::definition::ColumnType;
use crate::definition::{Column, Definition, Op, Order, Which};
use crate::ident::{QualifiedName, literal};

/// A statement and what its parameters carry, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The text.
    pub sql: String,
    /// What each parameter is.
    pub parameters: Vec<Parameter>,
}

/// What an array parameter carries, one element a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The cells of a column.
    Cells(usize),
    /// The bits of the columns that are set.
    SetBits,
    /// The bits of the columns that are combined.
    DeltaBits,
    /// 1 deleted, 2 replaced.
    Flags,
    /// The row's order.
    Order,
    /// The row's epoch.
    Epoch,
    /// The position of a column's cell, null where it has none.
    Position(usize),
}

/// The bit of [`Parameter::Flags`] that says that the row does not exist afterwards.
pub const DELETED: i32 = 1;
/// The bit of [`Parameter::Flags`] that says that the stored row counts for nothing.
pub const REPLACED: i32 = 2;

/// The column that remembers positions, one for each order-sensitive column.
pub const POSITIONS: &str = "_positions";

/// Makes the statement that writes changes of `definition` to `target`; `events` is where lookups
/// read history, with the names of its columns.
pub fn statement(
    definition: &Definition,
    target: &QualifiedName,
    (events, names): (&QualifiedName, &Columns),
) -> Statement {
    let builder = Builder { definition, target, events, names };
    if definition.is_unique_per_event() { builder.insert() } else { builder.merge() }
}

/// The array type in which a column's cells travel.
pub fn array_type(ty: &ColumnType) -> Type {
    match ty {
        ColumnType::Bool => Type::BOOL_ARRAY,
        ColumnType::Int2 => Type::INT2_ARRAY,
        ColumnType::Int4 => Type::INT4_ARRAY,
        ColumnType::Int8 => Type::INT8_ARRAY,
        ColumnType::Float4 => Type::FLOAT4_ARRAY,
        ColumnType::Float8 => Type::FLOAT8_ARRAY,
        ColumnType::Uuid => Type::UUID_ARRAY,
        ColumnType::Timestamptz => Type::TIMESTAMPTZ_ARRAY,
        _ => Type::TEXT_ARRAY,
    }
}

impl Parameter {
    /// The type of the array.
    pub fn ty(self, definition: &Definition) -> Type {
        match self {
            Self::Cells(column) => definition
                .columns
                .get(column)
                .map_or(Type::TEXT_ARRAY, |column| array_type(&column.ty)),
            Self::Flags | Self::Epoch => Type::INT4_ARRAY,
            Self::SetBits | Self::DeltaBits | Self::Order | Self::Position(_) => Type::INT8_ARRAY,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Cells(column) => format!("c{column}"),
            Self::SetBits => "s".into(),
            Self::DeltaBits => "d".into(),
            Self::Flags => "f".into(),
            Self::Order => "o".into(),
            Self::Epoch => "e".into(),
            Self::Position(column) => format!("p{column}"),
        }
    }
}

struct Builder<'a> {
    definition: &'a Definition,
    target: &'a QualifiedName,
    events: &'a QualifiedName,
    names: &'a Columns,
}

impl Builder<'_> {
    fn insert(&self) -> Statement {
        let parameters = self.parameters();
        let (names, values) = self.inserted();
        let sql = format!(
            "insert into {} ({})\nselect {}\nfrom {}",
            self.target,
            names.join(", "),
            values.join(", "),
            self.source(&parameters),
        );
        Statement { sql, parameters }
    }

    fn merge(&self) -> Statement {
        let parameters = self.parameters();
        let mut sql =
            format!("merge into {} t\nusing {}\non ", self.target, self.source(&parameters));
        for (at, column) in self.definition.key_columns().enumerate() {
            let and = if at == 0 { "" } else { " and " };
            let name = &self.column(column).name;
            sql += &format!("{and}t.{name} = {}", self.cell(column));
        }
        let deletes = self.definition.deletes();
        if deletes {
            sql += &format!("\nwhen matched and u.f & {DELETED} <> 0 then delete");
        }
        let updates = self.updated();
        if updates.is_empty() {
            sql.push_str("\nwhen matched then do nothing");
        } else {
            sql += &format!("\nwhen matched then update set {}", updates.join(",\n  "));
        }
        let (names, values) = self.inserted();
        let unless = if deletes { format!(" and u.f & {DELETED} = 0") } else { String::new() };
        sql += &format!(
            "\nwhen not matched{unless} then insert ({})\nvalues ({})",
            names.join(", "),
            values.join(", "),
        );
        Statement { sql, parameters }
    }

    fn parameters(&self) -> Vec<Parameter> {
        let definition = self.definition;
        let mut list: Vec<_> = definition.written_columns().map(Parameter::Cells).collect();
        if definition.is_unique_per_event() {
            if definition.stored_columns().any(|it| self.has_choice(it)) {
                list.extend([Parameter::SetBits, Parameter::DeltaBits]);
            }
            return list;
        }
        if definition.order == Order::Position {
            list.extend(definition.ordered_columns().map(Parameter::Position));
        }
        list.extend([Parameter::SetBits, Parameter::DeltaBits]);
        if definition.deletes() || definition.epoch.is_some() {
            list.push(Parameter::Flags);
        }
        if definition.epoch.is_some() {
            list.push(Parameter::Epoch);
        }
        if !definition.lookups.is_empty() {
            list.push(Parameter::Order);
        }
        list
    }

    /// Whether a new row's column depends on what was said of it: on the event or on a default.
    fn has_choice(&self, column: usize) -> bool {
        self.column(column).default.is_some() && !self.definition.always_sets(column)
    }

    /// `(select … from unnest($1::uuid[], …) u (c0, …)) u`, with what is looked up in history.
    fn source(&self, parameters: &[Parameter]) -> String {
        let arrays: Vec<_> = parameters
            .iter()
            .enumerate()
            .map(|(at, it)| {
                let array = it.ty(self.definition);
                format!("${}::{}[]", at + 1, element_name(&array))
            })
            .collect();
        let names: Vec<_> = parameters.iter().map(|it| it.name()).collect();
        let rows = format!("unnest({}) as u ({})", arrays.join(", "), names.join(", "));
        if self.definition.lookups.is_empty() {
            return rows;
        }
        let lookups: Vec<_> = self
            .definition
            .lookups
            .iter()
            .map(|lookup| {
                let path: Vec<_> = lookup.path.iter().map(|it| array_element(it)).collect();
                let path = literal(&format!("{{{}}}", path.join(",")));
                let direction = match lookup.which {
                    Which::First => "asc",
                    Which::Last => "desc",
                };
                let run = self.run_column();
                let alive = if self.definition.deletes() {
                    format!(" and u.f & {DELETED} = 0")
                } else {
                    String::new()
                };
                let Columns { run_id, version, payload, .. } = self.names;
                let get = match self.column(lookup.column).ty {
                    ColumnType::Json | ColumnType::Jsonb => "#>",
                    _ => "#>>",
                };
                format!(
                    "(select h.{payload} {get} {path} from {} h\n  \
                     where h.{run_id} = u.c{run} and h.{version} <= u.o{alive}\n  \
                     and h.{payload} #>> {path} is not null\n  \
                     order by h.{version} {direction} limit 1) as l{}",
                    self.events, lookup.column
                )
            })
            .collect();
        format!("(select u.*,\n  {}\nfrom {rows}) u", lookups.join(",\n  "))
    }

    /// The names and the values of a row that is new.
    fn inserted(&self) -> (Vec<String>, Vec<String>) {
        let mut names = Vec::new();
        let mut values = Vec::new();
        for column in self.definition.stored_columns() {
            names.push(self.column(column).name.to_string());
            values.push(self.fresh(column));
        }
        if self.definition.order == Order::Position {
            names.push(POSITIONS.to_owned());
            let positions: Vec<_> =
                self.definition.ordered_columns().map(|it| format!("u.p{it}")).collect();
            values.push(format!("array[{}]::int8[]", positions.join(", ")));
        }
        (names, values)
    }

    /// The assignments to a row that is there.
    fn updated(&self) -> Vec<String> {
        let definition = self.definition;
        let mut list = Vec::new();
        for column in definition.stored_columns() {
            if definition.key_columns().any(|it| it == column) {
                continue;
            }
            let Column { name, .. } = self.column(column);
            let mut value = self.combined(column);
            if let Some(epoch) = &definition.epoch {
                let stored = &self.column(epoch.column).name;
                if column == epoch.column {
                    value = format!("greatest(t.{name}, u.e)");
                } else if !epoch.keeps(column) && !self.is_looked_up(column) {
                    let fresh = self.fresh(column);
                    value = format!(
                        "case when u.e < t.{stored} then t.{name} \
                         when u.e > t.{stored} then {fresh} else {value} end"
                    );
                }
            }
            if definition.deletes() {
                let fresh = self.fresh(column);
                value = format!("case when u.f & {REPLACED} <> 0 then {fresh} else {value} end");
            }
            list.push(format!("{name} = {value}"));
        }
        if definition.order == Order::Position {
            let merged: Vec<_> = definition
                .ordered_columns()
                .enumerate()
                .map(|(at, column)| {
                    let pick = if definition.ops_of(column).contains(&Op::SetOnce) {
                        "least"
                    } else {
                        "greatest"
                    };
                    let merged = format!("{pick}(t.{POSITIONS}[{}], u.p{column})", at + 1);
                    if definition.deletes() {
                        format!(
                            "case when u.f & {REPLACED} <> 0 then u.p{column} else {merged} end"
                        )
                    } else {
                        merged
                    }
                })
                .collect();
            list.push(format!("{POSITIONS} = array[{}]", merged.join(", ")));
        }
        list
    }

    /// A column of a row that was not there before: what the events gave, on top of the default.
    fn fresh(&self, column: usize) -> String {
        let Column { default, ty, .. } = self.column(column);
        let cell = self.cell(column);
        if let Some(epoch) = &self.definition.epoch
            && epoch.column == column
        {
            return match default {
                Some(default) => format!("coalesce(u.e, {default})"),
                None => "u.e".into(),
            };
        }
        if self.is_looked_up(column) {
            return cell;
        }
        // without a default a column that nothing was said of is null, and so is its cell
        let Some(default) = default else { return cell };
        if self.definition.always_sets(column) {
            return cell;
        }
        let set = self.is_set(column);
        let delta = self.definition.ops_of(column).into_iter().find(|op| *op != Op::Set);
        match delta {
            None => format!("case when {set} then {cell} else {default} end"),
            Some(op) => {
                let combined = combine(op, &format!("({default})"), &cell, ty);
                let delta = format!("u.d & {} <> 0", bit(column));
                format!(
                    "case when {set} then {cell} when {delta} then {combined} else {default} end"
                )
            }
        }
    }

    /// A column of a row that is there: what the events gave, on top of what is stored.
    fn combined(&self, column: usize) -> String {
        let Column { name, ty, not_null, .. } = self.column(column);
        let stored = format!("t.{name}");
        let cell = self.cell(column);
        if self.is_looked_up(column) {
            return format!("coalesce({cell}, {stored})");
        }
        if let Some(at) = self.definition.ordered_columns().position(|it| it == column)
            && self.definition.order == Order::Position
        {
            let known = format!("t.{POSITIONS}[{}]", at + 1);
            return if self.definition.ops_of(column).contains(&Op::SetOnce) {
                format!(
                    "case when u.p{column} < coalesce({known}, u.p{column} + 1) then {cell} else {stored} end"
                )
            } else {
                format!(
                    "case when u.p{column} >= coalesce({known}, 0) then {cell} else {stored} end"
                )
            };
        }
        if self.definition.always_sets(column) {
            return cell;
        }
        let ops = self.definition.ops_of(column);
        let delta = ops.iter().copied().find(|op| *op != Op::Set);
        let sets = ops.contains(&Op::Set);
        let set = self.is_set(column);
        match (sets, delta) {
            (_, None) => format!("case when {set} then {cell} else {stored} end"),
            (false, Some(Op::Add)) if *not_null => format!("{stored} + coalesce({cell}, 0)"),
            (false, Some(Op::SetOnce)) => format!("coalesce({stored}, {cell})"),
            (false, Some(op)) => {
                let combined = combine(op, &stored, &cell, ty);
                format!("case when u.d & {} <> 0 then {combined} else {stored} end", bit(column))
            }
            (true, Some(op)) => {
                let combined = combine(op, &stored, &cell, ty);
                let delta = format!("u.d & {} <> 0", bit(column));
                format!(
                    "case when {set} then {cell} when {delta} then {combined} else {stored} end"
                )
            }
        }
    }

    /// Whether a column's cell is its new value.
    fn is_set(&self, column: usize) -> String {
        if self.definition.order == Order::Position
            && self.definition.ordered_columns().any(|it| it == column)
        {
            return format!("u.p{column} is not null");
        }
        format!("u.s & {} <> 0", bit(column))
    }

    /// A pending cell, in the column's own type.
    fn cell(&self, column: usize) -> String {
        let ty = self.column(column).ty.clone();
        if self.is_looked_up(column) {
            // a text out of history, whatever the column is
            return format!("u.l{column}::{ty}");
        }
        cast(&format!("u.c{column}"), &ty)
    }

    /// Whether history fills the column, whichever epoch its events are of.
    fn is_looked_up(&self, column: usize) -> bool {
        self.definition.lookups.iter().any(|it| it.column == column)
    }

    fn run_column(&self) -> usize {
        self.definition.run_column().unwrap_or_default()
    }

    fn column(&self, column: usize) -> &Column {
        self.definition.columns.get(column).expect("a definition's parts speak of its own columns")
    }
}

/// Puts a stored value and a delta together, where both may be null.
fn combine(op: Op, stored: &str, cell: &str, ty: &ColumnType) -> String {
    match (op, ty) {
        (Op::Set, _) => cell.to_owned(),
        (Op::SetOnce, _) => format!("coalesce({stored}, {cell})"),
        (Op::Add, _) => format!("coalesce({stored}, 0) + coalesce({cell}, 0)"),
        // batches compare texts by their bytes, so the table must too
        (Op::Min, ColumnType::Text) => {
            format!("least({stored} collate \"C\", {cell} collate \"C\")")
        }
        (Op::Max, ColumnType::Text) => {
            format!("greatest({stored} collate \"C\", {cell} collate \"C\")")
        }
        (Op::Min, _) => format!("least({stored}, {cell})"),
        (Op::Max, _) => format!("greatest({stored}, {cell})"),
        (Op::Append, ColumnType::Json) => format!(
            "(coalesce({stored}::jsonb, '[]'::jsonb) || coalesce({cell}::jsonb, '[]'::jsonb))::json"
        ),
        (Op::Append | Op::Merge, ColumnType::Jsonb) => {
            let empty = if op == Op::Append { "[]" } else { "{}" };
            format!("coalesce({stored}, '{empty}'::jsonb) || coalesce({cell}, '{empty}'::jsonb)")
        }
        (Op::Merge, _) => format!(
            "(coalesce({stored}::jsonb, '{{}}'::jsonb) || coalesce({cell}::jsonb, '{{}}'::jsonb))::json"
        ),
        (Op::Append, _) => format!("coalesce({stored}, '{{}}') || {cell}"),
    }
}

/// A cell that travels as text, cast to its column's type.
fn cast(cell: &str, ty: &ColumnType) -> String {
    match ty {
        ColumnType::Numeric => format!("{cell}::numeric"),
        ColumnType::Date => format!("{cell}::date"),
        ColumnType::Json => format!("{cell}::json"),
        ColumnType::Jsonb => format!("{cell}::jsonb"),
        ColumnType::Other(name) => format!("{cell}::{name}"),
        _ => cell.to_owned(),
    }
}

fn bit(column: usize) -> i64 {
    i64::from_ne_bytes((1_u64 << (column % 64)).to_ne_bytes())
}

/// A text as an element of an array literal: quoted, so that it means itself.
fn array_element(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn element_name(array: &Type) -> &str {
    match array.kind() {
        postgres_types::Kind::Array(element) => element.name(),
        _ => array.name(),
    }
}
