//! `projector.toml`, as values with their places.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::problem::{Origin, Place, Problem};
use crate::config::setting::Raw;
use crate::config::{SECTIONS, Section, nearest};

/// A value of the file: section, key, value, place of the value.
pub(super) struct Entry {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    pub(super) value: Raw,
    pub(super) place: Place,
}

/// Everything the file sets, and everything that is wrong with its keys.
pub(super) fn read(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let mut reader = Reader { path, text: text.into(), entries: Vec::new(), problems };
    match DeTable::parse(text) {
        Ok(root) => reader.root(root.get_ref()),
        Err(error) => {
            let place = reader.place(&error.span().unwrap_or(0..0));
            reader.problem(error.message().to_owned(), place, None);
        }
    }
    reader.entries
}

struct Reader<'a> {
    path: &'a Path,
    text: Arc<str>,
    entries: Vec<Entry>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn root(&mut self, root: &DeTable<'_>) {
        for (name, value) in root {
            let section =
                SECTIONS.iter().find(|it| !it.name.is_empty() && it.name == name.get_ref());
            match (section, value.get_ref()) {
                (Some(section), DeValue::Table(table)) => {
                    for (key, value) in table {
                        self.key(section, key, value);
                    }
                }
                (Some(section), _) => {
                    let message = format!("`{}` is a table", section.name);
                    let hint = format!("write `[{}]` and its keys below", section.name);
                    self.problem(message, self.place(&value.span()), Some(hint));
                }
                (None, DeValue::Table(_)) => {
                    let names = SECTIONS.iter().map(|it| it.name).filter(|it| !it.is_empty());
                    let hint = hint(name.get_ref(), names, |it| format!("[{it}]"));
                    let message = format!("unknown section `[{}]`", name.get_ref());
                    self.problem(message, self.place(&name.span()), Some(hint));
                }
                (None, _) => {
                    let [top, ..] = SECTIONS;
                    self.key(top, name, value);
                }
            }
        }
    }

    fn key(
        &mut self,
        section: &'static Section,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let Some(known) = section.keys.iter().find(|it| it.name == key.get_ref()) else {
            let message = match section.name {
                "" => format!("unknown key `{}`", key.get_ref()),
                name => format!("unknown key `{}` in [{name}]", key.get_ref()),
            };
            let names = section.keys.iter().map(|it| it.name);
            let hint = hint(key.get_ref(), names, str::to_owned);
            self.problem(message, self.place(&key.span()), Some(hint));
            return;
        };
        let place = self.place(&value.span());
        let value = raw(value.get_ref());
        self.entries.push(Entry { section: section.name, key: known.name, value, place });
    }

    fn place(&self, span: &std::ops::Range<usize>) -> Place {
        Place { path: self.path.to_owned(), text: Arc::clone(&self.text), span: span.clone() }
    }

    fn problem(&mut self, message: String, place: Place, hint: Option<String>) {
        self.problems.push(Problem { message, origin: Origin::File(place), hint });
    }
}

/// "did you mean …?", or what there is.
pub(super) fn hint<'a>(
    word: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    show: impl Fn(&str) -> String,
) -> String {
    match nearest(word, names.clone()) {
        Some(near) => format!("did you mean `{}`?", show(near)),
        None => format!("one of: {}", names.map(show).collect::<Vec<_>>().join(", ")),
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => Raw::Number(number.to_string()),
        DeValue::Boolean(value) => Raw::Switch(*value),
        DeValue::Array(items) => {
            let texts = items.iter().map(|it| it.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<_>>().map_or(Raw::Other("a list of other things"), Raw::List)
        }
        DeValue::Table(table) => {
            let pairs = table.iter().map(|(key, value)| {
                Some((key.get_ref().to_string(), value.get_ref().as_str()?.to_owned()))
            });
            pairs.collect::<Option<_>>().map_or(Raw::Other("a table of other things"), Raw::Table)
        }
        DeValue::Float(_) => Raw::Other("a float"),
        DeValue::Datetime(_) => Raw::Other("a date"),
    }
}
