//! Broadcast definitions: which events are told to whom at once, and what of them.
//!
//! A definition with `kind = "broadcast"` has a topic and an event name instead of a table, and makes
//! a *line* of each event that one of its rules takes: a JSON object. What becomes of lines (messages,
//! their order, who receives them) is no matter of this module.
//!
//! * this file: a definition after all checks · `draft`: as it is written · `check`: what is wrong
//! * `template`: `run:{run_id}` · `render`: the line of an event

mod check;
mod draft;
mod render;
mod template;

use std::path::PathBuf;
use std::sync::Arc;

pub use self::check::parse as parse_broadcast;
pub(super) use self::check::{is_broadcast, share};
pub use self::render::{Line, LineError};
pub use self::template::Template;
use super::expr::Expr;
use super::model::EventMatch;
use super::upcast::Upcast;

/// The longest topic, in bytes: clients put `realtime:` before it, and binary frames have one byte for
/// the length of both.
pub const LONGEST_TOPIC: usize = 246;

/// The longest name of an event, in bytes.
const LONGEST_EVENT: usize = 255;

/// What is told to the viewers of a topic.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// The name of its file, without `.toml`.
    pub name: String,
    /// Gives the topic that an event's line goes to.
    pub topic: Template,
    /// The event's name, by which clients subscribe.
    pub event: String,
    /// Whether only those receive it who may join the topic.
    pub private: bool,
    /// What numbers the lines of a topic.
    pub cursor: Cursor,
    /// Whether each event of a run has its line, all on one topic: then the line before the one of
    /// version 7 is that of version 6.
    pub is_whole: bool,
    /// The members of a line, each once, after the cursor.
    pub members: Vec<String>,
    /// In the file's order. A line has the members of all rules that take the event; of a member that
    /// several give, the last counts.
    pub rules: Vec<LineRule>,
    /// How events of older schemas are read.
    pub upcasts: Arc<[Upcast]>,
    /// SHA-256 of the normal form, in hexadecimal: the same for the same meaning.
    pub hash: String,
    /// Where it was read.
    pub file: PathBuf,
}

/// What numbers the lines of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cursor {
    /// The topic belongs to one run: `version`, 1, 2, 3 …
    Version,
    /// Events of many runs meet on a topic: `position`, in the order in which they were committed.
    Position,
}

impl Cursor {
    /// The member of a line that holds it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Position => "position",
        }
    }
}

/// An `[[on]]` table: what a line says of some events.
#[derive(Clone, Debug)]
pub struct LineRule {
    /// The events it takes.
    pub events: EventMatch,
    /// It takes only events for which this is true.
    pub when: Option<Expr>,
    /// Which of the definition's members, and their values.
    pub payload: Vec<(usize, Expr)>,
    /// The line of its `[[on]]`, from 1.
    pub line: usize,
}
