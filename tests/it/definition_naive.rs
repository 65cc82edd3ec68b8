//! A fold that is too slow and too plain to be wrong: one event after the other onto rows in memory.
//! It holds the shipped definitions against their cases, and says what the real fold must come to.

use std::collections::BTreeMap;
use std::path::Path;

use projector::definition::{
    self, ColumnType, Definition, Expr, Op, Problem, Rule, Scope, Scratch, Value, Which, case,
};
use projector::event::{Batch, Event};
use projector::redact::Redactor;
use serde_json::Value as Json;

type Row = serde_json::Map<String, Json>;

/// The rows after all events.
fn fold(definition: &Definition, events: &Batch) -> Vec<Row> {
    let mut rows = BTreeMap::new();
    for event in events.events() {
        let (mut scratch, redactor) = (Scratch::default(), Redactor::default());
        let scope = Scope::new(event, &mut scratch, &redactor);
        for rule in definition.rules.iter().filter(|it| it.events.matches(event.kind)) {
            if rule.when.as_ref().is_none_or(|it| it.is_true(&scope).unwrap()) {
                apply(definition, rule, &scope, &mut rows, events);
            }
        }
    }
    rows.into_values().collect()
}

fn apply(
    definition: &Definition,
    rule: &Rule,
    scope: &Scope<'_>,
    rows: &mut BTreeMap<String, Row>,
    history: &Batch,
) {
    let value = |column: usize, expr: &Expr| {
        let ty = &definition.columns[column].ty;
        json(ty, &ty.fit(expr.evaluate(scope).unwrap()).unwrap())
    };
    let key: Vec<_> =
        definition.key.iter().map(|it| (it.column, value(it.column, &it.value))).collect();
    let id = serde_json::to_string(&key).unwrap();
    if rule.delete {
        rows.remove(&id);
        return;
    }
    let row = rows.entry(id).or_insert_with(|| defaults(definition));
    for (column, part) in key {
        row.insert(name(definition, column), part);
    }

    let mut is_late = false;
    if let Some(epoch) = &definition.epoch {
        let column = name(definition, epoch.column);
        if let (Some(rank), stored) =
            (value(epoch.column, &epoch.value).as_i64(), row[&column].as_i64())
        {
            is_late = stored.is_some_and(|it| rank < it);
            if stored.is_some_and(|it| it < rank) {
                for (place, it) in definition.columns.iter().enumerate() {
                    let in_key = definition.key.iter().any(|it| it.column == place);
                    if !in_key && !epoch.keeps(place) {
                        let default = it.default_value.clone().unwrap_or_default();
                        row.insert(it.name.as_str().to_owned(), default);
                    }
                }
            }
            if !is_late {
                row.insert(column, rank.into());
            }
        }
    }
    for it in &rule.operations {
        let keeps = definition.epoch.as_ref().is_some_and(|epoch| epoch.keeps(it.column));
        if is_late && !keeps {
            continue;
        }
        let new = value(it.column, &it.value);
        let old = &mut row[&name(definition, it.column)];
        match it.op {
            Op::Set => *old = new,
            Op::SetOnce if old.is_null() => *old = new,
            Op::SetOnce => {}
            Op::Add => *old = (old.as_i64().unwrap_or(0) + new.as_i64().unwrap_or(0)).into(),
            other => panic!("no shipped definition uses {other:?}"),
        }
    }
    for it in &definition.lookups {
        let path = format!("payload.{}", it.path.join("."));
        let found = look_up(&path, it.which, scope.event(), history);
        row.insert(name(definition, it.column), found);
    }
}

fn look_up(path: &str, which: Which, of: &Event<'_>, history: &Batch) -> Json {
    let path = Expr::compile(path).unwrap();
    let values = history.events().filter_map(|event| {
        let is_before = event.run_id == of.run_id && event.version <= of.version;
        let (mut scratch, redactor) = (Scratch::default(), Redactor::default());
        let scope = Scope::new(event, &mut scratch, &redactor);
        let value = ColumnType::Text.fit(path.evaluate(&scope).unwrap()).unwrap();
        let value = json(&ColumnType::Text, &value);
        (is_before && !value.is_null()).then_some(value)
    });
    let mut values: Vec<_> = values.collect();
    if which == Which::Last {
        values.reverse();
    }
    values.into_iter().next().unwrap_or_default()
}

fn name(definition: &Definition, column: usize) -> String {
    definition.columns[column].name.as_str().to_owned()
}

/// A new row.
fn defaults(definition: &Definition) -> Row {
    let columns = definition.columns.iter();
    columns
        .map(|it| (it.name.as_str().to_owned(), it.default_value.clone().unwrap_or_default()))
        .collect()
}

