//! Broadcast definitions: what is wrong with a bad one is said clearly, and the shipped ones are good.

use std::path::{Path, PathBuf};

use projector::definition::{self, Problem, case, parse_broadcast};
use projector::realtime::cases;
use projector::redact::Redactor;

fn projections() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("projections")
}

/// All problems of a bad broadcast, as they are printed.
fn complaints(text: &str) -> String {
    let text = format!("kind = \"broadcast\"\n{text}");
    let files = [(PathBuf::from("projections/told.toml"), text)];
    let problems = definition::parse_files(&files).expect_err("a bad broadcast");
    problems.iter().map(Problem::render).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn the_shipped_broadcasts_and_their_cases_are_good() {
    let broadcasts = definition::load_all(&projections()).unwrap().broadcasts;
    let names: Vec<_> = broadcasts.iter().map(|it| (it.name.as_str(), it.is_whole)).collect();
    assert_eq!(names, [("live_log", true), ("run_events", false)]);
    for broadcast in &broadcasts {
        assert!(broadcast.private);
        for (_, value) in broadcast.rules.iter().flat_map(|it| &it.payload) {
            assert!(value.is_fast(), "{}: {value:?}", broadcast.name);
        }
        let file = projections().join(format!("tests/{}.toml", broadcast.name));
        let text = std::fs::read_to_string(&file).unwrap();
        let cases = case::parse(&file, &text).unwrap();
        assert!(3 <= cases.len());
        for case in &cases {
            assert_eq!(cases::run(broadcast, case, &Redactor::default()), [], "{}", case.name);
        }
    }
}

#[test]
fn a_case_that_is_wrong_fails() {
    let broadcast = definition::load_all(&projections()).unwrap().broadcasts.remove(0);
    let text = "[[case]]\nname = 'x'\ngiven = [{ type = 'log', payload = { message = 'a' } }]\n\
                expect = [{ message = 'b', topic = 'run:1' }]\nset_aside = ['why']\n";
    let case = case::parse("x.toml".as_ref(), text).unwrap().remove(0);

    let differences = cases::run(&broadcast, &case, &Redactor::default());

    assert_eq!(differences.len(), 3, "{differences:?}");
}

#[test]
fn an_empty_broadcast_lacks_everything() {
    insta::assert_snapshot!(complaints(""));
}

#[test]
fn all_problems_of_a_broadcast_are_told_at_once() {
    insta::assert_snapshot!(complaints(
        r#"
topic   = "run:{runid}"
event   = "*"
private = "yes"
table   = "x"

[[on]]
event   = "log"
when    = "payload.level =="
payload = { version = "position", cut = "payload.cut", text = "item.text" }
set     = { a = "1" }
"#
    ));
}

#[test]
fn topics_that_cannot_be_joined_are_refused() {
    let with = |topic: &str| {
        complaints(&format!(
            "topic = \"{topic}\"\nevent = \"log\"\n[[on]]\nevent = \"*\"\npayload = {{ a = \"type\" }}"
        ))
    };
    let long = "x".repeat(247);
    let all = ["", "realtime:run:{run_id}", "run:{run_id", "run:run_id}", &long].map(with);
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn a_rule_says_something_of_some_events() {
    insta::assert_snapshot!(complaints(
        "topic = \"all\"\nevent = \"log\"\n[[on]]\nwhen = \"type\"\n"
    ));
}

#[test]
fn names_and_topics_of_definitions_differ() {
    let told = "kind = \"broadcast\"\ntopic = \"all\"\nevent = \"log\"\n[[on]]\nevent = \"*\"\npayload = { a = \"type\" }\n";
    let table = "table = \"runs\"\nkey = { run_id = \"run_id\" }\n[columns]\nrun_id = \"uuid\"\nseen = \"int\"\n[[on]]\nevent = \"*\"\nset = { seen = \"version\" }\n";
    let unknown = table.replace("table =", "kind = \"brodcast\"\ntable =");
    let file = |name: &str, text: &str| (PathBuf::from(name), text.to_owned());
    let files = [
        file("a.toml", told),
        file("b.toml", told),
        file("runs.toml", &told.replace("\"all\"", "\"other\"")),
        file("z.toml", table),
        file("zz.toml", &unknown),
    ];

    let problems = definition::parse_files(&files).unwrap_err();

    let text = problems.iter().map(Problem::render).collect::<Vec<_>>().join("\n\n");
    insta::assert_snapshot!(text);
}

#[test]
fn the_same_meaning_has_the_same_hash() {
    let text = std::fs::read_to_string(projections().join("live_log.toml")).unwrap();
    let hash = |text: &str| parse_broadcast("live_log.toml".as_ref(), text).unwrap().hash;

    assert_eq!(hash(&text), hash(&format!("# a comment\n{text}")));
    assert_ne!(hash(&text), hash(&text.replace("\"log\"", "\"line\"")));
    assert_ne!(hash(&text), hash(&text.replace("'info'", "'note'")));
}
