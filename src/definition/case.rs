//! Given/expect cases: `projections/tests/<table>.toml`.
//!
//! A case gives events and expects the rows that they make. This module reads cases and compares
//! rows; folding is the caller's.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;
use uuid::Uuid;

use super::problem::{Problem, Source};
use super::time;
use crate::event::{Batch, Event, Timestamp};
use crate::lsn::Lsn;

/// 2026-01-01 12:00:00 UTC: when the first event of a case is recorded, unless it says otherwise.
/// The next ones follow a second apart.
const FIRST_RECORDED: Timestamp = Timestamp(1_767_268_800_000_000);

/// One case of a file.
#[derive(Debug)]
pub struct Case {
    /// A sentence.
    pub name: String,
    /// The events, a transaction each.
    pub given: Batch,
    /// The rows, in no order.
    pub expect: Vec<ExpectedRow>,
    /// A part of the error of each event that is set aside because a rule fails on it, in order.
    pub set_aside: Vec<String>,
    /// Where it stands in the file, from 1.
    pub line: usize,
}

/// The columns of a row that a case names; the others may hold anything.
pub type ExpectedRow = Map<String, Value>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    case: Vec<Spanned<WrittenCase>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    name: String,
    given: Vec<Spanned<WrittenEvent>>,
    expect: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    set_aside: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEvent {
    r#type: String,
    project_id: Option<Id>,
    run_id: Option<Id>,
    version: Option<i32>,
    position: Option<i64>,
    event_id: Option<Id>,
    #[serde(default)]
    payload: Json,
    #[serde(default)]
    metadata: Json,
    recorded_at: Option<toml::Value>,
}

/// A UUID, or a small number that stands for one.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u32),
    Text(Uuid),
}

impl Id {
    fn uuid(&self) -> Uuid {
        match self {
            Self::Text(it) => *it,
            Self::Number(it) => numbered(u64::from(*it)),
        }
    }
}

/// `00000000-0000-7000-8000-…` with the number at the end.
fn numbered(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x7000, 0x8000_0000_0000_0000 | number)
}

/// A TOML table, or JSON as a text (for null and for what TOML cannot say).
#[derive(Deserialize)]
#[serde(untagged)]
enum Json {
    Text(String),
    Table(toml::Table),
}

impl Default for Json {
    fn default() -> Self {
        Self::Table(toml::Table::new())
    }
}

impl Json {
    fn text(&self) -> Result<String, String> {
        match self {
            Self::Table(it) => Ok(json(&toml::Value::Table(it.clone())).to_string()),
            Self::Text(it) => match serde_json::from_str::<&serde_json::value::RawValue>(it) {
                Ok(_) => Ok(it.clone()),
                Err(error) => Err(format!("not JSON: {error}")),
            },
        }
    }
}

/// Reads a file of cases.
///
/// # Errors
/// What is wrong with it: the first mistake in its form, or all in its values.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Case>, Vec<Problem>> {
    let mut source = Source::new(file, text);
    let written: CaseFile = match toml::from_str(text) {
        Ok(it) => it,
        Err(error) => {
            let span = error.span().unwrap_or_default();
            source.problem(&span, error.message().lines().next().unwrap_or_default(), "", None);
            return Err(source.problems);
        }
    };
    let cases: Vec<_> = written.case.into_iter().map(|it| case(&mut source, it)).collect();
    if source.problems.is_empty() { Ok(cases) } else { Err(source.problems) }
}

fn case(source: &mut Source<'_>, written: Spanned<WrittenCase>) -> Case {
    let line = source.line(written.span().start);
    let written = written.into_inner();
    let mut given = Batch::default();
    let mut versions: Vec<(Uuid, i32)> = Vec::new();
    for (number, event) in (1_i64..).zip(&written.given) {
        if let Err(reason) = push(&mut given, &mut versions, number, event.get_ref()) {
            source.problem(&event.span(), reason, "in this event", None);
        }
    }
    let expect = written.expect.iter().map(|it| expected_row(source, it)).collect();
    Case { name: written.name, given, expect, set_aside: written.set_aside, line }
}

