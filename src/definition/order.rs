//! Which order decides in a table.

use super::model::{KeyPart, Order, Rule};

/// The order of a definition with this key and these rules.
pub(super) fn of(key: &[KeyPart], rules: &[Rule], has_epoch: bool) -> Order {
    let needs_order = has_epoch
        || rules
            .iter()
            .any(|it| it.delete || it.operations.iter().any(|it| it.op.is_order_sensitive()));
    let mut keys = std::iter::once(key).chain(rules.iter().filter_map(|it| it.key.as_deref()));
    if !needs_order {
        return Order::Unordered;
    }
    if keys.all(is_unique) && !has_epoch {
        return Order::Unordered;
    }
    if is_by_run(key, rules) { Order::Version } else { Order::Position }
}

/// Whether each row belongs to one run, whichever rule makes it.
pub(super) fn is_by_run(key: &[KeyPart], rules: &[Rule]) -> bool {
    let mut keys = std::iter::once(key).chain(rules.iter().filter_map(|it| it.key.as_deref()));
    keys.all(|it| has(it, "run_id"))
}

/// Whether each event has a row of its own. `event_id` is unique only within its run.
fn is_unique(key: &[KeyPart]) -> bool {
    has(key, "position") || (has(key, "run_id") && (has(key, "version") || has(key, "event_id")))
}

fn has(key: &[KeyPart], field: &str) -> bool {
    key.iter().any(|it| it.value.as_field() == Some(field))
}
