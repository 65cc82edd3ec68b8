//! What of an event a definition reads: the rest need not be fetched when history is read.

use std::collections::BTreeSet;

use super::expr::{Expr, Reads};
use super::model::{Definition, EventMatch};

/// The parts of an event that are read. Position, project, run, version, type and time always are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The event's own id.
    pub event_id: bool,
    /// What surrounds it.
    pub metadata: bool,
    /// What happened.
    pub payload: Wanted,
}

/// The events whose payload is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those of some types.
    Of(BTreeSet<String>),
    /// All.
    All,
}

impl Default for Wanted {
    fn default() -> Self {
        Self::Of(BTreeSet::new())
    }
}

impl Needs {
    /// Everything.
    pub const ALL: Self = Self { event_id: true, metadata: true, payload: Wanted::All };

    /// What is read by one or the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let payload = match (self.payload, other.payload) {
            (Wanted::Of(mut a), Wanted::Of(b)) => {
                a.extend(b);
                Wanted::Of(a)
            }
            _ => Wanted::All,
        };
        Self {
            event_id: self.event_id || other.event_id,
            metadata: self.metadata || other.metadata,
            payload,
        }
    }
}

impl Definition {
    /// What its rules and lookups read.
    pub fn needs(&self) -> Needs {
        // what a program or a statement looks at is its own matter; an upcast reads the whole payload,
        // and the version in the metadata
        if self.code.is_some() || self.sql.is_some() || !self.upcasts.is_empty() {
            return Needs::ALL;
        }
        let mut needs = Needs::default();
        if !self.lookups.is_empty() {
            needs.payload = Wanted::All;
        }
        for rule in &self.rules {
            let key = rule.key.as_ref().unwrap_or(&self.key).iter().map(|it| &it.value);
            let read = key
                .chain(&rule.when)
                .chain(&rule.foreach)
                .chain(self.epoch.iter().map(|it| &it.value))
                .chain(rule.operations.iter().map(|it| &it.value))
                .map(Expr::reads)
                .fold(Reads::default(), Reads::and);
            needs.event_id |= read.event_id;
            needs.metadata |= read.metadata;
            if read.payload {
                needs.payload = match (needs.payload, &rule.events) {
                    (Wanted::Of(mut known), EventMatch::Types(types)) => {
                        known.extend(types.iter().cloned());
                        Wanted::Of(known)
                    }
                    _ => Wanted::All,
                };
            }
        }
        needs
    }
}
