//! The checks of `[[upcast]]`.

use std::path::PathBuf;

use super::Check;
use crate::definition::draft::Text;
use crate::definition::expr::Expr;
use crate::definition::model::Definition;
use crate::definition::problem::{Problem, Source};
use crate::definition::upcast::draft::DraftUpcast;
use crate::definition::upcast::{Edit, Takes, Upcast, meet};
use crate::definition::{draft, hash};

/// Where a schema version stands, unless an upcast says otherwise.
const VERSION: &str = "metadata.schema_version";

/// The upcasts of a file that has nothing else: they are for all definitions beside it. `None` for
/// any other file.
///
/// # Errors
/// All problems in it.
pub(in crate::definition) fn shared(
    file: &std::path::Path,
    text: &str,
) -> Option<Result<Vec<Upcast>, Vec<Problem>>> {
    let mut source = Source::new(file, text);
    let draft = draft::read(&mut source);
    if !draft.has_upcasts_alone {
        return None;
    }
    let is_whole = source.problems.is_empty();
    let mut check = Check { source, columns: Vec::new(), is_whole };
    let upcasts = check.upcasts(&draft.upcasts);
    let problems = check.source.finish();
    Some(if problems.is_empty() { Ok(upcasts) } else { Err(problems) })
}

/// Gives shared upcasts to the definitions whose rules can see their events.
///
/// # Errors
/// Upcasts that do not go together, each at the place of the one that comes later.
pub(in crate::definition) fn share(
    definitions: &mut [Definition],
    shared: &[(Vec<Upcast>, &(PathBuf, String))],
) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    for definition in definitions {
        let mut upcasts = definition.upcasts.to_vec();
        let mut text = definition.text.to_string();
        for (ours, (file, its)) in shared {
            let seen: Vec<_> = ours.iter().filter(|it| definition.sees(it)).cloned().collect();
            if seen.is_empty() {
                continue;
            }
            for it in seen {
                if let Some(message) = clash(&upcasts, &it) {
                    let mut source = Source::new(file, its);
                    source.problem(&it.span, message, "this one", None);
                    problems.extend(source.problems);
                }
                upcasts.push(it);
            }
            // so that the text alone says what the definition means
            text.push_str(&format!("\n# from {}\n{its}", file.display()));
        }
        if upcasts.len() != definition.upcasts.len() {
            definition.upcasts = upcasts.into();
            definition.text = text.into();
            definition.hash = hash::of(definition);
        }
    }
    problems.dedup();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Why an upcast cannot stand beside others.
pub(in crate::definition) fn clash(others: &[Upcast], it: &Upcast) -> Option<String> {
    let mut met = others.iter().filter(|other| meet(&other.events, &it.events));
    met.find_map(|other| {
        let place = other.place();
        if other.takes.leads_to() == it.takes.leads_to() {
            let to = it.takes.leads_to();
            return Some(format!(
                "two upcasts lead to schema version {to}; the other is at {place}"
            ));
        }
        let differs = other.version.text() != it.version.text();
        differs.then(|| format!("`version` is another at {place}, for the same events"))
    })
}

