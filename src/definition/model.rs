//! A definition after all checks. Columns are meant by their place in [`Definition::columns`].

use std::path::PathBuf;
use std::sync::Arc;

use super::expr::Expr;
use super::handler::Code;
use super::sql::Sql;
use super::types::ColumnType;
use super::upcast::Upcast;
use crate::ident::Ident;

/// A projection: a table, and the rules that make its rows out of events.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The projection's name, which is its table's.
    pub name: String,
    /// The table.
    pub table: Ident,
    /// Which row an event touches, unless a rule says otherwise; at least one part.
    pub key: Vec<KeyPart>,
    /// The column that row level security goes by.
    pub tenant: Option<usize>,
    /// In the file's order.
    pub columns: Vec<Column>,
    /// Besides the key's.
    pub indexes: Vec<Index>,
    /// Projections of one lane commit together.
    pub lane: String,
    /// In the file's order, which is the order in which they apply to one event.
    pub rules: Vec<Rule>,
    /// Columns filled from the run's own history.
    pub lookups: Vec<Lookup>,
    /// How attempts supersede one another, if they do.
    pub epoch: Option<Epoch>,
    /// How events of older schemas are read: its own, and shared ones that its rules can see.
    pub upcasts: Arc<[Upcast]>,
    /// What decides between two events that set the same column.
    pub order: Order,
    /// The code that says what events do, where `[[on]]` does not: then each rule stands for an
    /// operation that it uses.
    pub code: Option<Code>,
    /// The statement that makes the rows, where neither rules nor code do.
    pub sql: Option<Sql>,
    /// What becomes of an event that a rule fails on. Not part of the hash.
    pub on_error: OnError,
    /// SHA-256 of the normalised form, in hexadecimal: the same for the same meaning. Behind it, where
    /// they matter and are not the built-in ones, what tells the rules of `[redact]`.
    pub hash: String,
    /// Where it was read.
    pub file: PathBuf,
    /// What was read. By itself it gives this definition again, so that rows made by it can be
    /// followed after its file has changed.
    pub text: Arc<str>,
}

impl Definition {
    /// The place of the column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|it| it.name.as_str() == name)
    }
}

/// One column of the key, and the expression that fills it.
#[derive(Clone, Debug)]
pub struct KeyPart {
    /// The column.
    pub column: usize,
    /// Gives its value; never null for an event that a rule takes.
    pub value: Expr,
}

/// A column of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Ident,
    /// The SQL text after the name: type, constraints, default.
    pub declared: String,
    /// Its type.
    pub ty: ColumnType,
    /// Whether it is declared `not null`.
    pub not_null: bool,
    /// Whether Postgres computes it.
    pub generated: bool,
    /// The SQL text of the default.
    pub default: Option<String>,
    /// The default as JSON, where it is a literal: for folds in memory.
    pub default_value: Option<serde_json::Value>,
}

/// An index besides the primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The SQL text between the parentheses, columns quoted: `"project_id", "started_at" desc`.
    pub columns: String,
    /// The names of the columns, for the index's own name.
    pub names: Vec<Ident>,
}

/// What decides between two events that touch the same column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// A row belongs to one run: the higher `version` is the later.
    Version,
    /// A row gathers events of many runs: the higher `position` is the later.
    Position,
    /// Nothing: no operation depends on order, or each event has a row of its own.
    Unordered,
}

/// What becomes of an event that a rule fails on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Its row is parked as it was before; all other rows go on.
    #[default]
    Park,
    /// The projection stops.
    Pause,
}

impl OnError {
    /// How a file spells them.
    pub(super) const NAMES: [&str; 2] = ["park", "pause"];

    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "park" => Some(Self::Park),
            "pause" => Some(Self::Pause),
            _ => None,
        }
    }
}

