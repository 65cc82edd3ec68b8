//! Projection definitions: TOML files that say which rows an event touches, and how.
//!
//! [`load`] reads a directory; everything else is pure. [`parse`] turns a file's text into a
//! [`Definition`], or into *all* [`Problem`]s in it, each with its place. [`Expr`] is the language of
//! the right-hand sides and [`Scope`] one event as expressions see it; [`ColumnType::fit`] decides
//! what a column can hold. [`case`] reads given/expect cases; folding them is the fold's.
//!
//! The format is described in `docs/projections.md`.

pub mod case;
mod load;
mod draft;
mod check;
mod columns;
mod order;
mod hash;
mod problem;
mod near;
mod model;
mod expr;
mod scope;
mod json;
mod tree;
mod time;
mod datum;
mod types;
mod decimal;

pub use self::check::parse;
pub use self::datum::{Datum, Value};
pub use self::expr::{EvalError, Expr, ExprError};
pub use self::load::{load, parse_all, read};
pub use self::model::{
    Column, Definition, Epoch, EventMatch, Index, KeyPart, Lookup, Op, Operation, Order, Rule,
    Which,
};
pub use self::problem::Problem;
pub use self::scope::{Items, Scope, Scratch};
pub use self::types::{ColumnType, Misfit};
