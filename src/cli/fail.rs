//! How an error reaches its reader: what, where, what to do; once, with an exit code.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::json;

use crate::cli::out::{BAD, BOLD, Out, OutError, styled};
use crate::config::{ConfigError, Origin, Problem};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(u8);

impl Exit {
    /// Everything that was asked for is done.
    pub const DONE: Self = Self(0);
    /// Something failed.
    pub const FAILED: Self = Self(1);
    /// Bad usage or configuration: trying again without a change is no use.
    pub const USAGE: Self = Self(2);
    /// A comparison found a difference.
    pub const DIFFERENT: Self = Self(3);
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// An error with what to do about it, or with an exit code of its own.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// Something failed.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: Exit::FAILED, source: None }
    }

    /// With what to do about it, if that is known.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// With another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// With its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|it| it as &(dyn Error + 'static))
    }
}

/// Prints `error` and says how to end. A reader that has gone away is no error.
pub(super) fn report(error: &anyhow::Error, out: &Out) -> Exit {
    if error.chain().any(|it| matches!(it.downcast_ref(), Some(OutError::Closed))) {
        return Exit::DONE;
    }
    if let Some(ConfigError(problems)) = error.downcast_ref() {
        for problem in problems {
            problem_in_config(problem, out);
        }
        return Exit::USAGE;
    }
    let failure = error.chain().find_map(|it| it.downcast_ref::<Failure>());
    let causes: Vec<String> = error.chain().skip(1).flat_map(sentences).collect();
    print(&error.to_string(), &causes, failure.and_then(|it| it.hint.as_deref()), out);
    failure.map_or(Exit::FAILED, |it| it.exit)
}

/// An error's own words. The server's errors say only "db error"; what happened is a level below,
/// with its detail and hint beside it.
fn sentences(error: &(dyn Error + 'static)) -> Vec<String> {
    if let Some(error) = error.downcast_ref::<tokio_postgres::error::DbError>() {
        let code = error.code().code();
        let more = [error.detail(), error.hint()].into_iter().flatten().map(str::to_owned);
        return [format!("{} (SQLSTATE {code})", error.message())]
            .into_iter()
            .chain(more)
            .collect();
    }
    match error.to_string() {
        text if text == "db error" => Vec::new(),
        text => vec![text],
    }
}

/// `error: …`, its causes indented below, `hint: …` at the end; or an object on a line.
fn print(message: &str, causes: &[String], hint: Option<&str>, out: &Out) {
    if out.is_json() {
        let value = json!({ "error": message, "causes": causes, "hint": hint });
        out.complain(format_args!("{value}\n"));
        return;
    }
    out.complain(format_args!("{} {message}\n", styled(BAD, "error:")));
    for cause in causes {
        for line in cause.lines() {
            out.complain(format_args!("  {line}\n"));
        }
    }
    if let Some(hint) = hint {
        out.complain(format_args!("{} {hint}\n", styled(BOLD, "hint:")));
    }
}

fn problem_in_config(problem: &Problem, out: &Out) {
    match &problem.origin {
        Origin::File(place) if !out.is_json() => {
            let annotation = AnnotationKind::Primary.span(place.span.clone());
            let path = place.path.display().to_string();
            let snippet = Snippet::source(&*place.text).path(&path).annotation(annotation);
            let group = Level::ERROR.primary_title(&problem.message).element(snippet);
            out.complain(format_args!("{}\n", Renderer::styled().render(&[group])));
            if let Some(hint) = &problem.hint {
                out.complain(format_args!("{} {hint}\n", styled(BOLD, "hint:")));
            }
        }
        Origin::File(place) => {
            let message = format!("{place}: {}", problem.message);
            print(&message, &[], problem.hint.as_deref(), out);
        }
        Origin::Default => print(&problem.message, &[], problem.hint.as_deref(), out),
        origin => {
            let message = format!("{origin}: {}", problem.message);
            print(&message, &[], problem.hint.as_deref(), out);
        }
    }
}
