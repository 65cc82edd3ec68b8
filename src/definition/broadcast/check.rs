//! From what is written to what it means: all problems of a broadcast at once.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use toml::de::DeTable;

use super::draft::{self, DraftBroadcast, DraftLine};
use super::template::Template;
use super::{Broadcast, Cursor, LONGEST_EVENT, LONGEST_TOPIC, LineRule};
use crate::definition::check::{Check, clash};
use crate::definition::draft::Text;
use crate::definition::expr::Expr;
use crate::definition::model::EventMatch;
use crate::definition::problem::{Problem, Source};
use crate::definition::upcast::{Upcast, meet};

/// Says which normal form was hashed.
const FORM: &str = "broadcast 1";

/// Whether a text says `kind = "broadcast"`.
pub(in crate::definition) fn is_broadcast(text: &str) -> bool {
    let (root, _) = DeTable::parse_recoverable(text);
    let kind = root.get_ref().iter().find(|(name, _)| name.get_ref() == "kind");
    kind.is_some_and(|(_, value)| value.get_ref().as_str() == Some("broadcast"))
}

/// Reads one file with `kind = "broadcast"`.
///
/// # Errors
/// All problems in it, in the order of their places.
pub fn parse(file: &Path, text: &str) -> Result<Broadcast, Vec<Problem>> {
    let mut source = Source::new(file, text);
    if let Err(error) = DeTable::parse(text) {
        let message = error.message().lines().next().unwrap_or_default().to_owned();
        let span = error.span().unwrap_or_default();
        source.problem(&span, format!("not TOML: {message}"), "here", None);
        return Err(source.finish());
    }
    let draft = draft::read(&mut source);
    let is_whole = source.problems.is_empty();
    let mut check = Check { source, columns: Vec::new(), is_whole };
    let broadcast = check.broadcast(&draft);
    let problems = check.source.finish();
    match broadcast {
        Some(it) if problems.is_empty() => Ok(it),
        _ => Err(problems),
    }
}

/// Gives shared upcasts to the broadcasts whose rules can see their events.
///
/// # Errors
/// Upcasts that do not go together, each at the place of the one that comes later.
pub(in crate::definition) fn share(
    broadcasts: &mut [Broadcast],
    shared: &[(Vec<Upcast>, &(PathBuf, String))],
) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    for broadcast in broadcasts {
        let mut upcasts = broadcast.upcasts.to_vec();
        for (ours, (file, its)) in shared {
            for it in ours.iter().filter(|it| broadcast.sees(it)) {
                if let Some(message) = clash(&upcasts, it) {
                    let mut source = Source::new(file, its);
                    source.problem(&it.span, message, "this one", None);
                    problems.extend(source.problems);
                }
                upcasts.push(it.clone());
            }
        }
        broadcast.upcasts = upcasts.into();
        broadcast.hash = hash(broadcast);
    }
    problems.dedup();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

impl Broadcast {
    fn sees(&self, upcast: &Upcast) -> bool {
        self.rules.iter().any(|it| meet(&it.events, &upcast.events))
    }
}

