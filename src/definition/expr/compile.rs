//! From text to nodes: the `jmespath` crate parses, this module checks and simplifies.

use std::borrow::Cow;

use jmespath::ast::Ast;
use jmespath::{ErrorReason, Variable};

use super::function::FUNCTIONS;
use super::{Expr, ExprError, Field, Node, Root};
use crate::config::nearest;
use crate::definition::datum::Datum;
use crate::definition::time::Unit;

/// The parser recurses: a longer text could end the thread's stack.
const LONGEST_BYTES: usize = 2_000;

/// What an expression can name.
const ENVELOPE: &[&str] = &[
    "position",
    "project_id",
    "run_id",
    "version",
    "event_id",
    "type",
    "payload",
    "metadata",
    "recorded_at",
    "item",
    "index",
];

pub(super) fn compile(text: &str) -> Result<Expr, ExprError> {
    if LONGEST_BYTES < text.len() {
        let message = format!("expression of {} bytes, at most {LONGEST_BYTES}", text.len());
        return Err(ExprError { message, offset: 0, length: 1, hint: None });
    }
    let ast = jmespath::parse(text).map_err(|error| syntax(text, &error))?;
    let mut checker = Checker { text, uses_item: false };
    checker.check(&ast, true)?;
    let uses_item = checker.uses_item;
    let node = node(ast);
    if let Some(offset) = nested_redact(&node) {
        let hint = "write `redact(…)` around the whole expression, or around one side of `||`";
        return Err(checker.error(
            offset,
            "redact",
            "`redact` inside of an expression",
            Some(hint),
        ));
    }
    Ok(Expr { text: text.to_owned(), node, uses_item })
}

fn syntax(text: &str, error: &jmespath::JmespathError) -> ExprError {
    let offset = error.offset.min(text.len());
    let rest = text.get(offset..).unwrap_or_default();
    let detail = match &error.reason {
        ErrorReason::Parse(detail) => detail.split(" -- found ").next().unwrap_or_default(),
        ErrorReason::Runtime(_) => "",
    };
    let found = match rest.chars().next() {
        None => "unexpected end".to_owned(),
        Some(found) => format!("unexpected `{found}`"),
    };
    let is_jargon =
        ["nud token", "led token", "Did not parse"].iter().any(|it| detail.contains(it));
    let message = match detail {
        "" => format!("not JMESPath: {found}"),
        _ if is_jargon => format!("not JMESPath: {found}"),
        detail => format!("not JMESPath: {found}: {}", lower_first(detail)),
    };
    let hint = "paths like `payload.error.message`; text in single quotes, numbers in backticks";
    let length = rest.chars().next().map_or(1, char::len_utf8);
    ExprError { message, offset, length, hint: Some(hint.to_owned()) }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|it| it.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

struct Checker<'a> {
    text: &'a str,
    uses_item: bool,
}

