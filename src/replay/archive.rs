//! Where history is, and the statements that read it.

use std::sync::Arc;

use postgres_types::Type;

use crate::config::Columns;
use crate::definition::{Definition, EventMatch, KeyPart, Value, time_text};
use crate::event::Event;
use crate::history::event::select_list;
use crate::ident::{Ident, QualifiedName};
use crate::redact::Redactor;

/// What time travel needs to know of an installation.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The schema of the read models.
    pub schema: Ident,
    /// The events table.
    pub events: QualifiedName,
    /// What its columns are called.
    pub columns: Columns,
    /// What `redact()` hides.
    pub redactor: Arc<Redactor>,
    /// What projections mean now.
    pub definitions: Vec<Arc<Definition>>,
}

/// The types of the parameters of [`Archive::run_sql`]: run, version, count.
pub const RUN_TYPES: [Type; 3] = [Type::UUID, Type::INT4, Type::INT8];

/// A statement whose parameters are texts, but for the last two: after which event (`bigint`), and
/// how many at most (`bigint`, null for all).
#[derive(Debug)]
pub struct Scan {
    /// The statement.
    pub sql: String,
    /// The texts before those two.
    pub texts: Vec<String>,
    /// Whether the order is that of versions, not that of positions.
    pub by_version: bool,
}

impl Scan {
    /// Where to go on after this event.
    pub fn after(&self, event: &Event<'_>) -> i64 {
        if self.by_version { event.version.into() } else { event.position }
    }
}

impl Archive {
    /// The events of run `$1` after version `$2`, in order; `$3` at most, null for all.
    pub fn run_sql(&self) -> String {
        let Columns { run_id, version, .. } = &self.columns;
        let (list, events) = (select_list(&self.columns), &self.events);
        format!(
            "select {list} from {events} where {run_id} = $1 and $2 < {version} \
             order by {version} limit $3"
        )
    }

    /// The last version of run `$1`, and its tenant.
    pub fn last_sql(&self) -> String {
        let Columns { run_id, version, project_id, .. } = &self.columns;
        let events = &self.events;
        format!(
            "select {version}, {project_id} from {events} where {run_id} = $1 \
             order by {version} desc limit 1"
        )
    }

    /// The definition of a projection.
    pub fn definition(&self, name: &str) -> Option<&Arc<Definition>> {
        self.definitions.iter().find(|it| it.name == name)
    }

    /// All events that may have touched a row of this key, in order: of its run, or of all runs by
    /// position. Conditions are those that the events table can decide by itself: parts of the key
    /// that are fields of the event, and the types of events that rules take.
    pub fn scan(&self, definition: &Definition, key: &[Value<'_>]) -> Scan {
        let mut texts = Vec::new();
        let mut conditions = Vec::new();
        for (part, value) in definition.key.iter().zip(key) {
            let Some((left, ty)) = self.in_sql(definition, part) else { continue };
            texts.push(text(value));
            conditions.push(format!("{left} = ${}::text::{ty}", texts.len()));
        }
        if let Some(kinds) = kinds(definition) {
            let list: Vec<_> = kinds
                .into_iter()
                .map(|kind| {
                    texts.push(kind.to_owned());
                    format!("${}", texts.len())
                })
                .collect();
            conditions.push(format!("{}::text in ({})", self.columns.kind, list.join(", ")));
        }
        let by_version = definition.belongs_to_runs();
        // a run's events by position would make the planner read the whole index
        let order = if by_version { &self.columns.version } else { &self.columns.position };
        let (after, most) = (texts.len() + 1, texts.len() + 2);
        conditions.push(format!("${after} < {order}"));
        let (list, condition) = (select_list(&self.columns), conditions.join(" and "));
        let events = &self.events;
        let sql =
            format!("select {list} from {events} where {condition} order by {order} limit ${most}");
        Scan { sql, texts, by_version }
    }

    /// What fills a column of the key, in SQL, and its type; `None` where only rules can tell.
    fn in_sql(&self, definition: &Definition, part: &KeyPart) -> Option<(String, &'static str)> {
        let mut own = definition.rules.iter().filter_map(|it| it.key.as_ref()).flatten();
        if own.any(|it| it.column == part.column && it.value.text() != part.value.text()) {
            return None;
        }
        if let Some(unit) = part.value.as_recorded_unit() {
            let recorded_at = &self.columns.recorded_at;
            return Some((format!("date_trunc('{unit}', {recorded_at}, 'UTC')"), "timestamptz"));
        }
        let field = part.value.as_field()?;
        let pairs = self.columns.pairs().into_iter().zip(self.columns.types());
        let found = pairs.into_iter().find(|((name, _), _)| *name == field);
        found.map(|((_, column), (_, ty))| (column.to_string(), ty))
    }

    /// The live row of a key as JSON, by parameters that are texts.
    pub fn live_row(&self, definition: &Definition, key: &[Value<'_>]) -> (String, Vec<String>) {
        let mut conditions = Vec::new();
        for (number, column) in (1..).zip(definition.key_columns()) {
            let Some(column) = definition.columns.get(column) else { continue };
            conditions.push(format!("it.{} = ${number}::text::{}", column.name, column.ty));
        }
        let (schema, table) = (&self.schema, &definition.table);
        let condition = conditions.join(" and ");
        let sql = format!("select to_jsonb(it)::text from {schema}.{table} it where {condition}");
        (sql, key.iter().map(text).collect())
    }
}

/// The types of events that some rule takes; `None` for all.
fn kinds(definition: &Definition) -> Option<Vec<&str>> {
    // a lookup may read any event
    if !definition.lookups.is_empty() {
        return None;
    }
    let mut kinds = Vec::new();
    for rule in &definition.rules {
        match &rule.events {
            EventMatch::Any => return None,
            EventMatch::Types(types) => kinds.extend(types.iter().map(String::as_str)),
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    Some(kinds)
}

/// A value in Postgres' text form.
fn text(value: &Value<'_>) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(it) => it.to_string(),
        Value::Int(it) => it.to_string(),
        Value::Float(it) => it.to_string(),
        Value::Text(it) => it.to_string(),
        Value::Uuid(it) => it.to_string(),
        Value::Time(it) => time_text(*it),
    }
}
