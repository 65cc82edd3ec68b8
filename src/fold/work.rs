//! What one event is about to do to its rows: evaluated as a whole before anything is applied, so
//! that a rule that fails leaves its row as it was.
//!
//! Whether a rule fails depends on the event alone, never on what is pending: a batch may be split
//! anywhere and the same events fail.

use std::ops::Range;

use smallvec::SmallVec;

use crate::definition::{
    ColumnType, Datum, Definition, EvalError, Handler, HandlerError, Items, KeyPart, Op, Operation,
    RowChange, Rows, Rule, Scope, Value,
};
use crate::fold::compose::ComposeError;
use crate::fold::error::Reason;
use crate::fold::plan::Plan;
use crate::redact::Redactor;

/// The values of a row's key, in the order of the definition's key columns.
pub(super) type Key<'a> = SmallVec<[Value<'a>; 4]>;

/// What an event does, row by row.
#[derive(Default)]
pub(super) struct Work<'a> {
    /// The rows that it touches; rules may name one of them twice.
    pub(super) keys: SmallVec<[Key<'a>; 2]>,
    /// In the order of the rules.
    pub(super) steps: SmallVec<[Step; 6]>,
    /// The steps' assignments.
    pub(super) assignments: SmallVec<[Assignment<'a>; 12]>,
    /// What failed. On the way of every event, so it allocates only then.
    pub(super) failures: Vec<Failure>,
    /// The event's rank, where the definition has epochs.
    pub(super) epoch: Option<i32>,
    is_ranked: bool,
    /// The table's own key, once a rule has needed it.
    shared: Option<usize>,
}

/// What one rule does to one row.
pub(super) struct Step {
    /// Which of the keys.
    pub(super) key: usize,
    /// The rule's line.
    pub(super) line: usize,
    /// Whether the row goes; then there are no assignments.
    pub(super) deletes: bool,
    /// Which of the assignments.
    pub(super) assignments: Range<usize>,
}

/// What a step does to one column.
pub(super) struct Assignment<'a> {
    pub(super) op: Op,
    pub(super) column: usize,
    pub(super) value: Value<'a>,
}

/// Why a rule cannot be applied.
#[derive(Debug)]
pub(super) struct Failure {
    /// The row it failed on; `None` where that could not be told.
    pub(super) key: Option<usize>,
    pub(super) line: usize,
    pub(super) column: Option<usize>,
    pub(super) reason: Reason,
}

impl Failure {
    pub(super) fn redact(&mut self, redactor: &Redactor) {
        self.reason = self.reason.clone().redacted(redactor);
    }
}

/// The arrays that an event's `foreach` rules go over, in the order of the rules; `None` for a rule
/// that does not take the event.
pub(super) type Lists<'a> = Vec<Result<Option<Items<'a>>, EvalError>>;

/// Reads the arrays of all `foreach` rules; values borrow from them.
pub(super) fn lists<'a>(
    (definition, plan): (&'a Definition, &'a Plan),
    scope: &Scope<'a>,
) -> Lists<'a> {
    let rules = plan.rules(definition, scope.event().kind);
    let read = |rule: &'a Rule| {
        let foreach = rule.foreach.as_ref()?;
        Some(match is_taken(rule, scope) {
            Ok(true) => {
                foreach.evaluate(scope).and_then(|it| Items::new(it, scope.redactor())).map(Some)
            }
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        })
    };
    rules.filter_map(read).collect()
}

impl<'a> Work<'a> {
    /// Evaluates what all rules make of an event.
    pub(super) fn evaluate(
        &mut self,
        (definition, plan): (&'a Definition, &'a Plan),
        scope: &Scope<'a>,
        lists: &'a Lists<'a>,
    ) {
        let mut lists = lists.iter();
        for rule in plan.rules(definition, scope.event().kind) {
            if rule.foreach.is_none() {
                match is_taken(rule, scope) {
                    Ok(true) => self.rule(definition, rule, scope),
                    Ok(false) => {}
                    Err(error) => {
                        let key = self.key(definition, rule, scope).ok();
                        self.fail(key, rule.line, None, error.into());
                    }
                }
                continue;
            }
            match lists.next() {
                Some(Ok(Some(items))) => {
                    for (number, item) in items.iter().enumerate() {
                        self.rule(definition, rule, &scope.with_item(item, number));
                    }
                }
                Some(Err(error)) => {
                    // the rows are unknown, unless all elements share the table's key
                    let key = match rule.key {
                        None => self.key(definition, rule, scope).ok(),
                        Some(_) => None,
                    };
                    self.fail(key, rule.line, None, error.clone().into());
                }
                Some(Ok(None)) | None => {}
            }
        }
    }

