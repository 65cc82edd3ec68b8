//! What differs between two definitions of a projection, in words.

use crate::definition::{Definition, EventMatch, Operation, Rule};

/// Every difference that makes other rows, one line each: columns, key, tenant, indexes, what is
/// looked up, rules. Empty when only comments, blanks or the lane differ.
pub(super) fn differences(before: &Definition, after: &Definition) -> Vec<String> {
    let mut found = Vec::new();
    columns(&declared(before), &declared(after), &mut found);
    if key(before) != key(after) {
        found.push(format!("key {} becomes {}", key(before), key(after)));
    }
    let tenant = |it: &Definition| it.tenant.map_or("none", |at| name(it, at)).to_owned();
    if tenant(before) != tenant(after) {
        found.push(format!("tenant `{}` becomes `{}`", tenant(before), tenant(after)));
    }
    listed("index", &indexes(before), &indexes(after), &mut found);
    listed("lookup", &lookups(before), &lookups(after), &mut found);
    if epoch(before) != epoch(after) {
        found.push("how attempts supersede one another changes".to_owned());
    }
    rules(before, after, &mut found);
    found
}

/// The same where only the columns are known that the rows have.
pub(super) fn column_differences(
    before: &[(String, String)],
    after: &[(String, String)],
) -> Vec<String> {
    let mut found = Vec::new();
    columns(before, after, &mut found);
    found
}

fn declared(it: &Definition) -> Vec<(String, String)> {
    it.columns.iter().map(|it| (it.name.as_str().to_owned(), plain(&it.declared))).collect()
}

