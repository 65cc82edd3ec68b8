//! Definitions: what is wrong with a bad one is said clearly, and the shipped ones are good.

use std::path::{Path, PathBuf};

use projector::definition::{self, Definition, Order, Problem, case};

fn parse(text: &str) -> Result<Definition, Vec<Problem>> {
    definition::parse(Path::new("projections/runs.toml"), text)
}

/// All problems of a bad definition, as they are printed.
fn complaints(text: &str) -> String {
    let problems = parse(text).expect_err("a bad definition");
    problems.iter().map(Problem::render).collect::<Vec<_>>().join("\n\n")
}

/// A good beginning, so that each test shows only what is bad.
const GOOD: &str = r#"
table = "runs"
key   = { run_id = "run_id" }

[columns]
run_id   = "uuid"
status   = "text"
failures = "int not null default 0"
seen_at  = "timestamptz"
notes    = "jsonb"
millis   = "bigint generated always as (failures * 2) stored"
"#;

fn complaints_about_rule(rule: &str) -> String {
    complaints(&format!("{GOOD}\n[[on]]\n{rule}"))
}

fn projections() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("projections")
}

#[test]
fn the_shipped_definitions_have_no_problems() {
    let definitions = match definition::load(&projections()) {
        Ok(it) => it,
        Err(problems) => panic!("{}", problems.iter().map(Problem::render).collect::<String>()),
    };

    let orders: Vec<_> = definitions.iter().map(|it| (it.name.as_str(), it.order)).collect();
    assert_eq!(
        orders,
        [
            ("dead_runs", Order::Version),
            ("run_log", Order::Unordered),
            ("run_status", Order::Version),
            ("step_status", Order::Version),
            ("workflow_stats", Order::Unordered),
        ]
    );
    for definition in &definitions {
        assert!(definition.tenant.is_some(), "{}", definition.name);
        let operations = definition.rules.iter().flat_map(|it| &it.operations);
        for operation in operations {
            assert!(operation.value.is_fast(), "{}: {:?}", definition.name, operation.value);
        }
    }
}

#[test]
fn every_shipped_definition_has_cases_that_name_its_columns() {
    for definition in definition::load(&projections()).unwrap() {
        let file = projections().join(format!("tests/{}.toml", definition.name));
        let text = std::fs::read_to_string(&file).unwrap();
        let cases = match case::parse(&file, &text) {
            Ok(it) => it,
            Err(problems) => panic!("{}", problems.iter().map(Problem::render).collect::<String>()),
        };

        assert!(3 <= cases.len(), "{}", file.display());
        for column in cases.iter().flat_map(|it| &it.expect).flat_map(|it| it.keys()) {
            assert!(definition.column(column).is_some(), "{}: `{column}`", file.display());
        }
    }
}

#[test]
fn the_hash_follows_the_meaning_and_not_the_writing() {
    let hash = |text: &str| parse(text).unwrap().hash;
    let rule =
        "[[on]]\nevent = [\"a\", \"b\"]\nset = { status = \"type\", seen_at = \"recorded_at\" }";
    let first = hash(&format!("{GOOD}{rule}"));

    let rewritten = rule.replace("\"a\", \"b\"", "\"b\",\n \"a\"");
    let rewritten = rewritten.replace(
        "status = \"type\", seen_at = \"recorded_at\"",
        "seen_at='recorded_at', status='type'",
    );
    let comments = GOOD
        .replace("[columns]", "# the columns\n\n[columns] # here")
        .replace("int not null", "int  not null");
    assert_eq!(hash(&format!("{comments}{rewritten}")), first);

    assert_ne!(hash(&format!("{GOOD}{}", rule.replace("\"type\"", "\"'x'\""))), first);
    assert_ne!(hash(&format!("{GOOD}{}", rule.replace("set", "set_once"))), first);
    assert_ne!(
        hash(
            &format!("{GOOD}when = \"payload.x\"")
                .replace("when", "[[on]]\nevent = \"a\"\nset = { status = \"type\" }\nwhen")
        ),
        first
    );
    assert_ne!(hash(&format!("{}{rule}", GOOD.replace("default 0", "default 1"))), first);
}

#[test]
fn all_problems_are_told_at_once() {
    insta::assert_snapshot!(complaints(
        r#"
tabel = "runs"
key   = { run = "run_id" }

[columns]
run_id = "uuid"
count  = "int not null default 'x'; drop table events"

[[on]]
event = "run_started"
incr  = { count = "`1`" }
set   = { run_id = "payload.run", cout = "`1`" }
"#
    ));
}

#[test]
fn text_that_is_not_toml_is_pointed_at() {
    insta::assert_snapshot!(complaints("table = \"runs\"\nkey = { run_id = }\n"));
}

#[test]
fn an_empty_file_lacks_everything() {
    insta::assert_snapshot!(complaints("# nothing here\n"));
}

#[test]
fn an_unknown_operation_suggests_the_known_one() {
    insta::assert_snapshot!(complaints_about_rule("event = \"*\"\nincr = { failures = \"`1`\" }"));
}

#[test]
fn an_unknown_key_of_a_rule_suggests_the_known_one() {
    insta::assert_snapshot!(complaints_about_rule("events = \"*\"\nset = { status = \"type\" }"));
}