fn push(
    given: &mut Batch,
    versions: &mut Vec<(Uuid, i32)>,
    number: i64,
    event: &WrittenEvent,
) -> Result<(), String> {
    let or = |id: &Option<Id>, default: u64| id.as_ref().map_or(numbered(default), Id::uuid);
    let run_id = or(&event.run_id, 1);
    let last = versions.iter().rev().find(|it| it.0 == run_id).map_or(0, |it| it.1);
    let version = event.version.unwrap_or(last + 1);
    versions.push((run_id, version));
    let recorded_at = match &event.recorded_at {
        None => Timestamp(FIRST_RECORDED.0 + (number - 1) * 1_000_000),
        Some(written) => {
            let text = plain(written);
            time::parse(&text).ok_or_else(|| format!("`recorded_at` is not a time: {text}"))?
        }
    };
    let (payload, metadata) = (event.payload.text()?, event.metadata.text()?);
    let lsn = number.unsigned_abs() * 100;
    given.begin(Lsn(lsn), recorded_at);
    given.push(Event {
        position: event.position.unwrap_or(number),
        project_id: or(&event.project_id, 0),
        run_id,
        version,
        event_id: or(&event.event_id, 1_000_000 + number.unsigned_abs()),
        kind: &event.r#type,
        payload: &payload,
        metadata: &metadata,
        recorded_at,
    });
    given.commit(Lsn(lsn + 50));
    Ok(())
}

/// `null = ["error"]` names columns that must be null, which TOML cannot say otherwise.
fn expected_row(source: &mut Source<'_>, written: &Spanned<toml::Table>) -> ExpectedRow {
    let mut row = ExpectedRow::new();
    for (column, value) in written.get_ref() {
        if column != "null" {
            row.insert(column.clone(), json(value));
            continue;
        }
        for name in value.as_array().into_iter().flatten() {
            match name.as_str() {
                Some(name) => drop(row.insert(name.to_owned(), Value::Null)),
                None => source.problem(&written.span(), "`null` lists names of columns", "", None),
            }
        }
    }
    row
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(it) => it.clone(),
        other => other.to_string(),
    }
}

fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(it) => Value::from(it.as_str()),
        toml::Value::Integer(it) => Value::from(*it),
        toml::Value::Float(it) => Value::from(*it),
        toml::Value::Boolean(it) => Value::from(*it),
        toml::Value::Datetime(it) => Value::from(it.to_string()),
        toml::Value::Array(it) => it.iter().map(json).collect(),
        toml::Value::Table(it) => {
            Value::Object(it.iter().map(|(key, value)| (key.clone(), json(value))).collect())
        }
    }
}

/// Where rows are not as expected.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// More or fewer rows.
    Rows {
        /// How many the case names.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A column holds something else.
    Value {
        /// Which row of `expect`, from 1.
        row: usize,
        /// The column.
        column: String,
        /// What the case says.
        expected: Value,
        /// What the nearest row holds; `None` when it has no such column.
        found: Option<Value>,
    },
    /// Another event is set aside, or none.
    SetAside {
        /// What the case says.
        expected: String,
        /// The event's type and its error.
        found: Option<String>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows { expected, found } => write!(f, "expected {expected} rows, found {found}"),
            Self::Value { row, column, expected, found } => {
                write!(f, "row {row}, `{column}`: expected {expected}, found ")?;
                match found {
                    Some(found) => write!(f, "{found}"),
                    None => f.write_str("no such column"),
                }
            }
            Self::SetAside { expected, found } => {
                let found = found.as_deref().unwrap_or("no such event");
                write!(f, "set aside: expected `{expected}`, found {found}")
            }
        }
    }
}

