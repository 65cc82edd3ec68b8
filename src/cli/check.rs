//! `projector check`: configuration and definitions, without a database.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::out::{DIM, GOOD, Out, styled};
use crate::cli::{CheckArgs, Context, Exit};
use crate::definition::{self, Broadcast, Definition, Definitions, Problem};

pub(super) fn run(args: &CheckArgs, context: &Context) -> anyhow::Result<Exit> {
    // The configuration has been checked already, or we would not be here.
    if args.show_config {
        return show_config(context);
    }
    let folder = args.folder.as_deref().unwrap_or(&context.config().projections);
    let Some(all) = load(folder, &context.out)? else { return Ok(Exit::USAGE) };
    let (definitions, broadcasts) = (&all.projections, &all.broadcasts);
    if context.out.is_json() {
        let list: Vec<_> = definitions.iter().map(describe).collect();
        let told: Vec<_> = broadcasts.iter().map(describe_broadcast).collect();
        context.out.json(&json!({ "definitions": list, "broadcasts": told, "problems": [] }))?;
        return Ok(Exit::DONE);
    }
    for it in definitions {
        let (columns, rules) = (it.columns.len(), it.rules.len());
        let file = it.file.display();
        let ok = styled(GOOD, "ok");
        let upcasts = match it.upcasts.len() {
            0 => String::new(),
            count => format!(", {}", plural(count, "upcast")),
        };
        context
            .out
            .line(format_args!("{ok}  {file}  {columns} columns, {rules} rules{upcasts}"))?;
    }
    for it in broadcasts {
        let (file, topic, event) = (it.file.display(), it.topic.text(), &it.event);
        let (ok, rules) = (styled(GOOD, "ok"), plural(it.rules.len(), "rule"));
        context.out.line(format_args!("{ok}  {file}  broadcast `{event}` on {topic}, {rules}"))?;
    }
    if definitions.is_empty() && broadcasts.is_empty() {
        context.out.note(format_args!("no definitions in {}", folder.display()));
    }
    Ok(Exit::DONE)
}

/// The definitions of a folder; `None` after their problems have been told.
pub(super) fn load(folder: &Path, out: &Out) -> anyhow::Result<Option<Definitions>> {
    match definition::load_all(folder) {
        Ok(definitions) => Ok(Some(definitions)),
        Err(problems) => {
            tell(&problems, out)?;
            Ok(None)
        }
    }
}

/// Every problem with its place: pictures for people, a document for machines.
pub(super) fn tell(problems: &[Problem], out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        let list: Vec<_> = problems.iter().map(problem).collect();
        out.json(&json!({ "definitions": [], "problems": list }))?;
        return Ok(());
    }
    for problem in problems {
        out.complain(format_args!("{}\n\n", problem.render_styled()));
    }
    out.complain(format_args!("{} found\n", plural(problems.len(), "problem")));
    Ok(())
}

/// `1 problem`, `2 problems`
pub(super) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn problem(it: &Problem) -> Value {
    json!({
        "file": it.file, "line": it.line, "column": it.column,
        "message": it.message, "label": it.label, "hint": it.hint,
    })
}

fn describe(it: &Definition) -> Value {
    json!({
        "name": it.name, "file": it.file, "hash": it.hash, "lane": it.lane,
        "columns": it.columns.len(), "rules": it.rules.len(), "upcasts": it.upcasts.len(),
    })
}

fn describe_broadcast(it: &Broadcast) -> Value {
    json!({
        "name": it.name, "file": it.file, "hash": it.hash, "topic": it.topic.text(),
        "event": it.event, "private": it.private, "rules": it.rules.len(),
    })
}

/// Every value and where it comes from.
fn show_config(context: &Context) -> anyhow::Result<Exit> {
    let shown = &context.loaded.shown;
    if context.out.is_json() {
        let one = |it: &crate::config::Shown| {
            (it.key.clone(), json!({ "value": it.value, "origin": it.origin.to_string() }))
        };
        let object: Map<_, _> = shown.iter().map(one).collect();
        context.out.json(&object)?;
        return Ok(Exit::DONE);
    }
    let mut text = String::new();
    for it in shown {
        let value = if it.value.is_empty() { "-" } else { &it.value };
        let origin = styled(DIM, &it.origin);
        writeln!(text, "{:<22} {value:<24} {origin}", it.key)?;
    }
    context.out.write(text)?;
    Ok(Exit::DONE)
}
