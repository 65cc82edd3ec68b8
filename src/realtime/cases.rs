//! Given/expect cases of broadcasts: events told in memory.

use serde_json::{Map, Value};

use crate::definition::case::{Case, Difference, compare};
use crate::definition::{Broadcast, Line, Scope, Scratch};
use crate::redact::Redactor;

/// Holds the lines of the given events against what is expected: the members of a line, and `topic`.
/// An event that has no line because a rule fails on it is expected in `set_aside`.
pub fn run(broadcast: &Broadcast, case: &Case, redactor: &Redactor) -> Vec<Difference> {
    let (mut scratch, mut line) = (Scratch::default(), Line::default());
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    for event in case.given.events() {
        let scope = Scope::new(event, &mut scratch, redactor);
        match broadcast.render(&scope, usize::MAX, &mut line) {
            Ok(true) => lines.push(row(&line)),
            Ok(false) => {}
            Err(error) => failed.push(format!("{}: {error}", event.kind)),
        }
    }
    let mut differences = compare(&case.expect, &lines);
    let mut failed = failed.into_iter();
    for expected in &case.set_aside {
        let found = failed.next();
        if !found.as_ref().is_some_and(|it| it.contains(expected.as_str())) {
            differences.push(Difference::SetAside { expected: expected.clone(), found });
        }
    }
    differences.extend(
        failed.map(|found| Difference::SetAside {
            expected: "nothing".to_owned(),
            found: Some(found),
        }),
    );
    differences
}

fn row(line: &Line) -> Map<String, Value> {
    let mut row: Map<String, Value> = serde_json::from_str(&line.json).unwrap_or_default();
    row.insert("topic".to_owned(), Value::from(line.topic.as_str()));
    row
}
