//! `projector test`: the definitions' given/expect cases, without a database.
<<<<<<< HEAD

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::check::{load, plural, tell};
use crate::cli::out::{BAD, GOOD, styled};
use crate::cli::{Context, Exit, TestArgs};
use crate::definition::case::{self, Case};
use crate::definition::{self, Definition, Problem};
use crate::fold::cases;
use crate::redact::Redactor;

/// One case and how it went.
struct Outcome {
    table: String,
    name: String,
    place: String,
    differences: Vec<String>,
}

pub(super) fn run(args: &TestArgs, context: &Context) -> anyhow::Result<Exit> {
    let folder = args.folder.as_deref().unwrap_or(&context.config().projections);
    let Some(definitions) = load(folder, &context.out)? else { return Ok(Exit::USAGE) };
    let (outcomes, problems) = outcomes(&definitions, &folder.join("tests"));
    if !problems.is_empty() {
        tell(&problems, &context.out)?;
        return Ok(Exit::USAGE);
    }
    let failed = outcomes.iter().filter(|it| !it.differences.is_empty()).count();
    let passed = outcomes.len() - failed;
    if context.out.is_json() {
        let list: Vec<_> = outcomes.iter().map(describe).collect();
        context.out.json(&json!({ "cases": list, "passed": passed, "failed": failed }))?;
    } else {
        for outcome in &outcomes {
            show(outcome, context)?;
        }
        if outcomes.is_empty() {
            let where_to = folder.join("tests");
            context.out.note(format_args!("no cases in {}", where_to.display()));
        } else {
            let cases = plural(outcomes.len(), "case");
            context.out.line(format_args!("\n{cases}: {passed} passed, {failed} failed"))?;
        }
    }
    Ok(if failed == 0 { Exit::DONE } else { Exit::FAILED })
}

/// Runs the cases of every definition: `tests/TABLE.toml` beside it.
fn outcomes(definitions: &[Definition], folder: &Path) -> (Vec<Outcome>, Vec<Problem>) {
    let (mut outcomes, mut problems) = (Vec::new(), Vec::new());
    let files = if folder.is_dir() { definition::read(folder) } else { Ok(Vec::new()) };
    let files = files.unwrap_or_else(|found| {
        problems.extend(found);
        Vec::new()
    });
    let redactor = Redactor::default();
    for (path, text) in files {
        let stem = path.file_stem().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(definition) = definitions.iter().find(|it| it.name == stem) else {
            let message = format!("cases for `{stem}`, which has no definition here");
            problems.push(Problem::of_file(&path, message));
            continue;
        };
        let definition = Arc::new(definition.clone());
        match case::parse(&path, &text) {
            Ok(list) => outcomes.extend(
                list.iter().map(|case| outcome(&definition, case, &path, &redactor)),
            ),
            Err(found) => problems.extend(found),
        }
    }
    (outcomes, problems)
}

fn outcome(
    definition: &Arc<Definition>,
    case: &Case,
    path: &Path,
    redactor: &Redactor,
) -> Outcome {
    let differences = match cases::run(definition, case, redactor) {
        Ok(list) => list.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    };
    let place = format!("{}:{}", path.display(), case.line);
    Outcome { table: definition.name.clone(), name: case.name.clone(), place, differences }
}

fn show(outcome: &Outcome, context: &Context) -> anyhow::Result<()> {
    let Outcome { table, name, place, differences } = outcome;
    if differences.is_empty() {
        let ok = styled(GOOD, "ok");
        context.out.line(format_args!("{ok}      {table}: {name}"))?;
        return Ok(());
    }
    let failed = styled(BAD, "FAILED");
    context.out.line(format_args!("{failed}  {table}: {name}\n        {place}"))?;
    for difference in differences {
        context.out.line(format_args!("        {difference}"))?;
=======
//!
//! The cases of `projections/NAME.toml` are in `projections/tests/NAME.toml`.

use std::fmt::Display;
use std::io;
use std::path::Path;

use serde_json::json;

use crate::cli::check::{load, plural, tell};
use crate::cli::out::{BAD, GOOD, Out, styled};
use crate::cli::{Context, Exit, Failure, TestArgs};
use crate::definition::Definition;
use crate::definition::case::{self, Case, Difference};

/// How many cases went which way.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
}

/// Runs every case; `fold` makes the rows of a case and compares them with what it expects.
///
/// # Errors
/// When a file cannot be read, or nobody reads the results.
pub fn run<E: Display>(
    args: &TestArgs,
    context: &Context,
    fold: impl Fn(&Definition, &Case) -> Result<Vec<Difference>, E>,
) -> anyhow::Result<Exit> {
    let out = &context.out;
    let folder = args.folder.as_deref().unwrap_or(&context.config().projections);
    let Some(definitions) = load(folder, out)? else { return Ok(Exit::USAGE) };
    let mut count = Count::default();
    for definition in &definitions {
        let file = folder.join("tests").join(format!("{}.toml", definition.name));
        let Some(text) = read(&file)? else { continue };
        let cases = match case::parse(&file, &text) {
            Ok(cases) => cases,
            Err(problems) => {
                tell(&problems, out)?;
                return Ok(Exit::USAGE);
            }
        };
        for case in &cases {
            let wrong: Vec<_> = match fold(definition, case) {
                Ok(differences) => differences.iter().map(ToString::to_string).collect(),
                Err(error) => vec![error.to_string()],
            };
            show(definition, &file, case, &wrong, out)?;
            if wrong.is_empty() { count.passed += 1 } else { count.failed += 1 }
        }
    }
    finish(&count, folder, out)
}

/// A file's text; `None` when there is no such file.
fn read(file: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::new(format!("cannot read `{}`", file.display())).caused_by(error))
        }
    }
}

/// `ok  run_status  a run that fails`, or where it failed and how.
fn show(
    definition: &Definition,
    file: &Path,
    case: &Case,
    wrong: &[String],
    out: &Out,
) -> anyhow::Result<()> {
    let (name, title) = (&definition.name, &case.name);
    if out.is_json() {
        let value = json!({
            "definition": name, "case": title, "file": file, "line": case.line,
            "passed": wrong.is_empty(), "differences": wrong,
        });
        out.json(&value)?;
    } else if wrong.is_empty() {
        out.line(format_args!("{}      {name}  {title}", styled(GOOD, "ok")))?;
    } else {
        out.line(format_args!("{}  {name}  {title}", styled(BAD, "FAILED")))?;
        out.line(format_args!("        {}:{}", file.display(), case.line))?;
        for line in wrong {
            out.line(format_args!("        {line}"))?;
        }
>>>>>>> part/faces
    }
    Ok(())
}

<<<<<<< HEAD
fn describe(outcome: &Outcome) -> Value {
    let Outcome { table, name, place, differences } = outcome;
    json!({
        "table": table, "case": name, "place": place,
        "passed": differences.is_empty(), "differences": differences,
    })
=======
fn finish(count: &Count, folder: &Path, out: &Out) -> anyhow::Result<Exit> {
    let Count { passed, failed } = count;
    if out.is_json() {
        out.json(&json!({ "passed": passed, "failed": failed }))?;
    } else if passed + failed == 0 {
        out.line(format_args!("no cases in {}", folder.join("tests").display()))?;
    } else {
        let total = plural(passed + failed, "case");
        out.line(format_args!("\n{total}, {passed} passed, {failed} failed"))?;
    }
    Ok(if *failed == 0 { Exit::DONE } else { Exit::FAILED })
>>>>>>> part/faces
}
