//! The messages of logical replication, read in place.
//!
//! `pgoutput` is the output plugin that every Postgres has. A frame of the replication stream carries
//! exactly one of its messages; [`decode`] reads it without copying and without allocating: names
//! and values borrow from the frame. Nothing here does I/O or remembers anything between frames,
//! with one exception that the protocol forces on a reader: whether a frame lies between
//! `Stream Start` and `Stream Stop`. That is the [`Context`], kept by the caller.
//!
//! The layouts are those of [Logical Replication Message Formats]; who sends what and when is in
//! [Logical Streaming Replication Protocol].
//!
//! | tag | message | since | carries |
//! |-----|---------|-------|---------|
//! | `B` | [`Begin`] | 1 | where the commit record starts, commit time, xid |
//! | `C` | [`Commit`] | 1 | where the commit record starts and **ends**, commit time |
//! | `O` | [`Origin`] | 1 | the transaction came here from another server |
//! | `R` | [`Relation`] | 1 | a table's name and columns, before its first row and after a change |
//! | `Y` | [`Type`] | 1 | the name of a type that is not built in |
//! | `I` `U` `D` | [`Insert`], [`Update`], [`Delete`] | 1 | a row |
//! | `T` | [`Truncate`] | 1 | tables emptied |
//! | `M` | [`LogicalMessage`] | 1 | `pg_logical_emit_message` |
//! | `S` `E` `c` `A` | [`StreamStart`], Stream Stop, [`StreamCommit`], [`StreamAbort`] | 2 | parts of a transaction that is still open |
//! | `b` `P` `K` `r` `p` | [`Prepare`], [`CommitPrepared`], [`RollbackPrepared`] | 3 | two-phase commit |
//!
//! Version 4 adds two fields to [`StreamAbort`]. Any other tag is [`Message::Unknown`]: since a frame
//! is a message, a reader steps over it.
//!
//! [Logical Replication Message Formats]: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
//! [Logical Streaming Replication Protocol]: https://www.postgresql.org/docs/current/protocol-logical-replication.html

mod cursor;
mod tuple;
mod message;
mod relation;
mod decode;

pub use cursor::DecodeError;
pub use decode::decode;
pub use message::{
    Begin, Commit, CommitPrepared, Context, Delete, Insert, LogicalMessage, Message, Origin,
    Prepare, RollbackPrepared, StreamAbort, StreamCommit, StreamStart, Truncate, Type, Update,
};
pub use relation::{
    ColumnNames, EventColumns, Field, MissingColumn, Relation, RelationColumn, Relations,
};
pub use tuple::{Column, Columns, Tuple};
