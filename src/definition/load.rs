//! A directory of definitions. The only place of this module that reads files.

use std::path::{Path, PathBuf};

use super::broadcast::{self, Broadcast, is_broadcast, parse_broadcast};
use super::check::{parse, share, shared};
use super::draft;
use super::model::Definition;
use super::problem::{Problem, Source};
use crate::redact::Redactor;

/// What a folder defines.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// Read models.
    pub projections: Vec<Definition>,
    /// What is told to viewers.
    pub broadcasts: Vec<Broadcast>,
}

impl Definitions {
    /// The same, as they are under these rules of redaction: see [`Definition::under`].
    #[must_use]
    pub fn under(self, redactor: &Redactor) -> Self {
        let projections = self.projections.into_iter().map(|it| it.under(redactor)).collect();
        Self { projections, ..self }
    }
}

impl From<Vec<Definition>> for Definitions {
    fn from(projections: Vec<Definition>) -> Self {
        Self { projections, broadcasts: Vec::new() }
    }
}

/// The projections among [`load_all`].
///
/// # Errors
/// As there.
pub fn load(dir: &Path) -> Result<Vec<Definition>, Vec<Problem>> {
    Ok(load_all(dir)?.projections)
}

/// Reads all `*.toml` files of `dir`, not those of its folders, in the order of their names.
///
/// # Errors
/// All problems of all files; a file or directory that cannot be read is one.
pub fn load_all(dir: &Path) -> Result<Definitions, Vec<Problem>> {
    parse_files(&read(dir)?)
}

/// The projections among [`parse_files`].
///
/// # Errors
/// As there.
pub fn parse_all(files: &[(PathBuf, String)]) -> Result<Vec<Definition>, Vec<Problem>> {
    Ok(parse_files(files)?.projections)
}

/// Reads definitions that belong together. A file that holds nothing but `[[upcast]]` is for all of
/// them.
///
/// # Errors
/// All problems in all texts, two definitions of one table among them.
pub fn parse_files(files: &[(PathBuf, String)]) -> Result<Definitions, Vec<Problem>> {
    let (mut definitions, mut problems) = (Definitions::default(), Vec::new());
    let mut upcasts = Vec::new();
    for entry in files {
        let (file, text) = entry;
        let found = match shared(file, text) {
            Some(found) => found.map(|it| upcasts.push((it, entry))),
            None if is_broadcast(text) => {
                parse_broadcast(file, text).and_then(|it| add_broadcast(&mut definitions, it, text))
            }
            None => parse(file, text).and_then(|it| add_projection(&mut definitions, it, text)),
        };
        problems.extend(found.err().into_iter().flatten());
    }
    if problems.is_empty() {
        let Definitions { projections, broadcasts } = &mut definitions;
        let shared = [share(projections, &upcasts), broadcast::share(broadcasts, &upcasts)];
        problems.extend(shared.into_iter().filter_map(Result::err).flatten());
        problems.dedup();
    }
    let Definitions { projections, broadcasts } = &definitions;
    for it in projections.iter().filter(|it| !it.is_complete()) {
        let name = it.code.as_ref().map_or("", |it| it.name.as_str());
        let message = format!("the code `{name}` is not part of this program");
        let mut problem = Problem::of_file(&it.file, message);
        problem.hint =
            Some("`[handler]` is for programs of your own: see examples/handler.rs".to_owned());
        problems.push(problem);
    }
    for it in broadcasts.iter().filter(|it| projections.iter().any(|other| other.name == it.name)) {
        let message = format!("the broadcast is called `{}`, as a projection is", it.name);
        let mut problem = Problem::of_file(&it.file, message);
        problem.hint = Some("a broadcast has its file's name: rename the file".to_owned());
        problems.push(problem);
    }
    if problems.is_empty() { Ok(definitions) } else { Err(problems) }
}

fn add_projection(
    definitions: &mut Definitions,
    it: Definition,
    text: &str,
) -> Result<(), Vec<Problem>> {
    let Some(first) = definitions.projections.iter().find(|first| first.table == it.table) else {
        definitions.projections.push(it);
        return Ok(());
    };
    let (table, first) = (&it.name, first.file.display());
    let message = format!("table `{table}` has a definition already");
    let mut source = Source::new(&it.file, text);
    let span = draft::read(&mut source).table.map(|it| it.span);
    source.problem(&span.unwrap_or_default(), message, format!("first in {first}"), None);
    Err(source.problems)
}

/// Viewers could not tell the lines of one from those of the other.
fn add_broadcast(
    definitions: &mut Definitions,
    it: Broadcast,
    text: &str,
) -> Result<(), Vec<Problem>> {
    let is_same =
        |other: &&Broadcast| other.topic.text() == it.topic.text() && other.event == it.event;
    let Some(first) = definitions.broadcasts.iter().find(is_same) else {
        definitions.broadcasts.push(it);
        return Ok(());
    };
    let message = format!("`{}` on `{}` is defined already", it.event, it.topic.text());
    let mut source = Source::new(&it.file, text);
    let start = text.find(it.topic.text()).unwrap_or_default();
    let label = format!("first in {}", first.file.display());
    source.problem(&(start..start + it.topic.text().len()), message, label, None);
    Err(source.problems)
}

/// The texts of all `*.toml` files of `dir`, in the order of their names.
///
/// # Errors
/// A directory or file that cannot be read, as a problem.
pub fn read(dir: &Path) -> Result<Vec<(PathBuf, String)>, Vec<Problem>> {
    let unreadable = |path: &Path, error: &std::io::Error| {
        vec![Problem::of_file(path, format!("cannot read {}: {error}", path.display()))]
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|it| unreadable(dir, &it))? {
        let path = entry.map_err(|it| unreadable(dir, &it))?.path();
        if path.extension().is_some_and(|it| it == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let text = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(unreadable(&path, &error)),
    };
    files.into_iter().map(text).collect()
}
