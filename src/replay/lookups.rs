//! The few events that `[lookup]` may still need: with them, a run's history can be let go.

use serde_json::Value as Json;

use crate::definition::{Definition, Lookup, Which};
use crate::event::{Batch, Event};
use crate::lsn::Lsn;

/// For each lookup of a definition, the event that has its value now.
#[derive(Debug)]
pub(super) struct Past {
    found: Vec<Option<Batch>>,
}

impl Past {
    pub(super) fn new(definition: &Definition) -> Self {
        Self { found: definition.lookups.iter().map(|_| None).collect() }
    }

    /// The run's next event.
    pub(super) fn event(&mut self, definition: &Definition, event: &Event<'_>) {
        let mut payload = None;
        for (lookup, found) in definition.lookups.iter().zip(&mut self.found) {
            if lookup.which == Which::First && found.is_some() {
                continue;
            }
            let payload: &Json = payload
                .get_or_insert_with(|| serde_json::from_str(event.payload).unwrap_or_default());
            if has(lookup, payload) {
                let mut kept = Batch::default();
                kept.begin(Lsn(0), event.recorded_at);
                kept.push(*event);
                *found = Some(kept);
            }
        }
    }

    /// What lookups read.
    pub(super) fn events(&self) -> Vec<Event<'_>> {
        self.found.iter().flatten().flat_map(Batch::events).collect()
    }
}

fn has(lookup: &Lookup, payload: &Json) -> bool {
    let end = lookup.path.iter().try_fold(payload, |at, key| at.get(key));
    end.is_some_and(|it| !it.is_null())
}