/// Compares on the columns that `expected` names; the rows' order does not matter. Each expected
/// row is held against the row, not taken yet, that it has most in common with.
pub fn compare(expected: &[ExpectedRow], found: &[Map<String, Value>]) -> Vec<Difference> {
    let mut differences = Vec::new();
    if expected.len() != found.len() {
        differences.push(Difference::Rows { expected: expected.len(), found: found.len() });
    }
    let mut free: Vec<_> = found.iter().collect();
    let mut order: Vec<_> = expected.iter().enumerate().collect();
    // those that have their equal choose first, so that none is taken from them
    let has_equal = |row: &ExpectedRow| found.iter().any(|it| wrong(row, it).next().is_none());
    order.sort_by_key(|(_, row)| !has_equal(row));
    for (number, row) in order {
        let nearest = free.iter().enumerate().min_by_key(|(_, it)| wrong(row, it).count());
        let Some((place, _)) = nearest else { break };
        let actual = free.swap_remove(place);
        differences.extend(wrong(row, actual).map(|(column, value)| Difference::Value {
            row: number + 1,
            column: column.clone(),
            expected: value.clone(),
            found: actual.get(column).cloned(),
        }));
    }
    differences
}

fn wrong<'a>(
    expected: &'a ExpectedRow,
    found: &'a Map<String, Value>,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    expected
        .iter()
        .filter(|(column, value)| !found.get(*column).is_some_and(|it| is_same(value, it)))
}

/// Numbers by value, times by moment, all else as it is.
pub fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => {
            a == b || time::parse(a).is_some_and(|a| time::parse(b) == Some(a))
        }
        (Value::Number(number), Value::String(text))
        | (Value::String(text), Value::Number(number)) => {
            text.parse().is_ok_and(|it: f64| number.as_f64() == Some(it))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(rows: Value) -> Vec<Map<String, Value>> {
        serde_json::from_value(rows).unwrap()
    }

    #[test]
    fn what_an_event_leaves_out_is_counted_on() {
        let cases = parse(
            Path::new("run_status.toml"),
            r#"
            [[case]]
            name = "two runs"
            given = [
              { type = "run_started", payload = { workflow = "w", n = [1, 2.5] } },
              { type = "run_started", run_id = 2, recorded_at = 2026-03-01T00:00:00Z },
              { type = "log", payload = '{"message": null}' },
            ]
            expect = [{ status = "running", null = ["error"] }, {}]
            "#,
        )
        .unwrap();

        let events: Vec<_> = cases[0].given.events().collect();
        assert_eq!(events.iter().map(|it| it.version).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(events.iter().map(|it| it.position).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(events[0].run_id.to_string(), "00000000-0000-7000-8000-000000000001");
        assert_eq!(events[0].payload, r#"{"n":[1,2.5],"workflow":"w"}"#);
        assert_eq!(time::text(events[0].recorded_at), "2026-01-01T12:00:00Z");
        assert_eq!(time::text(events[1].recorded_at), "2026-03-01T00:00:00Z");
        assert_eq!(events[2].payload, r#"{"message": null}"#);
        assert_eq!(cases[0].expect[0].get("error"), Some(&Value::Null));
        assert_eq!(cases[0].line, 2);
    }

    #[test]
    fn a_misspelt_key_is_pointed_at() {
        let problems =
            parse(Path::new("t.toml"), "[[case]]\nname = \"x\"\ngiven = []\nexpected = []")
                .unwrap_err();

        assert_eq!((problems[0].line, problems[0].column), (4, 1));
    }

    #[test]
    fn rows_are_compared_by_value_and_in_any_order() {
        let expected = rows(json!([{"a": 1, "at": "2026-01-01T00:00:00Z"}, {"a": 2}]));

        let found = rows(json!([{"a": 2.0, "b": 1}, {"a": 1, "at": "2026-01-01 00:00:00+00:00"}]));
        assert_eq!(compare(&expected, &found), []);

        let found = rows(json!([{"a": 1, "at": null}]));
        let said: Vec<_> = compare(&expected, &found).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "expected 2 rows, found 1",
                "row 1, `at`: expected \"2026-01-01T00:00:00Z\", found null"
            ]
        );
    }
}