impl Checker<'_> {
    /// `at_root`: names are the envelope's, not those of a value on the way.
    fn check(&mut self, ast: &Ast, at_root: bool) -> Result<(), ExprError> {
        match ast {
            Ast::Field { name, offset } if at_root => self.field(name, *offset),
            Ast::Subexpr { lhs, rhs, offset } => {
                if matches!(**lhs, Ast::Not { .. }) {
                    let message = "`!` takes only the name right after it";
                    let hint = "put the path in parentheses: `!(payload.ok)`";
                    return Err(self.error(*offset, ".", message, Some(hint)));
                }
                self.check(lhs, at_root)?;
                self.check(rhs, false)
            }
            Ast::Projection { lhs, rhs, .. } => {
                self.check(lhs, at_root)?;
                self.check(rhs, false)
            }
            Ast::Comparison { lhs, rhs, .. }
            | Ast::Or { lhs, rhs, .. }
            | Ast::And { lhs, rhs, .. } => {
                self.check(lhs, at_root)?;
                self.check(rhs, at_root)
            }
            Ast::Condition { predicate, then, .. } => {
                self.check(predicate, at_root)?;
                self.check(then, at_root)
            }
            Ast::Not { node, .. } | Ast::Flatten { node, .. } | Ast::ObjectValues { node, .. } => {
                self.check(node, at_root)
            }
            Ast::Expref { ast, .. } => self.check(ast, false),
            Ast::MultiList { elements, .. } => {
                elements.iter().try_for_each(|it| self.check(it, at_root))
            }
            Ast::MultiHash { elements, .. } => {
                elements.iter().try_for_each(|it| self.check(&it.value, at_root))
            }
            Ast::Function { name, args, offset } => {
                self.function(name, args, *offset)?;
                args.iter().try_for_each(|it| self.check(it, at_root))
            }
            Ast::Identity { .. }
            | Ast::Field { .. }
            | Ast::Index { .. }
            | Ast::Literal { .. }
            | Ast::Slice { .. } => Ok(()),
        }
    }

    fn field(&mut self, name: &str, offset: usize) -> Result<(), ExprError> {
        if ENVELOPE.contains(&name) {
            self.uses_item |= matches!(name, "item" | "index");
            return Ok(());
        }
        let constant = format!("a constant has quotes of its own: `'{name}'`");
        let hint = match nearest(name, ENVELOPE.iter().copied()) {
            Some(near) if self.text == name => format!("did you mean `{near}`? {constant}"),
            Some(near) => format!("did you mean `{near}`?"),
            None if self.text == name => constant,
            None => format!("a part of the payload is `payload.{name}`"),
        };
        Err(self.error(offset, name, &format!("an event has no `{name}`"), Some(&hint)))
    }

    fn function(&self, name: &str, arguments: &[Ast], parenthesis: usize) -> Result<(), ExprError> {
        let offset = parenthesis.saturating_sub(name.len());
        let Some((_, fewest, most)) = FUNCTIONS.iter().find(|it| it.0 == name) else {
            let names = FUNCTIONS.iter().map(|it| it.0);
            let hint = nearest(name, names).map(|near| format!("did you mean `{near}`?"));
            let message = format!("unknown function `{name}`");
            return Err(self.error(offset, name, &message, hint.as_deref()));
        };
        if !(*fewest..=*most).contains(&arguments.len()) {
            let at_least = if fewest == most { "" } else { "at least " };
            let s = if *fewest == 1 { "" } else { "s" };
            let message =
                format!("`{name}` takes {at_least}{fewest} argument{s}, found {}", arguments.len());
            return Err(self.error(offset, name, &message, None));
        }
        if let ("date_trunc", [Ast::Literal { value, .. }, _]) = (name, arguments)
            && value.as_string().and_then(|it| Unit::named(it)).is_none()
        {
            let units = Unit::NAMES.join("', '");
            let message = format!("`date_trunc` does not know the unit {value}");
            return Err(self.error(offset, name, &message, Some(&format!("one of '{units}'"))));
        }
        Ok(())
    }

    fn error(&self, offset: usize, wrong: &str, message: &str, hint: Option<&str>) -> ExprError {
        let offset = offset.min(self.text.len());
        let length = wrong.len().min(self.text.len() - offset).max(1);
        ExprError { message: message.to_owned(), offset, length, hint: hint.map(str::to_owned) }
    }
}

fn node(ast: Ast) -> Node {
    match ast {
        Ast::Literal { value, .. } => Node::Constant(constant(&value)),
        Ast::Field { .. } | Ast::Subexpr { .. } => {
            path(&ast).unwrap_or_else(|| Node::Tree(Box::new(ast)))
        }
        Ast::Or { lhs, rhs, .. } => Node::Or(Box::new(node(*lhs)), Box::new(node(*rhs))),
        Ast::And { lhs, rhs, .. } => Node::And(Box::new(node(*lhs)), Box::new(node(*rhs))),
        Ast::Not { node: inner, .. } => Node::Not(Box::new(node(*inner))),
        Ast::Comparison { comparator, lhs, rhs, .. } if is_scalar(&lhs) || is_scalar(&rhs) => {
            Node::Compare(comparator, Box::new(node(*lhs)), Box::new(node(*rhs)))
        }
        Ast::Function { name, args, offset } => function(name, args, offset),
        other => Node::Tree(Box::new(other)),
    }
}