/// With single blanks, as the hash sees it.
fn plain(sql: &str) -> String {
    if sql.contains(['\'', '"']) {
        return sql.to_owned();
    }
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn columns(before: &[(String, String)], after: &[(String, String)], found: &mut Vec<String>) {
    let of = |list: &[(String, String)], name: &str| {
        list.iter().find(|(it, _)| it == name).map(|(_, declared)| declared.clone())
    };
    let count = found.len();
    for (name, declared) in after {
        match of(before, name) {
            None => found.push(format!("column `{name}` added: {declared}")),
            Some(old) if old != *declared => {
                found.push(format!("column `{name}`: {old} becomes {declared}"));
            }
            Some(_) => {}
        }
    }
    for (name, _) in before.iter().filter(|(name, _)| of(after, name).is_none()) {
        found.push(format!("column `{name}` removed"));
    }
    if found.len() == count && before != after {
        found.push("columns in another order".to_owned());
    }
}

fn name(it: &Definition, column: usize) -> &str {
    it.columns.get(column).map_or("", |it| it.name.as_str())
}

fn key(it: &Definition) -> String {
    let part = |part: &crate::definition::KeyPart| {
        format!("{} = {}", name(it, part.column), part.value.text())
    };
    format!("({})", it.key.iter().map(part).collect::<Vec<_>>().join(", "))
}

fn indexes(it: &Definition) -> Vec<String> {
    it.indexes.iter().map(|it| format!("({})", it.columns)).collect()
}

fn lookups(it: &Definition) -> Vec<String> {
    let one = |lookup: &crate::definition::Lookup| {
        let which = format!("{:?}", lookup.which).to_lowercase();
        format!("{} = {which} {}", name(it, lookup.column), lookup.path.join("."))
    };
    it.lookups.iter().map(one).collect()
}

fn epoch(it: &Definition) -> Option<(String, String, Vec<String>)> {
    it.epoch.as_ref().map(|epoch| {
        let mut keep: Vec<_> = epoch.keep.iter().map(|at| name(it, *at).to_owned()).collect();
        keep.sort_unstable();
        (name(it, epoch.column).to_owned(), epoch.value.text().to_owned(), keep)
    })
}

/// What of a kind came and what went.
fn listed(kind: &str, before: &[String], after: &[String], found: &mut Vec<String>) {
    found.extend(
        after.iter().filter(|it| !before.contains(it)).map(|it| format!("{kind} {it} added")),
    );
    found.extend(
        before.iter().filter(|it| !after.contains(it)).map(|it| format!("{kind} {it} removed")),
    );
}

/// Rules that mean the same are matched first; of the rest, those for the same events are one rule
/// that was changed.
fn rules(before: &Definition, after: &Definition, found: &mut Vec<String>) {
    let form = |definition: &Definition, rule: &Rule| {
        (takes(rule), conditions(definition, rule), operations(definition, rule))
    };
    let mut old: Vec<&Rule> = before.rules.iter().collect();
    let mut new: Vec<&Rule> = Vec::new();
    for rule in &after.rules {
        let same = old.iter().position(|it| form(before, it) == form(after, rule));
        match same {
            Some(at) => drop(old.remove(at)),
            None => new.push(rule),
        }
    }
    if old.is_empty() && new.is_empty() {
        let order = |it: &Definition| it.rules.iter().map(|r| form(it, r)).collect::<Vec<_>>();
        if order(before) != order(after) {
            found.push("rules in another order".to_owned());
        }
        return;
    }
    for rule in new {
        let (events, line) = (takes(rule), rule.line);
        let Some(at) = old.iter().position(|it| takes(it) == events) else {
            found.push(format!("rule for {events} added (line {line})"));
            continue;
        };
        let was = old.remove(at);
        let mut details = Vec::new();
        if conditions(before, was) != conditions(after, rule) {
            details.push("which events and rows it takes".to_owned());
        }
        let (was, is) = (operations(before, was), operations(after, rule));
        for (column, operation) in &is {
            match was.iter().find(|(it, _)| it == column) {
                None => details.push(format!("`{column}` added")),
                Some((_, old)) if old != operation => details.push(format!("`{column}`")),
                Some(_) => {}
            }
        }
        for (column, _) in was.iter().filter(|(it, _)| !is.iter().any(|(new, _)| new == it)) {
            details.push(format!("`{column}` removed"));
        }
        found.push(format!("rule for {events} changed (line {line}): {}", details.join(", ")));
    }
    found.extend(old.iter().map(|it| format!("rule for {} removed", takes(it))));
}

fn takes(rule: &Rule) -> String {
    match &rule.events {
        EventMatch::Any => "every event".to_owned(),
        EventMatch::Types(types) => {
            let mut types = types.clone();
            types.sort_unstable();
            types.join(", ")
        }
    }
}

/// Everything of a rule that decides whether and which rows it touches.
fn conditions(definition: &Definition, rule: &Rule) -> Vec<String> {
    let mut list = Vec::new();
    for (label, expr) in [("when", &rule.when), ("foreach", &rule.foreach)] {
        list.extend(expr.as_ref().map(|it| format!("{label} {}", it.text())));
    }
    for part in rule.key.iter().flatten() {
        list.push(format!("{} = {}", name(definition, part.column), part.value.text()));
    }
    if rule.delete {
        list.push("delete".to_owned());
    }
    list
}

/// What it does to each column, by the column's name: their order means nothing.
fn operations(definition: &Definition, rule: &Rule) -> Vec<(String, String)> {
    let one = |it: &Operation| {
        let what = format!("{} {}", it.op.name(), it.value.text());
        (name(definition, it.column).to_owned(), what)
    };
    let mut list: Vec<_> = rule.operations.iter().map(one).collect();
    list.sort_unstable();
    list
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::definition::parse;

    const BEFORE: &str = r#"
table = "runs"
key = { run_id = "run_id" }
indexes = ["status"]

[columns]
run_id = "uuid"
status = "text not null"
started_at = "timestamptz"
failures = "int not null default 0"

[[on]]
event = "run_started"
set = { status = "'running'", started_at = "recorded_at" }

[[on]]
event = "run_failed"
set = { status = "'failed'" }
add = { failures = "`1`" }
"#;

    fn compare(change: impl Fn(&str) -> String) -> Vec<String> {
        let after = change(BEFORE);
        assert_ne!(after, BEFORE);
        let parse = |text: &str| parse(Path::new("runs.toml"), text).unwrap();
        let (before, after) = (parse(BEFORE), parse(&after));
        let found = differences(&before, &after);
        assert_eq!(found.is_empty(), before.hash == after.hash, "{found:?}");
        found
    }

    #[test]
    fn comments_blanks_and_the_order_of_keys_are_no_difference() {
        let same = compare(|it| {
            it.replace("[columns]", "# all of them\n[columns]\n")
                .replace("text not null", "text  not null")
                .replace(
                    "{ status = \"'running'\", started_at = \"recorded_at\" }",
                    "{ started_at = \"recorded_at\", status = \"'running'\" }",
                )
        });

        assert_eq!(same, Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_change_is_named() {
        let one = |from: &str, to: &str| compare(|it| it.replacen(from, to, 1));

        assert_eq!(
            one(
                "int not null default 0\"",
                "bigint not null default 0\"\nnote = \"text\"\n[[on]]\nevent = \"log\"\nset = { note = \"payload.message\" }"
            ),
            [
                "column `failures`: int not null default 0 becomes bigint not null default 0",
                "column `note` added: text",
                "rule for log added (line 12)",
            ]
        );
        assert_eq!(
            one("[\"status\"]", "[\"started_at\"]"),
            ["index (\"started_at\") added", "index (\"status\") removed",]
        );
        assert_eq!(
            one("'failed'", "'broken'"),
            ["rule for run_failed changed (line 16): `status`"]
        );
        assert_eq!(
            one("\nadd = { failures = \"`1`\" }", ""),
            ["rule for run_failed changed (line 16): `failures` removed"]
        );
        assert_eq!(
            one("event = \"run_failed\"", "event = \"run_failed\"\nwhen = \"payload.final\""),
            ["rule for run_failed changed (line 16): which events and rows it takes"]
        );
        assert_eq!(
            one("\"run_failed\"", "\"run_canceled\""),
            ["rule for run_canceled added (line 16)", "rule for run_failed removed",]
        );
        assert_eq!(
            one("{ run_id = \"run_id\" }", "{ run_id = \"payload.run\" }"),
            ["key (run_id = run_id) becomes (run_id = payload.run)"]
        );
    }
}
