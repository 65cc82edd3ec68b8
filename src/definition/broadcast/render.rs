//! The line of an event.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};
use uuid::Uuid;

use super::{Broadcast, Cursor, LONGEST_TOPIC};
use crate::definition::datum::Datum;
use crate::definition::expr::EvalError;
use crate::definition::scope::{Scope, Scratch};
use crate::definition::time;
use crate::definition::upcast::{self, UpcastError};

/// The member that says that a line was cut.
pub(super) const CUT: &str = "cut";

/// What stands at the end of a text that was cut.
const ELLIPSIS: &str = "…";

/// What a cursor, the mark of a cut and the brackets take at most.
const FRAME: usize = 64;

/// What an event says on a topic. Its memory serves one event after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The topic.
    pub topic: String,
    /// A JSON object with the cursor as its first member.
    pub json: String,
    /// The version or position.
    pub cursor: i64,
}

/// An event that has no line although a rule takes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A rule failed, or the topic.
    #[error(transparent)]
    Rule(#[from] EvalError),
    /// The event's payload could not be brought to its newest form.
    #[error(transparent)]
    Upcast(#[from] UpcastError),
    /// Clients could not join the topic.
    #[error("the topic has {0} bytes, more than {LONGEST_TOPIC}")]
    Topic(usize),
}

impl Broadcast {
    /// Whether a rule may take events of this type, whatever else is in them.
    pub fn may_take(&self, kind: &str) -> bool {
        self.rules.iter().any(|it| it.events.matches(kind))
    }

    /// Writes the event's line, of at most `most` bytes; false when no rule takes the event.
    ///
    /// # Errors
    /// When a rule fails on the event.
    pub fn render(
        &self,
        scope: &Scope<'_>,
        most: usize,
        line: &mut Line,
    ) -> Result<bool, LineError> {
        let event = scope.event();
        if !self.may_take(event.kind) {
            return Ok(false);
        }
        // what is hidden is hidden from rules, too: what they compute of it cannot leave either
        let hidden = scope.redactor().apply(event.payload);
        let mut scratch = Scratch::default();
        let redacted;
        let scope = match &hidden {
            Cow::Borrowed(_) => scope,
            Cow::Owned(payload) => {
                redacted = scope.with_payload(payload, &mut scratch);
                &redacted
            }
        };
        if self.upcasts.is_empty() {
            return self.write(scope, most, line);
        }
        match upcast::newest(&self.upcasts, scope)? {
            None => self.write(scope, most, line),
            Some(newest) => {
                let mut scratch = Scratch::default();
                self.write(&scope.with_payload(&newest.payload, &mut scratch), most, line)
            }
        }
    }

    fn write(&self, scope: &Scope<'_>, most: usize, line: &mut Line) -> Result<bool, LineError> {
        let event = scope.event();
        let mut values: SmallVec<[Option<Datum<'_>>; 12]> = smallvec![None; self.members.len()];
        let mut is_taken = false;
        for rule in self.rules.iter().filter(|it| it.events.matches(event.kind)) {
            if let Some(when) = &rule.when
                && !when.is_true(scope)?
            {
                continue;
            }
            is_taken = true;
            for (member, value) in &rule.payload {
                if let Some(place) = values.get_mut(*member) {
                    *place = Some(value.evaluate(scope)?);
                }
            }
        }
        if !is_taken {
            return Ok(false);
        }
        line.topic.clear();
        self.topic.write(scope, &mut line.topic)?;
        if LONGEST_TOPIC < line.topic.len() {
            return Err(LineError::Topic(line.topic.len()));
        }
        line.cursor = match self.cursor {
            Cursor::Version => event.version.into(),
            Cursor::Position => event.position,
        };
        self.object(&values, None, line);
        // a member may have a name that hides its value
        if let Cow::Owned(it) = scope.redactor().apply(&line.json) {
            line.json = it;
        }
        if most < line.json.len() {
            let each = most.saturating_sub(FRAME) / self.members.len().max(1);
            self.object(&values, Some(each), line);
            if let Cow::Owned(it) = scope.redactor().apply(&line.json) {
                line.json = it;
            }
        }
        if most < line.json.len() {
            line.json = format!("{{\"{}\":{},\"{CUT}\":true}}", self.cursor.name(), line.cursor);
        }
        Ok(true)
    }

    /// With each member in at most `each` bytes.
    fn object(&self, values: &[Option<Datum<'_>>], each: Option<usize>, line: &mut Line) {
        let json = &mut line.json;
        json.clear();
        json.push_str("{\"");
        json.push_str(self.cursor.name());
        json.push_str("\":");
        json.push_str(&line.cursor.to_string());
        for (name, value) in self.members.iter().zip(values) {
            let Some(value) = value else { continue };
            json.push(',');
            push_text(name, json);
            json.push(':');
            let start = json.len();
            push(value, json);
            let Some(room) = each.map(|it| it.saturating_sub(name.len() + 4)) else { continue };
            if room < json.len() - start {
                json.truncate(start);
                match value {
                    Datum::Text(text) => push_cut(text, room, json),
                    _ => json.push_str("null"),
                }
            }
        }
        if each.is_some() {
            json.push_str(",\"");
            json.push_str(CUT);
            json.push_str("\":true");
        }
        json.push('}');
    }
}

fn push(value: &Datum<'_>, json: &mut String) {
    match value {
        Datum::Text(it) => push_text(it, json),
        Datum::Number(it) | Datum::Json(it) => json.push_str(it),
        Datum::Uuid(it) => {
            json.push('"');
            json.push_str(it.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
            json.push('"');
        }
        Datum::Time(it) => {
            json.push('"');
            json.push_str(&time::text(*it));
            json.push('"');
        }
        other => json.push_str(&other.to_json()),
    }
}

fn push_text(text: &str, json: &mut String) {
    if text.bytes().any(|it| it < b' ' || it == b'"' || it == b'\\') {
        json.push_str(&serde_json::Value::from(text).to_string());
    } else {
        json.push('"');
        json.push_str(text);
        json.push('"');
    }
}

/// As much of the start of `text` as fits into `room` bytes of JSON.
fn push_cut(text: &str, room: usize, json: &mut String) {
    let mut left = room.saturating_sub(ELLIPSIS.len() + 2);
    let fits = |it: char| {
        let takes = match it {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            it if it < ' ' => 6,
            it => it.len_utf8(),
        };
        left.checked_sub(takes).map(|rest| left = rest)
    };
    let end: usize = text
        .chars()
        .map_while({
            let mut fits = fits;
            move |it| fits(it).map(|()| it.len_utf8())
        })
        .sum();
    let start = text.get(..end).unwrap_or_default();
    push_text(&format!("{start}{ELLIPSIS}"), json);
}
