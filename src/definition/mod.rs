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
mod redaction;
mod problem;
mod model;
mod shape;
mod handler;
mod sql;
mod needs;
mod lookup;
mod expr;
mod scope;
mod upcast;
mod broadcast;
mod json;
mod tree;
mod time;
mod datum;
mod types;
mod decimal;

pub use self::broadcast::{
    Broadcast, Cursor, LONGEST_TOPIC, Line, LineError, LineRule, Template, parse_broadcast,
};
pub use self::check::parse;
pub use self::datum::{Datum, Value};
pub use self::expr::{EvalError, Expr, ExprError};
pub use self::handler::{Code, Handler, HandlerError, RowChange, Rows};
pub use self::load::{Definitions, load, load_all, parse_all, parse_files, read};
pub use self::model::{
    Column, Definition, Epoch, EventMatch, Index, KeyPart, Lookup, OnError, Op, Operation, Order,
    Rule, Which,
};
pub use self::needs::{Needs, Wanted};
pub use self::problem::Problem;
pub use self::redaction::hash_without_rules;
pub use self::scope::{Items, Scope, Scratch};
pub use self::sql::Sql;
pub use self::time::{parse as parse_time, text as time_text};
pub use self::types::{ColumnType, Misfit};
pub use self::upcast::{Edit, Takes, Upcast, UpcastError, Upcasted};
