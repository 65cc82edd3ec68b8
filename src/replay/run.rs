//! A run's projections at a moment, or step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::archive::Archive;
use super::change::{Kind, RowChange, RowValues};
use super::trace::{AsideEvent, SetAside, Trace};
use crate::definition::{Definition, Scope, Scratch, Upcast, time_text};
use crate::event::{Event, Timestamp};
use crate::redact::Redactor;

/// The last event that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// All count.
    End,
    /// The one of this version.
    Version(i32),
    /// The one before the first that was recorded after this moment.
    Time(Timestamp),
}

impl Until {
    /// Whether an event of the run still counts; once one does not, none does.
    pub fn includes(self, event: &Event<'_>) -> bool {
        match self {
            Self::End => true,
            Self::Version(version) => event.version <= version,
            Self::Time(time) => event.recorded_at <= time,
        }
    }
}

/// A run on its way through its history.
pub struct Replay {
    traces: Vec<Traced>,
    left_out: Vec<String>,
    rows: usize,
    scratch: Scratch,
    redactor: Arc<Redactor>,
    at: At,
    upcast: usize,
}

/// A projection, and why it stopped if it did.
struct Traced {
    trace: Trace,
    fault: Option<Fault>,
}

/// A rule that failed where the definition says that the projection pauses then: its rows are those
/// before that event.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// The event.
    pub version: i32,
    /// Which rule, which column, what is wrong.
    pub error: String,
}

/// The run's last event so far.
#[derive(Clone, Debug, Serialize)]
pub struct At {
    /// The run.
    pub run_id: Uuid,
    /// The last event's version; 0 before the first.
    pub version: i32,
    /// When it was recorded.
    pub recorded_at: Option<String>,
}

/// What a run's projections say.
#[derive(Debug, Serialize)]
pub struct State {
    /// Of which moment.
    #[serde(flatten)]
    pub at: At,
    /// By name.
    pub projections: BTreeMap<String, Rows>,
    /// Projections whose rows gather events of many runs, or are made by a statement.
    pub left_out: Vec<String>,
    /// How many events are of an older schema and were upcast.
    pub upcast: usize,
}

/// The rows of one projection.
#[derive(Debug, Serialize)]
pub struct Rows {
    /// In the order of their keys; the last ones, where there are too many.
    pub rows: Vec<RowValues>,
    /// How many there are in all.
    pub count: usize,
    /// Events that a rule failed on.
    pub set_aside: SetAside,
    /// Why the projection stopped before the run's last event.
    pub fault: Option<Fault>,
}

/// What one event changed.
#[derive(Debug, Serialize)]
pub struct Step {
    /// The event's version.
    pub version: i32,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was recorded.
    pub recorded_at: String,
    /// How the event was read, where it is of an older schema: each way once.
    pub upcasts: Vec<Upcasting>,
    /// Row by row, without rows that are as before.
    pub changes: Vec<RowChange>,
    /// By projection: rows that the event was not applied to.
    pub set_aside: BTreeMap<String, Vec<AsideEvent>>,
    /// Projections that a rule stopped at this event.
    pub faults: BTreeMap<String, Fault>,
}

/// An event's payload as it was written and as rules saw it, redacted.
#[derive(Debug, Serialize)]
pub struct Upcasting {
    /// The projections whose rules saw it so.
    pub projections: Vec<String>,
    /// `file:line` of the upcasts, in order.
    pub by: Vec<String>,
    /// As it was written.
    pub before: Box<RawValue>,
    /// As rules saw it.
    pub after: Box<RawValue>,
}

impl Replay {
    /// Before a run's first event, with the projections whose rows belong to one run; `only` one of
    /// them, if a name is given. Where each event has its own row, the last `rows` are kept.
    pub fn new(run_id: Uuid, archive: &Archive, only: Option<&str>, rows: usize) -> Self {
        let definitions = &archive.definitions;
        let wanted = definitions.iter().filter(|it| only.is_none_or(|only| it.name == only));
        let (by_run, left_out): (Vec<_>, Vec<_>) = wanted.partition(|it| can_follow(it));
        let traced = |it| Traced { trace: Trace::new(it, rows), fault: None };
        Self {
            traces: by_run.into_iter().map(traced).collect(),
            left_out: left_out.into_iter().map(|it| it.name.clone()).collect(),
            rows,
            scratch: Scratch::default(),
            redactor: Arc::clone(&archive.redactor),
            at: At { run_id, version: 0, recorded_at: None },
            upcast: 0,
        }
    }