    /// Takes over what the definition's code makes of an event.
    pub(super) fn handle(
        &mut self,
        definition: &'a Definition,
        handler: &dyn Handler,
        scope: &Scope<'a>,
    ) {
        let line = definition.rules.first().map_or(1, |it| it.line);
        let mut rows = Rows::default();
        let handled = handler.event(scope.event(), &mut rows);
        for change in rows.into_changes() {
            self.change(definition, change, scope, line);
        }
        let Err(error) = handled else { return };
        if self.keys.is_empty()
            && let Ok(key) = evaluate_key(definition, &definition.key, scope)
        {
            self.keys.push(key);
        }
        if self.keys.is_empty() {
            self.fail(None, line, None, error.clone().into());
        }
        for key in 0..self.keys.len() {
            self.fail(Some(key), line, None, error.clone().into());
        }
    }

    fn change(
        &mut self,
        definition: &'a Definition,
        change: RowChange<'a>,
        scope: &Scope<'a>,
        line: usize,
    ) {
        let RowChange { key: own, operations, deletes } = change;
        let key = match own_key(definition, own, scope) {
            Ok(key) => key,
            Err((column, reason)) => return self.fail(None, line, column, reason),
        };
        let key = match self.keys.iter().position(|it| *it == key) {
            Some(known) => known,
            None => {
                self.keys.push(key);
                self.keys.len() - 1
            }
        };
        if let Err((column, reason)) = self.rank(definition, scope) {
            return self.fail(Some(key), line, Some(column), reason);
        }
        let start = self.assignments.len();
        if deletes {
            if !definition.deletes() {
                let reason = HandlerError::new("`delete` is not declared under `[handler]`");
                return self.fail(Some(key), line, None, reason.into());
            }
            self.steps.push(Step { key, line, deletes, assignments: start..start });
        }
        for (op, name, datum) in operations {
            let column = definition.column(name);
            match declared(definition, op, name).and_then(|it| fitted(definition, op, it, datum)) {
                Ok(it) => self.assignments.push(it),
                Err(reason) => {
                    self.assignments.truncate(start);
                    return self.fail(Some(key), line, column, reason);
                }
            }
        }
        let assignments = start..self.assignments.len();
        if !deletes || !assignments.is_empty() {
            self.steps.push(Step { key, line, deletes: false, assignments });
        }
    }

    fn rule(&mut self, definition: &'a Definition, rule: &'a Rule, scope: &Scope<'a>) {
        let key = match self.key(definition, rule, scope) {
            Ok(key) => key,
            Err((column, reason)) => return self.fail(None, rule.line, Some(column), reason),
        };
        if let Err((column, reason)) = self.rank(definition, scope) {
            return self.fail(Some(key), rule.line, Some(column), reason);
        }
        let start = self.assignments.len();
        for operation in &rule.operations {
            match assignment(definition, operation, scope) {
                Ok(it) => self.assignments.push(it),
                Err(reason) => {
                    self.assignments.truncate(start);
                    return self.fail(Some(key), operation.line, Some(operation.column), reason);
                }
            }
        }
        let assignments = start..self.assignments.len();
        self.steps.push(Step { key, line: rule.line, deletes: rule.delete, assignments });
    }

    /// The row that a rule means. Rules without a key of their own share the table's.
    fn key(
        &mut self,
        definition: &'a Definition,
        rule: &'a Rule,
        scope: &Scope<'a>,
    ) -> Result<usize, (usize, Reason)> {
        if rule.key.is_none()
            && let Some(key) = self.shared
        {
            return Ok(key);
        }
        let parts = rule.key.as_ref().unwrap_or(&definition.key);
        let key = evaluate_key(definition, parts, scope)?;
        let at = self.keys.len();
        self.keys.push(key);
        if rule.key.is_none() {
            self.shared = Some(at);
        }
        Ok(at)
    }

    /// The event's rank, the same for all its rules.
    fn rank(
        &mut self,
        definition: &'a Definition,
        scope: &Scope<'a>,
    ) -> Result<(), (usize, Reason)> {
        let Some(epoch) = &definition.epoch else { return Ok(()) };
        if self.is_ranked {
            return Ok(());
        }
        let explain = |reason| (epoch.column, reason);
        let datum = epoch.value.evaluate(scope).map_err(|it| explain(it.into()))?;
        if let Value::Int(rank) = ColumnType::Int4.fit(datum).map_err(|it| explain(it.into()))? {
            self.epoch = i32::try_from(rank).ok();
        }
        self.is_ranked = true;
        Ok(())
    }

