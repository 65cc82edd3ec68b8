//! Which lines of a definition an event's effect on a row comes from.
//!
//! The fold does not remember which rule wrote what: on its way that would be paid for with every
//! event, and here nobody is in a hurry. So rules are asked again.

use crate::definition::{Definition, EvalError, Items, KeyPart, Rule, Scope, Scratch, Value};

/// What rules do to one row on behalf of one event.
#[derive(Debug, Default)]
pub(super) struct Causes {
    /// The column, or none for a row that goes, and the line.
    lines: Vec<(Option<usize>, usize)>,
}

impl Causes {
    /// The lines that write `column`, in the order in which they apply.
    pub(super) fn of(&self, column: usize) -> impl Iterator<Item = usize> {
        let lines = self.lines.iter().filter(move |it| it.0 == Some(column));
        lines.map(|it| it.1)
    }

    /// The lines that remove the row.
    pub(super) fn of_removal(&self) -> impl Iterator<Item = usize> {
        self.lines.iter().filter(|it| it.0.is_none()).map(|it| it.1)
    }

    /// Whether any rule names the row.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// What the rules that take an event do to the row of `key`. A rule whose condition fails counts as
/// one that takes the event: that may be what is asked about.
pub(super) fn causes(definition: &Definition, scope: &Scope<'_>, key: &[Value<'_>]) -> Causes {
    // as the fold reads the event
    if let Ok(Some(it)) = definition.upcast(scope) {
        let mut scratch = Scratch::default();
        return of_rules(definition, &scope.with_payload(&it.payload, &mut scratch), key);
    }
    of_rules(definition, scope, key)
}

fn of_rules(definition: &Definition, scope: &Scope<'_>, key: &[Value<'_>]) -> Causes {
    let mut causes = Causes::default();
    for rule in definition.rules.iter().filter(|it| it.events.matches(scope.event().kind)) {
        if rule.when.as_ref().is_some_and(|it| matches!(it.is_true(scope), Ok(false))) {
            continue;
        }
        let parts = rule.key.as_ref().unwrap_or(&definition.key);
        // what cannot be evaluated names no row
        if let Ok(count) = named(definition, rule, parts, scope, key) {
            for _ in 0..count {
                causes.rule(rule);
            }
        }
    }
    causes
}

impl Causes {
    fn rule(&mut self, rule: &Rule) {
        if rule.delete {
            self.lines.push((None, rule.line));
        }
        self.lines.extend(rule.operations.iter().map(|it| (Some(it.column), it.line)));
    }
}

/// How often a rule names the row.
fn named(
    definition: &Definition,
    rule: &Rule,
    parts: &[KeyPart],
    scope: &Scope<'_>,
    key: &[Value<'_>],
) -> Result<usize, EvalError> {
    let Some(foreach) = &rule.foreach else {
        return Ok(usize::from(is_key(definition, parts, scope, key)));
    };
    let items = foreach.evaluate(scope).and_then(|it| Items::new(it, scope.redactor()))?;
    let is_named = |(number, item)| is_key(definition, parts, &scope.with_item(item, number), key);
    Ok(items.iter().enumerate().filter(|it| is_named(*it)).count())
}

fn is_key(
    definition: &Definition,
    parts: &[KeyPart],
    scope: &Scope<'_>,
    key: &[Value<'_>],
) -> bool {
    parts.len() == key.len()
        && parts.iter().zip(key).all(|(part, wanted)| {
            let ty = definition.columns.get(part.column).map(|it| &it.ty);
            let datum = part.value.evaluate(scope).ok();
            match (ty, datum) {
                (Some(ty), Some(datum)) => ty.fit(datum).is_ok_and(|it| it == *wanted),
                _ => false,
            }
        })
}