impl Check<'_> {
    fn broadcast(&mut self, draft: &DraftBroadcast) -> Option<Broadcast> {
        let topic = self.topic(draft.topic.as_ref());
        let event = self.event_name(draft.event.as_ref());
        if self.is_whole && draft.rules.is_empty() {
            self.missing("on", "at least one `[[on]]` with an `event` and a `payload`");
        }
        let upcasts = self.upcasts(&draft.upcasts);
        let cursor = match &topic {
            Some(it) if it.fields().any(|field| field == "run_id") => Cursor::Version,
            _ => Cursor::Position,
        };
        let mut members = Vec::new();
        let rules: Vec<_> =
            draft.rules.iter().map(|it| self.line_rule(it, cursor, &mut members)).collect();
        if !self.source.problems.is_empty() {
            return None;
        }
        let topic = topic?;
        let takes_all = |it: &LineRule| it.events == EventMatch::Any && it.when.is_none();
        let is_whole =
            cursor == Cursor::Version && topic.is_of_a_run() && rules.iter().any(takes_all);
        let name = self.source.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut broadcast = Broadcast {
            name,
            topic,
            event: event?,
            private: draft.private.unwrap_or(true),
            cursor,
            is_whole,
            members,
            rules,
            upcasts: upcasts.into(),
            hash: String::new(),
            file: self.source.file.to_owned(),
        };
        broadcast.hash = hash(&broadcast);
        Some(broadcast)
    }

    fn topic(&mut self, text: Option<&Text>) -> Option<Template> {
        let Some(text) = text else {
            if self.is_whole {
                self.missing("topic", "who is told: topic = \"run:{run_id}\"");
            }
            return None;
        };
        match Template::compile(&text.value) {
            Ok(it) if it.text().trim().is_empty() => {
                self.source.problem(&text.span, "empty topic", "nobody can join it", None);
                None
            }
            Ok(it) if LONGEST_TOPIC < it.fixed_length() => {
                let message = format!("topic of more than {} bytes", it.fixed_length());
                let label = format!("at most {LONGEST_TOPIC}");
                self.source.problem(&text.span, message, label, None);
                None
            }
            Ok(it) if it.text().starts_with("realtime:") => {
                let hint = "clients put `realtime:` before the topic by themselves".to_owned();
                let message = "a topic with `realtime:` before it";
                self.source.problem(&text.span, message, "nobody would get it", Some(hint));
                None
            }
            Ok(it) => Some(it),
            Err(error) => {
                let span = self.inside(text, error.offset, error.length);
                self.source.problem(&span, error.message, "", error.hint);
                None
            }
        }
    }

    fn event_name(&mut self, text: Option<&Text>) -> Option<String> {
        let Some(text) = text else {
            if self.is_whole {
                self.missing("event", "the name that clients subscribe to: event = \"log\"");
            }
            return None;
        };
        if text.value.trim().is_empty() || LONGEST_EVENT < text.value.len() {
            let message = format!("event name of {} bytes", text.value.len());
            self.source.problem(&text.span, message, format!("1 to {LONGEST_EVENT}"), None);
            return None;
        }
        if text.value == "*" {
            let hint = "it is the name that clients subscribe to: event = \"log\"".to_owned();
            let message = "`*` is no name of a broadcast's event";
            self.source.problem(&text.span, message, "expected a name", Some(hint));
            return None;
        }
        Some(text.value.clone())
    }

    fn line_rule(
        &mut self,
        draft: &DraftLine,
        cursor: Cursor,
        members: &mut Vec<String>,
    ) -> LineRule {
        let events = self.event_match(&draft.events, &draft.span);
        let when = draft.when.as_ref().and_then(|it| self.expr(it, false));
        if draft.payload.is_empty() && self.is_whole {
            let hint = "for example: payload = { message = \"payload.message\" }".to_owned();
            let message = "a rule that says nothing";
            self.source.problem(&draft.span, message, "no `payload` here", Some(hint));
        }
        let mut payload = Vec::new();
        for (name, text) in &draft.payload {
            let Some(value) = self.expr(text, false) else { continue };
            if name.value == cursor.name() {
                // it is in each line anyhow
                if value.as_field() != Some(cursor.name()) {
                    let cursor = cursor.name();
                    let message = format!("`{cursor}` numbers the lines of this topic");
                    let label = format!("expected \"{cursor}\"");
                    self.source.problem(&text.span, message, label, None);
                }
                continue;
            }
            if name.value == super::render::CUT {
                let message = format!("`{}` says that a line was cut", name.value);
                self.source.problem(&name.span, message, "another name, please", None);
            }
            let known = members.iter().position(|it| *it == name.value);
            let member = known.unwrap_or_else(|| {
                members.push(name.value.clone());
                members.len() - 1
            });
            payload.push((member, value));
        }
        LineRule { events, when, payload, line: self.source.line(draft.span.start) }
    }
}

/// The same for the same meaning: neither comments, blanks nor the order of keys count.
fn hash(it: &Broadcast) -> String {
    let mut digest = Sha256::new();
    // debug forms quote their texts, so that no two meanings look alike
    let mut add = |part: String| digest.update(part.as_bytes());
    add(format!("{FORM:?}{:?}{:?}{:?}{:?}", it.name, it.topic.text(), it.event, it.private));
    for rule in &it.rules {
        add(format!("{:?}{:?}", rule.events, rule.when.as_ref().map(Expr::text)));
        let mut payload: Vec<_> = rule
            .payload
            .iter()
            .map(|(member, value)| (it.members.get(*member), value.text()))
            .collect();
        payload.sort_unstable();
        add(format!("{payload:?}"));
    }
    for upcast in it.upcasts.iter() {
        add(format!("{:?}{:?}{:?}{:?}", upcast.events, upcast.takes, upcast.version, upcast.edits));
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
