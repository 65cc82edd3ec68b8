//! `projector test`: the definitions' given/expect cases, without a database unless it is asked for.
//!
//! The cases of `projections/NAME.toml` are in `projections/tests/NAME.toml`.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio_postgres::Client;

use crate::apply::cases as statements;
use crate::cli::check::{load, plural, tell};
use crate::cli::out::{BAD, GOOD, Out, styled};
use crate::cli::{Context, Exit, Failure, TestArgs};
use crate::definition::case::{self, Case};
use crate::definition::{Broadcast, Definition};
use crate::fold::cases as rows;
use crate::realtime::cases as told;
use crate::redact::Redactor;

/// How many cases went which way.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    /// Those of statements, which only a database understands.
    skipped: usize,
}

/// Runs every case: those of rules in memory, those of statements in a database.
///
/// # Errors
/// When a file cannot be read, the database cannot be reached, or nobody reads the results.
pub(super) async fn run(args: &TestArgs, context: &Context) -> anyhow::Result<Exit> {
    let out = &context.out;
    let folder = args.folder.as_deref().unwrap_or(&context.config().projections);
    let Some(definitions) = load(folder, out)? else { return Ok(Exit::USAGE) };
    let mut client = if args.sql { Some(context.connect("test").await?) } else { None };
    let mut count = Count::default();
    let projections = definitions.projections.iter().map(Subject::Projection);
    let broadcasts = definitions.broadcasts.iter().map(Subject::Broadcast);
    let redactor = context.redactor()?;
    for subject in projections.chain(broadcasts) {
        let name = subject.name();
        let Some(Cases { file, cases }) = (match cases(folder, name, out)? {
            Ok(found) => found,
            Err(exit) => return Ok(exit),
        }) else {
            continue;
        };
        for case in &cases {
            let wrong = match subject {
                Subject::Projection(it) => try_case(it, case, client.as_mut(), context).await,
                Subject::Broadcast(it) => Some(lines(&told::run(it, case, &redactor))),
            };
            let Some(wrong) = wrong else {
                count.skipped += 1;
                continue;
            };
            show(name, &file, case, &wrong, out)?;
            count.add(&wrong);
        }
    }
    finish(&count, folder, out)
}

/// What has cases.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Projection(&'a Definition),
    Broadcast(&'a Broadcast),
}

impl Subject<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Projection(it) => &it.name,
            Self::Broadcast(it) => &it.name,
        }
    }
}

fn lines(differences: &[impl ToString]) -> Vec<String> {
    differences.iter().map(ToString::to_string).collect()
}

/// The cases of a definition, and where they stand.
struct Cases {
    file: PathBuf,
    cases: Vec<Case>,
}

/// The cases of the definition called `name`, where it has some; how to end, where they are wrong.
fn cases(folder: &Path, name: &str, out: &Out) -> anyhow::Result<Result<Option<Cases>, Exit>> {
    let file = folder.join("tests").join(format!("{name}.toml"));
    let Some(text) = read(&file)? else { return Ok(Ok(None)) };
    match case::parse(&file, &text) {
        Ok(cases) => Ok(Ok(Some(Cases { file, cases }))),
        Err(problems) => {
            tell(&problems, out)?;
            Ok(Err(Exit::USAGE))
        }
    }
}

impl Count {
    fn add(&mut self, wrong: &[String]) {
        if wrong.is_empty() { self.passed += 1 } else { self.failed += 1 }
    }
}

/// What is wrong with the rows that a case makes; `None` where only a database knows them, and none
/// is at hand.
async fn try_case(
    definition: &Definition,
    case: &Case,
    client: Option<&mut Client>,
    context: &Context,
) -> Option<Vec<String>> {
    let redactor = Redactor::default();
    let Some(sql) = &definition.sql else {
        return Some(match rows::run(definition, case, &redactor) {
            Ok(differences) => lines(&differences),
            Err(error) => vec![error.to_string()],
        });
    };
    let schema = &context.config().schema;
    let statement = (definition, sql);
    Some(match statements::run(client?, schema, statement, case, &redactor).await {
        Ok(None) => Vec::new(),
        Ok(Some((way, differences))) => {
            let mut wrong = vec![format!("when {way}:")];
            wrong.extend(lines(&differences));
            wrong
        }
        Err(error) => vec![error.to_string()],
    })
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
fn show(name: &str, file: &Path, case: &Case, wrong: &[String], out: &Out) -> anyhow::Result<()> {
    let title = &case.name;
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
    let Count { passed, failed, skipped } = count;
    if out.is_json() {
        out.json(&json!({ "passed": passed, "failed": failed, "skipped": skipped }))?;
    } else if passed + failed == 0 {
        out.line(format_args!("no cases in {}", folder.join("tests").display()))?;
    } else {
        let total = plural(passed + failed, "case");
        out.line(format_args!("\n{total}, {passed} passed, {failed} failed"))?;
    }
    if 0 < *skipped {
        let cases = plural(*skipped, "case");
        out.note(format_args!("{cases} of SQL projections skipped: they need a database (--sql)"));
    }
    Ok(if *failed == 0 { Exit::DONE } else { Exit::FAILED })
}