/// An `[[on]]` table: what some events do to their rows.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The events it takes.
    pub events: EventMatch,
    /// It takes only events for which this is true.
    pub when: Option<Expr>,
    /// An array: the rule applies once an element, with `item` and `index` in scope.
    pub foreach: Option<Expr>,
    /// Which row, where it is not the table's key. Has all columns of the table's key, in the same
    /// order.
    pub key: Option<Vec<KeyPart>>,
    /// In the file's order.
    pub operations: Vec<Operation>,
    /// Removes the row; then there are no operations.
    pub delete: bool,
    /// The line of its `[[on]]`, from 1.
    pub line: usize,
}

/// The events a rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventMatch {
    /// All.
    Any,
    /// Those of these types.
    Types(Vec<String>),
}

impl EventMatch {
    /// Whether it takes events of type `kind`.
    pub fn matches(&self, kind: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Types(types) => types.iter().any(|it| it == kind),
        }
    }
}

/// What one rule does to one column.
#[derive(Clone, Debug)]
pub struct Operation {
    /// How the value meets the row's.
    pub op: Op,
    /// The column.
    pub column: usize,
    /// The value.
    pub value: Expr,
    /// Where it stands in the file, from 1.
    pub line: usize,
}

/// How a value meets the row's own. Null is a value for `Set`; the others pass over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The latest event's value, null included.
    Set,
    /// The first event's value that is not null.
    SetOnce,
    /// The sum.
    Add,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// At the end of an array.
    Append,
    /// Members into an object; the latest event's member wins.
    Merge,
}

impl Op {
    /// All, in the order of the reference.
    pub const ALL: [Self; 7] =
        [Self::Set, Self::SetOnce, Self::Add, Self::Min, Self::Max, Self::Append, Self::Merge];

    /// Its key in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::SetOnce => "set_once",
            Self::Add => "add",
            Self::Min => "min",
            Self::Max => "max",
            Self::Append => "append",
            Self::Merge => "merge",
        }
    }

    /// Whether the result depends on the order of events.
    pub fn is_order_sensitive(self) -> bool {
        match self {
            Self::Set | Self::SetOnce | Self::Append | Self::Merge => true,
            Self::Add | Self::Min | Self::Max => false,
        }
    }
}

/// A column filled from the run's history up to the event that writes the row: the first or last
/// value at a path that is not null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The column.
    pub column: usize,
    /// Which of the values.
    pub which: Which,
    /// The path within the payload, without `payload` itself.
    pub path: Vec<String>,
}

/// Which value a [`Lookup`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// The one of the lowest version.
    First,
    /// The one of the highest version.
    Last,
}

/// Attempts that supersede one another: a row tells of its newest epoch only.
///
/// Every event has a rank: `value` as an integer, or none when it is null. A row has the rank in
/// `column`, null until an event with a rank came. Seen in the row's order, an event
/// * of a **higher** rank than the row's first puts all columns but the key, those in `keep` and
///   generated ones back to their defaults and stores its rank, then applies;
/// * of the **same** rank, or **without** one, applies;
/// * for a row **without** a rank, stores its rank and applies: what came before belongs to it;
/// * of a **lower** rank changes only the columns in `keep`.
///
/// `keep` columns thus do not know of epochs. No rule may name `column`. The order is always
/// [`Order::Version`].
///
/// For a fold that does not see the stored row, a pending change with the greatest rank `g` comes
/// to one of three results, each the fold of a part of its events (`keep` columns apart):
/// * stored rank below `g`: the events from the first of rank `g` on, without lower ranks, on a row
///   put back to defaults. So too without a stored rank, when a lower rank came before `g`;
/// * stored rank `g`, or none: the events of rank `g` and those without a rank;
/// * stored rank above `g`: the events without a rank.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Holds the rank; an integer column outside the key.
    pub column: usize,
    /// Gives an event's rank.
    pub value: Expr,
    /// Columns that outlive an epoch.
    pub keep: Vec<usize>,
}

impl Epoch {
    /// Whether `column` survives a new epoch (the key does so anyhow).
    pub fn keeps(&self, column: usize) -> bool {
        self.keep.contains(&column)
    }
}