fn function(name: String, mut args: Vec<Ast>, offset: usize) -> Node {
    let unit = |it: &Ast| literal(it).and_then(|it| Unit::named(it.as_string()?));
    let characters = |it: &Ast| match literal(it) {
        Some(Variable::Number(most)) => most.as_u64().and_then(|it| usize::try_from(it).ok()),
        _ => None,
    };
    match (name.as_str(), args.as_mut_slice()) {
        ("redact", [_]) => Node::Redact(Box::new(node(args.remove(0)))),
        ("date_trunc", [first, _]) => match unit(first) {
            Some(unit) => Node::DateTrunc(unit, Box::new(node(args.remove(1)))),
            None => Node::Tree(Box::new(Ast::Function { name, args, offset })),
        },
        ("left", [_, second]) => match characters(second) {
            Some(most) => Node::Left(Box::new(node(args.remove(0))), most),
            None => Node::Tree(Box::new(Ast::Function { name, args, offset })),
        },
        _ => Node::Tree(Box::new(Ast::Function { name, args, offset })),
    }
}

/// A chain of names from the envelope down.
fn path(ast: &Ast) -> Option<Node> {
    let mut names = Vec::new();
    collect(ast, &mut names)?;
    let (first, rest) = names.split_first()?;
    let root = match *first {
        "payload" => Root::Payload,
        "metadata" => Root::Metadata,
        "item" => Root::Item,
        // a path into a scalar leads nowhere; the tree says so
        name => return if rest.is_empty() { Field::named(name).map(Node::Field) } else { None },
    };
    Some(Node::Path(root, rest.iter().map(|it| (*it).to_owned()).collect()))
}

fn collect<'a>(ast: &'a Ast, names: &mut Vec<&'a str>) -> Option<()> {
    match ast {
        Ast::Field { name, .. } => names.push(name),
        Ast::Subexpr { lhs, rhs, .. } => {
            collect(lhs, names)?;
            collect(rhs, names)?;
        }
        _ => return None,
    }
    Some(())
}

fn literal(ast: &Ast) -> Option<&Variable> {
    match ast {
        Ast::Literal { value, .. } => Some(value),
        _ => None,
    }
}

fn is_scalar(ast: &Ast) -> bool {
    literal(ast).is_some_and(|it| !it.is_array() && !it.is_object())
}

fn constant(value: &Variable) -> Datum<'static> {
    match value {
        Variable::Null | Variable::Expref(_) => Datum::Null,
        Variable::Bool(it) => Datum::Bool(*it),
        Variable::Number(it) => Datum::Number(Cow::Owned(it.to_string())),
        Variable::String(it) => Datum::Text(Cow::Owned(it.clone())),
        Variable::Array(_) | Variable::Object(_) => Datum::Json(Cow::Owned(value.to_string())),
    }
}

/// Where a `redact` was left inside of a tree.
fn nested_redact(node: &Node) -> Option<usize> {
    match node {
        Node::Constant(_) | Node::Field(_) | Node::Path(..) => None,
        Node::Or(a, b) | Node::And(a, b) | Node::Compare(_, a, b) => {
            nested_redact(a).or_else(|| nested_redact(b))
        }
        Node::Not(it) | Node::DateTrunc(_, it) | Node::Redact(it) | Node::Left(it, _) => {
            nested_redact(it)
        }
        Node::Tree(ast) => find_redact(ast),
    }
}

fn find_redact(ast: &Ast) -> Option<usize> {
    match ast {
        Ast::Function { name, offset, .. } if name == "redact" => {
            Some(offset.saturating_sub(name.len()))
        }
        Ast::Function { args: parts, .. } | Ast::MultiList { elements: parts, .. } => {
            parts.iter().find_map(find_redact)
        }
        Ast::MultiHash { elements, .. } => elements.iter().find_map(|it| find_redact(&it.value)),
        Ast::Subexpr { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::Comparison { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Condition { predicate: lhs, then: rhs, .. } => {
            find_redact(lhs).or_else(|| find_redact(rhs))
        }
        Ast::Not { node, .. } | Ast::Flatten { node, .. } | Ast::ObjectValues { node, .. } => {
            find_redact(node)
        }
        Ast::Expref { ast, .. } => find_redact(ast),
        Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Slice { .. } => None,
    }
}