fn json(ty: &ColumnType, value: &Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(it) => (*it).into(),
        Value::Int(it) => (*it).into(),
        Value::Float(it) => (*it).into(),
        Value::Text(it) if *ty == ColumnType::Jsonb => serde_json::from_str(it).unwrap(),
        Value::Text(it) => it.as_ref().into(),
        Value::Uuid(it) => it.to_string().into(),
        Value::Time(it) => jiff::Timestamp::from_microsecond(it.0).unwrap().to_string().into(),
    }
}

#[test]
fn every_shipped_case_holds() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("projections");
    let mut wrong = Vec::new();
    for definition in definition::load(&directory).unwrap() {
        let file = directory.join(format!("tests/{}.toml", definition.name));
        let text = std::fs::read_to_string(&file).unwrap();
        let cases = case::parse(&file, &text).unwrap_or_else(|problems: Vec<Problem>| {
            panic!("{}", problems.iter().map(Problem::render).collect::<String>())
        });
        for case in cases {
            let found = fold(&definition, &case.given);
            for difference in case::compare(&case.expect, &found) {
                wrong.push(format!("{}: {}: {difference}", definition.name, case.name));
            }
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The code block of `docs/projections.md` that begins with `start`.
fn from_docs(start: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/projections.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let block = docs.split("```toml\n").find(|it| it.starts_with(start)).unwrap();
    block.split("```").next().unwrap().to_owned()
}

#[test]
fn the_first_projection_of_the_docs_makes_the_row_they_show() {
    let definition = from_docs("# projections/orders.toml");
    let definition = definition.replace("[columns]", "[columns]\ncarrier = \"text\"");
    let definition = definition::parse(Path::new("orders.toml"), &definition).unwrap();

    let cases = case::parse(Path::new("orders.toml"), &from_docs("[[case]]")).unwrap();

    let found = fold(&definition, &cases[0].given);
    assert_eq!(case::compare(&cases[0].expect, &found), []);
    assert_eq!(found[0]["status"], "shipped");
    assert_eq!(found[0]["items"], 3);
}

#[test]
fn a_case_that_does_not_hold_is_told() {
    let definition =
        definition::parse(Path::new("orders.toml"), &from_docs("# projections/orders.toml"))
            .unwrap();
    let case =
        "[[case]]\nname = \"x\"\ngiven = [{ type = \"item_added\" }]\nexpect = [{ items = 2 }]";

    let cases = case::parse(Path::new("orders.toml"), case).unwrap();

    let found = fold(&definition, &cases[0].given);
    let told = case::compare(&cases[0].expect, &found);
    assert_eq!(told[0].to_string(), "row 1, `items`: expected 2, found 1");
}

/// A row of an epoch table: its rank, and two columns that epochs reset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Attempt {
    rank: Option<u8>,
    columns: [Option<usize>; 2],
}

/// An event's rank, the column it sets, and the value.
type Step = (Option<u8>, usize, usize);

fn one_after_the_other(mut row: Attempt, steps: &[Step]) -> Attempt {
    for &(rank, column, value) in steps {
        match (rank, row.rank) {
            (Some(new), Some(old)) if new < old => continue,
            (Some(new), Some(old)) if old < new => row = Attempt::default(),
            _ => {}
        }
        row.rank = rank.or(row.rank);
        row.columns[column] = Some(value);
    }
    row
}

/// What [`definition::Epoch`] promises to a fold that does not see the stored row.
fn by_the_greatest_rank(stored: Attempt, steps: &[Step]) -> Attempt {
    let greatest = steps.iter().filter_map(|it| it.0).max();
    let first = steps.iter().position(|it| it.0 == greatest).unwrap_or_default();
    let lower_before = steps[..first].iter().any(|it| it.0.is_some());
    let is_new = greatest.is_some()
        && stored.rank.map_or(lower_before, |it| greatest.is_some_and(|greatest| it < greatest));
    let is_old = greatest.is_some() && greatest < stored.rank;

    let mut row = if is_new { Attempt::default() } else { stored };
    for &(rank, column, value) in if is_new { &steps[first..] } else { steps } {
        if rank.is_none() || (rank == greatest && !is_old) {
            row.columns[column] = Some(value);
        }
    }
    row.rank = row.rank.max(greatest);
    row
}

proptest::proptest! {
    #[test]
    fn a_pending_change_of_an_epoch_comes_to_one_of_three_results(
        stored in proptest::option::of(0_u8..5),
        steps in proptest::collection::vec((proptest::option::of(0_u8..5), 0_usize..2), 0..8),
    ) {
        let stored = Attempt { rank: stored, columns: [Some(100), Some(101)] };
        let steps: Vec<Step> =
            steps.into_iter().enumerate().map(|(value, it)| (it.0, it.1, value)).collect();

        proptest::prop_assert_eq!(
            by_the_greatest_rank(stored, &steps),
            one_after_the_other(stored, &steps)
        );
    }
}
