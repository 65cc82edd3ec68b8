//! The functions: those of `JMESPath`, and ours.

use std::sync::LazyLock;

use jmespath::{Context, ErrorReason, JmespathError, Rcvar, Runtime, RuntimeError, Variable};

use crate::definition::time::{self, Unit};

/// Each function, and the fewest and most arguments it takes.
pub(super) const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("abs", 1, 1),
    ("avg", 1, 1),
    ("ceil", 1, 1),
    ("contains", 2, 2),
    ("date_trunc", 2, 2),
    ("ends_with", 2, 2),
    ("floor", 1, 1),
    ("join", 2, 2),
    ("keys", 1, 1),
    ("left", 2, 2),
    ("length", 1, 1),
    ("lower", 1, 1),
    ("map", 2, 2),
    ("max", 1, 1),
    ("max_by", 2, 2),
    ("merge", 1, usize::MAX),
    ("min", 1, 1),
    ("min_by", 2, 2),
    ("not_null", 1, usize::MAX),
    ("redact", 1, 1),
    ("reverse", 1, 1),
    ("sort", 1, 1),
    ("sort_by", 2, 2),
    ("starts_with", 2, 2),
    ("sum", 1, 1),
    ("to_array", 1, 1),
    ("to_number", 1, 1),
    ("to_string", 1, 1),
    ("type", 1, 1),
    ("values", 1, 1),
];

/// What trees are searched with. `redact` is not in it: it needs the event's scope, so it is
/// compiled to a node and refused inside a tree.
pub(super) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = Runtime::new();
    runtime.register_builtin_functions();
    runtime.register_function("date_trunc", Box::new(date_trunc));
    runtime.register_function("left", Box::new(left));
    runtime.register_function("lower", Box::new(lower));
    runtime
});

type Found = Result<Rcvar, JmespathError>;

fn date_trunc(arguments: &[Rcvar], context: &mut Context<'_>) -> Found {
    let [unit, moment] = arguments else { return Err(arity(arguments, context)) };
    let unit = unit.as_string().and_then(|it| Unit::named(it));
    let unit = unit.ok_or_else(|| wrong(context, "a unit of time", 0))?;
    if moment.is_null() {
        return Ok(Rcvar::new(Variable::Null));
    }
    let moment = moment.as_string().and_then(|it| time::parse(it));
    let moment = moment.ok_or_else(|| wrong(context, "a time", 1))?;
    Ok(Rcvar::new(Variable::String(time::text(unit.truncate(moment)))))
}

fn left(arguments: &[Rcvar], context: &mut Context<'_>) -> Found {
    let [text, most] = arguments else { return Err(arity(arguments, context)) };
    let Variable::Number(most) = most.as_ref() else { return Err(wrong(context, "number", 1)) };
    let most = most.as_u64().and_then(|it| usize::try_from(it).ok());
    let most = most.ok_or_else(|| wrong(context, "a number of characters", 1))?;
    match text.as_string() {
        Some(text) => Ok(Rcvar::new(Variable::String(text.chars().take(most).collect()))),
        None => Ok(Rcvar::clone(text)),
    }
}

fn lower(arguments: &[Rcvar], context: &mut Context<'_>) -> Found {
    let [text] = arguments else { return Err(arity(arguments, context)) };
    match text.as_ref() {
        Variable::Null => Ok(Rcvar::new(Variable::Null)),
        Variable::String(it) => Ok(Rcvar::new(Variable::String(it.to_lowercase()))),
        _ => Err(wrong(context, "string", 0)),
    }
}

fn wrong(context: &Context<'_>, expected: &str, position: usize) -> JmespathError {
    let (expected, actual) = (expected.to_owned(), "another value".to_owned());
    let reason = RuntimeError::InvalidType { expected, actual, position };
    JmespathError::from_ctx(context, ErrorReason::Runtime(reason))
}

fn arity(arguments: &[Rcvar], context: &Context<'_>) -> JmespathError {
    let reason = RuntimeError::NotEnoughArguments { expected: 2, actual: arguments.len() };
    JmespathError::from_ctx(context, ErrorReason::Runtime(reason))
}