#[test]
fn an_unknown_column_suggests_the_known_one() {
    insta::assert_snapshot!(complaints_about_rule("event = \"*\"\nset = { staus = \"type\" }"));
}

#[test]
fn a_constant_without_quotes_is_no_field_of_an_event() {
    insta::assert_snapshot!(complaints_about_rule("event = \"*\"\nset = { status = \"running\" }"));
}

#[test]
fn a_misspelt_field_of_an_event_suggests_the_known_one() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"*\"\nset = { status = \"paylod.status\" }"
    ));
}

#[test]
fn bad_jmespath_is_pointed_at_inside_of_its_text() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"*\"\nwhen = \"payload.a ||\"\nset = { status = \"payload.[\" }"
    ));
}

#[test]
fn unknown_functions_and_wrong_numbers_of_arguments_are_refused() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"*\"\nset = { status = \"lowr(type)\", seen_at = \"date_trunc(recorded_at)\", notes = \"payload.a | redact(@)\" }"
    ));
}

#[test]
fn a_unit_that_date_trunc_does_not_know_is_refused() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"*\"\nset = { seen_at = \"date_trunc('hours', recorded_at)\" }"
    ));
}

#[test]
fn a_negation_that_jmespath_would_misread_is_refused() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"*\"\nwhen = \"!payload.ok\"\nset = { status = \"type\" }"
    ));
}

#[test]
fn values_that_cannot_fit_their_columns_are_refused() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"*\"\nset = { failures = \"'many'\", seen_at = \"run_id\", run_id = \"`1.5`\" }"
    ));
}

#[test]
fn operations_that_cannot_work_on_their_columns_are_refused() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"*\"\nadd = { status = \"`1`\" }\nmin = { notes = \"payload.a\" }\nappend = { seen_at = \"recorded_at\" }\nmerge = { failures = \"payload\" }"
    ));
}

#[test]
fn a_generated_column_is_not_assigned() {
    insta::assert_snapshot!(complaints_about_rule("event = \"*\"\nset = { millis = \"`1`\" }"));
}

#[test]
fn a_rule_deletes_or_changes() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"*\"\ndelete = true\nset = { status = \"type\" }"
    ));
}

#[test]
fn a_rule_has_something_to_do() {
    insta::assert_snapshot!(complaints_about_rule("event = \"*\""));
}

#[test]
fn one_column_has_one_operation_in_a_rule() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"*\"\nset = { failures = \"`1`\" }\nadd = { failures = \"`1`\" }"
    ));
}

#[test]
fn item_needs_foreach_and_foreach_an_array() {
    insta::assert_snapshot!(complaints_about_rule(
        "event = \"a\"\nset = { status = \"item.x\" }\n\n[[on]]\nevent = \"b\"\nforeach = \"'items'\"\nkey = { status = \"item.x\" }\nset = { notes = \"item\" }"
    ));
}

#[test]
fn an_order_is_needed_where_many_runs_meet_in_a_row() {
    insta::assert_snapshot!(complaints(
        r#"
table  = "projects"
key    = { project_id = "project_id" }

[columns]
project_id = "uuid"
types      = "text[]"
config     = "jsonb"
workflow   = "text"

[lookup]
workflow = { first = "payload.workflow" }

[[on]]
event  = "*"
append = { types = "type" }
merge  = { config = "payload" }

[[on]]
event  = "project_deleted"
delete = true
"#
    ));
}

#[test]
fn columns_that_are_reserved_or_never_filled_are_refused() {
    insta::assert_snapshot!(complaints(
        r#"
table = "events"
key   = { id = "`null`" }
tenant = "project"
indexes = ["id desc, kin", "lower(id)"]

[columns]
id         = "uuid primary key"
_positions = "bigint[]"
kind       = "text"

[[on]]
event = ["a", "*"]
set   = { kind = "type" }
"#
    ));
    insta::assert_snapshot!(
        "never_filled",
        complaints(
            "table = \"t\"\nkey = { id = \"run_id\" }\n[columns]\nid = \"uuid\"\nkind = \"text not null\"\nat = \"int default 1.5\"\n[[on]]\nevent = \"a\"\nset = { at = \"version\" }\n"
        )
    );
}

#[test]
fn lookups_and_epochs_are_checked() {
    insta::assert_snapshot!(complaints(&format!(
        "{GOOD}\n[lookup]\nstatus = {{ latest = \"payload.x\" }}\nnotes = {{ first = \"payload.a || payload.b\" }}\n\n[epoch]\ncolumn = \"status\"\nvalue = \"payload.attempt\"\nkeep = [\"faliures\"]\n\n[[on]]\nevent = \"*\"\nset = {{ status = \"type\" }}\n"
    )));
}

#[test]
fn a_table_has_one_definition() {
    let text = format!("{GOOD}[[on]]\nevent = \"*\"\nset = {{ status = \"type\" }}\n");
    let files = [("a.toml".into(), text.clone()), ("b.toml".into(), text)];

    let problems = definition::parse_all(&files).unwrap_err();

    insta::assert_snapshot!(problems[0].render());
}
