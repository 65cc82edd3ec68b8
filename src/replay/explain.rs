//! The events that touched one row, in order, and what each changed.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value as Json;
use uuid::Uuid;

use super::cause::causes;
use super::change::{ColumnChange, Kind, RowValues};
use super::trace::{AsideEvent, Touched, Trace, named};
use crate::definition::case::is_same;
use crate::definition::{Definition, Scope, Scratch, Value, time_text};
use crate::event::Event;
use crate::redact::Redactor;

/// A row on its way through the events that may have touched it.
pub struct Explain {
    trace: Trace,
    key: Vec<Value<'static>>,
    live: LiveRow,
    scratch: Scratch,
    redactor: Arc<Redactor>,
    most: usize,
    touches: VecDeque<Touch>,
    touched: usize,
    read: usize,
    /// How many events touched the row when it was last as the live one is.
    agreed: Option<usize>,
    fault: Option<String>,
}

/// What the table says.
#[derive(Clone, Debug)]
pub enum LiveRow {
    /// The table was not asked, or there is none.
    Unknown,
    /// It has no such row.
    Missing,
    /// It has this row.
    Row(RowValues),
}

/// An event that touched the row.
#[derive(Clone, Debug, Serialize)]
pub struct Touch {
    /// The event's run.
    pub run_id: Uuid,
    /// Its version.
    pub version: i32,
    /// Its position.
    pub position: i64,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was recorded.
    pub recorded_at: String,
    /// What became of the row.
    pub change: Kind,
    /// The columns that are not as before.
    pub columns: Vec<ColumnChange>,
    /// Why it was not applied.
    pub error: Option<AsideEvent>,
}

/// Why a row says what it says.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The projection.
    pub table: String,
    /// The row's key.
    pub key: RowValues,
    /// The row, as history has it; null when it is gone or never was.
    pub row: Option<RowValues>,
    /// The last of the events that touched it, in order.
    pub events: Vec<Touch>,
    /// How many touched it in all.
    pub touched: usize,
    /// How many events were read.
    pub read: usize,
    /// Whether the reading ended before history did.
    pub truncated: bool,
    /// A rule that failed on an event for this row; later events are not applied.
    pub fault: Option<String>,
    /// How the table's row compares.
    pub live: Verdict,
}

/// How the table's row compares with history's.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Verdict {
    /// The same, or both without the row.
    Agrees,
    /// The table's row is history's some events ago: the projection may be on its way.
    Behind {
        /// How many events that touched the row it lacks.
        events: usize,
    },
    /// There is a row that should not be there.
    Extra,
    /// There is no row where one should be.
    Missing,
    /// Columns differ.
    Differs {
        /// Which.
        columns: Vec<Difference>,
    },
    /// Not compared: there is no table, or history was not read to its end.
    Unknown,
}

/// A column that differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub column: String,
    /// What history says.
    pub history: Json,
    /// What the table says.
    pub live: Json,
}

impl Explain {
    /// Before the first event. `live` must have been read before them. The last `most` events that
    /// touch the row are kept.
    pub fn new(
        definition: &Arc<Definition>,
        key: Vec<Value<'static>>,
        live: LiveRow,
        redactor: Arc<Redactor>,
        most: usize,
    ) -> Self {
        let mut explain = Self {
            trace: Trace::new(definition, 0),
            key,
            live,
            scratch: Scratch::default(),
            redactor,
            most,
            touches: VecDeque::new(),
            touched: 0,
            read: 0,
            agreed: None,
            fault: None,
        };
        explain.compare();
        explain
    }

    /// The next event of those that may touch the row.
    pub fn event(&mut self, event: Event<'_>) {
        self.read += 1;
        if self.fault.is_some() {
            return;
        }
        let scope = Scope::new(event, &mut self.scratch, &self.redactor);
        match self.trace.touch(&scope, &self.key) {
            Ok(Touched::Not) => {}
            Ok(touched) => {
                self.touched += 1;
                let (change, columns, error) = match touched {
                    Touched::Changed(it) => (it.change, it.columns, None),
                    Touched::SetAside(it) => (Kind::SetAside, Vec::new(), Some(it)),
                    Touched::Not => return,
                };
                self.touches.push_back(Touch {
                    run_id: event.run_id,
                    version: event.version,
                    position: event.position,
                    kind: event.kind.to_owned(),
                    recorded_at: time_text(event.recorded_at),
                    change,
                    columns,
                    error,
                });
                if self.most < self.touches.len() {
                    self.touches.pop_front();
                }
                self.compare();
            }
            // the event of another row may be as bad as it likes
            Err(error) => {
                if !causes(self.trace.definition(), &scope, &self.key).is_empty() {
                    self.fault = Some(error.to_string());
                }
            }
        }
    }

    /// Whether no later event counts.
    pub fn is_stopped(&self) -> bool {
        self.fault.is_some()
    }

    /// What was found; `is_whole` says that no event is missing.
    pub fn finish(self, is_whole: bool) -> Explanation {
        let definition = self.trace.definition();
        let live = if is_whole { self.verdict() } else { Verdict::Unknown };
        Explanation {
            table: definition.name.clone(),
            key: named(definition, &self.key),
            row: self.trace.row(&self.key),
            live,
            events: self.touches.into(),
            touched: self.touched,
            read: self.read,
            truncated: !is_whole,
            fault: self.fault,
        }
    }

    fn compare(&mut self) {
        let row = self.trace.row(&self.key);
        let agrees = match (&self.live, &row) {
            (LiveRow::Missing, None) => true,
            (LiveRow::Row(live), Some(row)) => differences(row, live).next().is_none(),
            _ => false,
        };
        if agrees {
            self.agreed = Some(self.touched);
        }
    }

    fn verdict(&self) -> Verdict {
        if matches!(self.live, LiveRow::Unknown) {
            return Verdict::Unknown;
        }
        match self.agreed {
            Some(agreed) if agreed == self.touched => return Verdict::Agrees,
            None | Some(0) => {}
            Some(agreed) => return Verdict::Behind { events: self.touched - agreed },
        }
        match (&self.live, self.trace.row(&self.key)) {
            (LiveRow::Row(live), Some(row)) => {
                Verdict::Differs { columns: differences(&row, live).collect() }
            }
            (LiveRow::Row(_), None) => Verdict::Extra,
            _ => Verdict::Missing,
        }
    }
}

/// The columns that are not the same; those that only the table has are Postgres' own.
fn differences(row: &RowValues, live: &RowValues) -> impl Iterator<Item = Difference> {
    row.iter().filter_map(|(column, history)| {
        let live = live.get(column).unwrap_or(&Json::Null);
        let difference =
            || Difference { column: column.clone(), history: history.clone(), live: live.clone() };
        (!is_same(history, live)).then(difference)
    })
}
