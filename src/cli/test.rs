//! `projector test`: the definitions' given/expect cases, without a database.
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
pub(super) fn run<E: Display>(
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
    }
    Ok(())
}

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
}
