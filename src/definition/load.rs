//! A directory of definitions. The only place of this module that reads files.

use std::path::{Path, PathBuf};

use super::check::parse;
use super::draft;
use super::model::Definition;
use super::problem::{Problem, Source};

/// Reads all `*.toml` files of `dir`, not those of its folders, in the order of their names.
///
/// # Errors
/// All problems of all files; a file or directory that cannot be read is one.
pub fn load(dir: &Path) -> Result<Vec<Definition>, Vec<Problem>> {
    parse_all(&read(dir)?)
}

/// Reads definitions that belong together.
///
/// # Errors
/// All problems in all texts, two definitions of one table among them.
pub fn parse_all(files: &[(PathBuf, String)]) -> Result<Vec<Definition>, Vec<Problem>> {
    let (mut definitions, mut problems) = (Vec::<Definition>::new(), Vec::new());
    for (file, text) in files {
        match parse(file, text) {
            Ok(it) => match definitions.iter().find(|first| first.table == it.table) {
                Some(first) => {
                    let (table, first) = (&it.name, first.file.display());
                    let message = format!("table `{table}` has a definition already");
                    let mut source = Source::new(file, text);
                    let span = draft::read(&mut source).table.map(|it| it.span);
                    source.problem(
                        &span.unwrap_or_default(),
                        message,
                        format!("first in {first}"),
                        None,
                    );
                    problems.extend(source.problems);
                }
                None => definitions.push(it),
            },
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(definitions) } else { Err(problems) }
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