impl Check<'_> {
    pub(in crate::definition) fn upcasts(&mut self, drafts: &[DraftUpcast]) -> Vec<Upcast> {
        let mut upcasts = Vec::new();
        for draft in drafts {
            let Some(upcast) = self.upcast(draft) else { continue };
            if let Some(message) = clash(&upcasts, &upcast) {
                self.source.problem(&draft.span, message, "this one", None);
            }
            upcasts.push(upcast);
        }
        upcasts
    }

    fn upcast(&mut self, draft: &DraftUpcast) -> Option<Upcast> {
        let events = self.event_match(&draft.events, &draft.span);
        let takes = match (&draft.from, &draft.before) {
            (Some((i64::MAX, span)), None) => {
                let message = "a schema version that no other can follow";
                self.source.problem(span, message, "too high", None);
                None
            }
            (Some((from, _)), None) => Some(Takes::From(*from)),
            (None, Some((before, _))) => Some(Takes::Before(*before)),
            (None, None) => {
                if self.is_whole {
                    let hint = "from = 1 takes events of schema version 1, before = 3 all below 3";
                    let message = "an upcast of no schema version";
                    let label = "expected `from` or `before`";
                    self.source.problem(&draft.span, message, label, Some(hint.to_owned()));
                }
                None
            }
            (Some(_), Some((_, span))) => {
                let message = "`from` and `before` in one upcast";
                self.source.problem(span, message, "either one", None);
                None
            }
        };
        let version = match &draft.version {
            Some(text) => self.expr(text, false),
            None => Expr::compile(VERSION).ok(),
        };
        let edits = self.edits(draft);
        let is_empty = [&draft.rename, &draft.set, &draft.default].iter().all(|it| it.is_empty());
        if is_empty && draft.remove.is_empty() && self.is_whole {
            let hint = "for example: rename = { step_id = \"payload.node\" }";
            let message = "an upcast that changes nothing";
            self.source.problem(&draft.span, message, "nothing here", Some(hint.to_owned()));
        }
        Some(Upcast {
            events,
            takes: takes?,
            version: version?,
            edits: edits?,
            file: self.source.file.to_owned(),
            line: self.source.line(draft.span.start),
            span: draft.span.clone(),
        })
    }

    fn edits(&mut self, draft: &DraftUpcast) -> Option<Vec<Edit>> {
        let mut edits = Vec::new();
        let mut taken: Vec<Vec<String>> = Vec::new();
        let mut is_whole = true;
        for text in &draft.remove {
            match self.payload_path(text) {
                Some(path) => edits.push(Edit::Remove(path)),
                None => is_whole = false,
            }
        }
        let renamed = draft.rename.iter().map(|it| (it, 0));
        let set = draft.set.iter().map(|it| (it, 1));
        let filled = draft.default.iter().map(|it| (it, 2));
        for ((name, text), what) in renamed.chain(set).chain(filled) {
            let to = self.target(name, &mut taken);
            let edit = match what {
                0 => {
                    let from = self.payload_path(text);
                    to.zip(from).map(|(to, from)| Edit::Rename { from, to })
                }
                1 => {
                    let value = self.expr(text, false);
                    to.zip(value).map(|(to, value)| Edit::Set { to, value })
                }
                _ => {
                    let value = self.expr(text, false);
                    to.zip(value).map(|(to, value)| Edit::Default { to, value })
                }
            };
            match edit {
                Some(it) => edits.push(it),
                None => is_whole = false,
            }
        }
        is_whole.then_some(edits)
    }

    /// A plain path within the payload, `payload.` included.
    fn payload_path(&mut self, text: &Text) -> Option<Vec<String>> {
        let expr = self.expr(text, false)?;
        let path = expr.as_payload_path().filter(|it| !it.is_empty()).map(<[String]>::to_vec);
        if path.is_none() {
            let hint = Some("for example: \"payload.node_id\"".to_owned());
            let message = "what is renamed or removed is a plain path";
            self.source.problem(&text.span, message, "expected payload.…", hint);
        }
        path
    }

    /// Where a value goes: a name of the payload, or several joined by dots.
    fn target(&mut self, name: &Text, taken: &mut Vec<Vec<String>>) -> Option<Vec<String>> {
        let path = Expr::compile(&format!("payload.{}", name.value)).ok();
        let path = path.as_ref().and_then(Expr::as_payload_path).map(<[String]>::to_vec);
        let Some(path) = path else {
            let hint = Some("a name, or names joined by dots: \"error.message\"".to_owned());
            let message = format!("`{}` is no place in a payload", name.value);
            self.source.problem(&name.span, message, "expected a name", hint);
            return None;
        };
        if taken.contains(&path) {
            let message = format!("`{}` is written twice in one upcast", name.value);
            self.source.problem(&name.span, message, "once is enough", None);
        }
        taken.push(path.clone());
        Some(path)
    }
}