    fn fail(&mut self, key: Option<usize>, line: usize, column: Option<usize>, reason: Reason) {
        self.failures.push(Failure { key, line, column, reason });
    }
}

fn is_taken(rule: &Rule, scope: &Scope<'_>) -> Result<bool, EvalError> {
    rule.when.as_ref().map_or(Ok(true), |when| when.is_true(scope))
}

fn assignment<'a>(
    definition: &Definition,
    operation: &'a Operation,
    scope: &Scope<'a>,
) -> Result<Assignment<'a>, Reason> {
    let Operation { op, column, value, .. } = operation;
    fitted(definition, *op, *column, value.evaluate(scope)?)
}

/// A value as its column holds it.
fn fitted<'a>(
    definition: &Definition,
    op: Op,
    column: usize,
    datum: Datum<'a>,
) -> Result<Assignment<'a>, Reason> {
    let value = match definition.columns.get(column).map(|it| &it.ty) {
        Some(ty) => match (op, ty.element()) {
            (Op::Append, Some(element)) => element.fit(datum)?,
            _ => ty.fit(datum)?,
        },
        None => Value::Null,
    };
    if op == Op::Merge
        && let Value::Text(text) = &value
        && !text.trim_start().starts_with('{')
    {
        return Err(ComposeError::NotAnObject(text.as_ref().to_owned()).into());
    }
    Ok(Assignment { op, column, value })
}

/// The column that code means, where `[handler]` declares the operation on it.
fn declared(definition: &Definition, op: Op, name: &str) -> Result<usize, Reason> {
    let column = definition.column(name).filter(|it| definition.ops_of(*it).contains(&op));
    column.ok_or_else(|| {
        let reason = format!("`{} {name}` is not declared under `[handler]`", op.name());
        HandlerError::new(reason).into()
    })
}

/// The definition's key with a handler's own values.
fn own_key<'a>(
    definition: &'a Definition,
    own: Vec<(&'static str, Datum<'a>)>,
    scope: &Scope<'a>,
) -> Result<Key<'a>, (Option<usize>, Reason)> {
    let explain = |(column, reason)| (Some(column), reason);
    let mut key = evaluate_parts(definition, &definition.key, scope, |column| {
        own.iter().any(|(name, _)| definition.column(name) == Some(column))
    })
    .map_err(explain)?;
    for (name, datum) in own {
        let refuse = |why: &str| {
            (definition.column(name), HandlerError::new(format!("`{name}` {why}")).into())
        };
        let place = definition.key.iter().position(|it| Some(it.column) == definition.column(name));
        let part = place.and_then(|it| Some((definition.key.get(it)?, key.get_mut(it)?)));
        let Some((part, value)) = part else { return Err(refuse("is no column of the key")) };
        if part.value.as_field().is_some() {
            return Err(refuse("is a field of the event in the key, and cannot be another"));
        }
        let ty = definition.columns.get(part.column).map(|it| &it.ty);
        let fitted = ty.map_or(Ok(Value::Null), |it| it.fit(datum));
        *value = fitted.map_err(|it| (Some(part.column), it.into()))?;
        if matches!(value, Value::Null) {
            return Err((Some(part.column), Reason::NullKey));
        }
    }
    Ok(key)
}

fn evaluate_key<'a>(
    definition: &Definition,
    parts: &'a [KeyPart],
    scope: &Scope<'a>,
) -> Result<Key<'a>, (usize, Reason)> {
    evaluate_parts(definition, parts, scope, |_| false)
}

/// A key with nulls in the columns that are left out.
fn evaluate_parts<'a>(
    definition: &Definition,
    parts: &'a [KeyPart],
    scope: &Scope<'a>,
    is_left_out: impl Fn(usize) -> bool,
) -> Result<Key<'a>, (usize, Reason)> {
    let mut key = Key::new();
    for KeyPart { column, value } in parts {
        if is_left_out(*column) {
            key.push(Value::Null);
            continue;
        }
        let explain = |reason| (*column, reason);
        let datum = value.evaluate(scope).map_err(|it| explain(it.into()))?;
        let Some(ty) = definition.columns.get(*column).map(|it| &it.ty) else { continue };
        let value = ty.fit(datum).map_err(|it| explain(it.into()))?;
        if matches!(value, Value::Null) {
            return Err(explain(Reason::NullKey));
        }
        key.push(value);
    }
    Ok(key)
}
