//! What is worked out once from a definition, so that an event costs little.

use std::collections::HashMap;

use crate::definition::{Definition, EventMatch, Rule};

/// Which rules take which events, and what a row's key and columns need.
#[derive(Debug)]
pub(super) struct Plan {
    /// The rules of each event type that a rule names.
    named: HashMap<Box<str>, Box<[usize]>>,
    /// The rules of all other events.
    any: Box<[usize]>,
    pub(super) key_columns: Vec<usize>,
    /// Per column, whether a position is kept with its cell.
    pub(super) ordered: Vec<bool>,
    /// Whether two events, or two elements of one, may touch the same row.
    pub(super) rows_meet: bool,
    /// Whether a rule goes over an array.
    pub(super) has_foreach: bool,
}

impl Plan {
    pub(super) fn new(definition: &Definition) -> Self {
        let of = |kind: Option<&str>| -> Box<[usize]> {
            let takes = |rule: &Rule| match kind {
                Some(kind) => rule.events.matches(kind),
                None => rule.events == EventMatch::Any,
            };
            let rules = definition.rules.iter().enumerate();
            rules.filter(|(_, rule)| takes(rule)).map(|(at, _)| at).collect()
        };
        let kinds = definition.rules.iter().filter_map(|rule| match &rule.events {
            EventMatch::Types(types) => Some(types),
            EventMatch::Any => None,
        });
        let named = kinds.flatten().map(|kind| (kind.as_str().into(), of(Some(kind)))).collect();
        let mut ordered = vec![false; definition.columns.len()];
        for column in definition.ordered_columns() {
            if let Some(it) = ordered.get_mut(column) {
                *it = true;
            }
        }
        let has_foreach = definition.rules.iter().any(|rule| rule.foreach.is_some());
        let rows_meet = has_foreach || !definition.is_unique_per_event();
        let key_columns = definition.key_columns().collect();
        Self { named, any: of(None), key_columns, ordered, rows_meet, has_foreach }
    }

    /// The rules that take events of a type, in the order of the file.
    pub(super) fn rules<'a>(
        &'a self,
        definition: &'a Definition,
        kind: &str,
    ) -> impl Iterator<Item = &'a Rule> {
        let rules = self.named.get(kind).unwrap_or(&self.any);
        rules.iter().filter_map(|&at| definition.rules.get(at))
    }
}