    /// The run's next event.
    pub fn event(&mut self, event: Event<'_>) {
        self.at.moves_to(&event);
        let scope = Scope::new(event, &mut self.scratch, &self.redactor);
        let mut definitions = self.traces.iter().map(|it| it.trace.definition());
        self.upcast += usize::from(definitions.any(|it| matches!(it.upcast(&scope), Ok(Some(_)))));
        for it in self.traces.iter_mut().filter(|it| it.fault.is_none()) {
            if let Err(error) = it.trace.event(&scope) {
                it.fault = Some(Fault { version: event.version, error: error.to_string() });
            }
        }
    }

    /// The run's next event, and what it changes.
    pub fn step(&mut self, event: Event<'_>) -> Step {
        self.at.moves_to(&event);
        let (version, recorded_at) = (event.version, time_text(event.recorded_at));
        let scope = Scope::new(event, &mut self.scratch, &self.redactor);
        let definitions = self.traces.iter().map(|it| it.trace.definition());
        let upcasts = upcasts(definitions, &scope, &self.redactor);
        let (mut changes, mut faults) = (Vec::new(), BTreeMap::new());
        let mut set_aside = BTreeMap::new();
        for it in self.traces.iter_mut().filter(|it| it.fault.is_none()) {
            match it.trace.step(&scope) {
                Ok((found, aside)) => {
                    changes.extend(found.into_iter().filter(|it| it.change != Kind::Untouched));
                    if !aside.is_empty() {
                        set_aside.insert(it.trace.definition().name.clone(), aside);
                    }
                }
                Err(error) => {
                    let fault = Fault { version, error: error.to_string() };
                    it.fault = Some(fault.clone());
                    faults.insert(it.trace.definition().name.clone(), fault);
                }
            }
        }
        Step {
            version,
            kind: event.kind.to_owned(),
            recorded_at,
            upcasts,
            changes,
            set_aside,
            faults,
        }
    }

    /// What the projections say now.
    pub fn state(&self) -> State {
        let rows = |it: &Traced| {
            let (rows, count) = it.trace.rows(self.rows);
            let set_aside = it.trace.aside().clone();
            let rows = Rows { rows, count, set_aside, fault: it.fault.clone() };
            (it.trace.definition().name.clone(), rows)
        };
        State {
            at: self.at.clone(),
            projections: self.traces.iter().map(rows).collect(),
            left_out: self.left_out.clone(),
            upcast: self.upcast,
        }
    }

    /// The last event so far.
    pub fn at(&self) -> &At {
        &self.at
    }

    /// The definitions that are followed.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.traces.iter().map(|it| it.trace.definition())
    }
}

/// How definitions read an event of an older schema. One that cannot be read is told by its fold.
fn upcasts<'a>(
    definitions: impl Iterator<Item = &'a Arc<Definition>>,
    scope: &Scope<'_>,
    redactor: &Redactor,
) -> Vec<Upcasting> {
    let json = |text: &str| RawValue::from_string(redactor.apply(text).into_owned());
    let mut found: Vec<Upcasting> = Vec::new();
    for definition in definitions.filter(|it| !it.upcasts.is_empty()) {
        let Ok(Some(it)) = definition.upcast(scope) else { continue };
        let by = it.by.iter().filter_map(|at| definition.upcasts.get(*at));
        let by: Vec<_> = by.map(Upcast::place).collect();
        let projections = vec![definition.name.clone()];
        if let Some(known) = found.iter_mut().find(|known| known.by == by) {
            known.projections.extend(projections);
            continue;
        }
        // what jsonb holds is JSON, and so is what was made of it
        if let (Ok(before), Ok(after)) = (json(scope.event().payload), json(&it.payload)) {
            found.push(Upcasting { projections, by, before, after });
        }
    }
    found
}

/// Whether rows come from a run's own history alone, by rules.
fn can_follow(definition: &Definition) -> bool {
    definition.sql.is_none() && (definition.belongs_to_runs() || definition.is_unique_per_event())
}

impl At {
    fn moves_to(&mut self, event: &Event<'_>) {
        self.version = event.version;
        self.recorded_at = Some(time_text(event.recorded_at));
    }
}
