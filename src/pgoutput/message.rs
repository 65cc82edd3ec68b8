//! The messages and how each is read.

use crate::event::Timestamp;
use crate::lsn::Lsn;

use super::cursor::{Cursor, DecodeError};
use super::relation::Relation;
use super::tuple::Tuple;

/// A transaction starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit record starts.
    pub commit_lsn: Lsn,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// Its id.
    pub xid: u32,
}

/// A transaction is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where its commit record starts.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: what is acknowledged and what a checkpoint holds.
    pub end_lsn: Lsn,
    /// When it was committed.
    pub committed_at: Timestamp,
}

/// The transaction was replicated to this server from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Where it was committed there.
    pub commit_lsn: Lsn,
    /// The origin's name.
    pub name: &'a str,
}

/// A type that is not built in, before the first relation that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type<'a> {
    /// The streamed transaction it belongs to.
    pub xid: Option<u32>,
    /// The type's object id.
    pub id: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// A row was inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert<'a> {
    /// The streamed transaction it belongs to.
    pub xid: Option<u32>,
    /// The table's object id.
    pub relation: u32,
    /// The row.
    pub new: Tuple<'a>,
}

/// A row was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The streamed transaction it belongs to.
    pub xid: Option<u32>,
    /// The table's object id.
    pub relation: u32,
    /// The row before: all of it under `replica identity full`, its old key when that has changed.
    pub old: Option<Tuple<'a>>,
    /// The row after.
    pub new: Tuple<'a>,
}

/// A row was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The streamed transaction it belongs to.
    pub xid: Option<u32>,
    /// The table's object id.
    pub relation: u32,
    /// The row before, or its key alone with nulls around it.
    pub old: Tuple<'a>,
}

/// Tables were emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate<'a> {
    /// The streamed transaction it belongs to.
    pub xid: Option<u32>,
    /// `truncate … cascade`.
    pub cascade: bool,
    /// `truncate … restart identity`.
    pub restart_identity: bool,
    relations: &'a [u8],
}

impl Truncate<'_> {
    /// The object ids of the tables.
    pub fn relations(&self) -> impl Iterator<Item = u32> {
        let mut cursor = Cursor::within(self.relations);
        std::iter::from_fn(move || cursor.u32("relation").ok())
    }
}

/// What `pg_logical_emit_message` was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// The streamed transaction it belongs to.
    pub xid: Option<u32>,
    /// Whether it belongs to a transaction; otherwise it was sent at once.
    pub transactional: bool,
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// Whom it is meant for.
    pub prefix: &'a str,
    /// Any bytes.
    pub content: &'a [u8],
}

/// Part of an open transaction follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// The transaction.
    pub xid: u32,
    /// Whether this is its first part.
    pub first: bool,
}

/// A streamed transaction was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCommit {
    /// The transaction.
    pub xid: u32,
    /// Its commit.
    pub commit: Commit,
}

/// A streamed transaction or a part of one (a savepoint) was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAbort {
    /// The transaction.
    pub xid: u32,
    /// The part that is void; the transaction's own id when all of it is.
    pub subtransaction: u32,
    /// Where and when; only with `streaming 'parallel'` (version 4).
    pub at: Option<(Lsn, Timestamp)>,
}

/// A transaction is to be prepared, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// Where its prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where its prepare record ends.
    pub end_lsn: Lsn,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// The transaction.
    pub xid: u32,
    /// The name given in `prepare transaction`.
    pub gid: &'a str,
}

/// `commit prepared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPrepared<'a> {
    /// The commit of the transaction.
    pub commit: Commit,
    /// The transaction.
    pub xid: u32,
    /// The name given in `prepare transaction`.
    pub gid: &'a str,
}

/// `rollback prepared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollbackPrepared<'a> {
    /// Where its prepare record ends.
    pub prepare_end_lsn: Lsn,
    /// Where its rollback record ends.
    pub end_lsn: Lsn,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// When it was rolled back.
    pub rolled_back_at: Timestamp,
    /// The transaction.
    pub xid: u32,
    /// The name given in `prepare transaction`.
    pub gid: &'a str,
}

/// One message of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is named after its content, which has its own page")]
pub enum Message<'a> {
    Begin(Begin),
    Commit(Commit),
    Origin(Origin<'a>),
    Relation(Relation<'a>),
    Type(Type<'a>),
    Insert(Insert<'a>),
    Update(Update<'a>),
    Delete(Delete<'a>),
    Truncate(Truncate<'a>),
    Logical(LogicalMessage<'a>),
    StreamStart(StreamStart),
    StreamStop,
    StreamCommit(StreamCommit),
    StreamAbort(StreamAbort),
    BeginPrepare(Prepare<'a>),
    Prepare(Prepare<'a>),
    CommitPrepared(CommitPrepared<'a>),
    RollbackPrepared(RollbackPrepared<'a>),
    StreamPrepare(Prepare<'a>),
    /// A message of a version that nobody asked for, by its tag.
    Unknown(u8),
}

impl Message<'_> {
    /// The message's name in the protocol's documentation.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begin(_) => "Begin",
            Self::Commit(_) => "Commit",
            Self::Origin(_) => "Origin",
            Self::Relation(_) => "Relation",
            Self::Type(_) => "Type",
            Self::Insert(_) => "Insert",
            Self::Update(_) => "Update",
            Self::Delete(_) => "Delete",
            Self::Truncate(_) => "Truncate",
            Self::Logical(_) => "Message",
            Self::StreamStart(_) => "Stream Start",
            Self::StreamStop => "Stream Stop",
            Self::StreamCommit(_) => "Stream Commit",
            Self::StreamAbort(_) => "Stream Abort",
            Self::BeginPrepare(_) => "Begin Prepare",
            Self::Prepare(_) => "Prepare",
            Self::CommitPrepared(_) => "Commit Prepared",
            Self::RollbackPrepared(_) => "Rollback Prepared",
            Self::StreamPrepare(_) => "Stream Prepare",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Where a message stands, which decides whether it names its transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Context {
    /// Outside of `Stream Start` and `Stream Stop`: always, with protocol version 1.
    #[default]
    Whole,
    /// Between them: rows, relations, types and messages carry their transaction's id.
    Streamed,
}

impl Context {
    /// The context of the message that follows `message`.
    #[must_use]
    pub fn after(self, message: &Message<'_>) -> Self {
        match message {
            Message::StreamStart(_) => Self::Streamed,
            Message::StreamStop => Self::Whole,
            _ => self,
        }
    }
}

/// Reads the message that `frame` holds.
///
/// # Errors
/// When the frame is empty, ends within a field, goes on after the last one, or a field cannot be
/// what it is. A tag that is not known is no error.
pub fn decode(frame: &[u8], context: Context) -> Result<Message<'_>, DecodeError> {
    let (tag, mut cursor) = Cursor::open(frame)?;
    let from = &mut cursor;
    let message = match tag {
        b'B' => Message::Begin(Begin {
            commit_lsn: from.lsn("final LSN")?,
            committed_at: from.time("commit time")?,
            xid: from.u32("transaction")?,
        }),
        b'C' => Message::Commit(commit(from)?),
        b'O' => Message::Origin(Origin {
            commit_lsn: from.lsn("commit LSN")?,
            name: from.name("name")?,
        }),
        b'R' => Message::Relation(Relation::decode(transaction(from, context)?, from)?),
        b'Y' => Message::Type(Type {
            xid: transaction(from, context)?,
            id: from.u32("type")?,
            schema: from.name("schema")?,
            name: from.name("name")?,
        }),
        b'I' => Message::Insert(insert(from, context)?),
        b'U' => Message::Update(update(from, context)?),
        b'D' => Message::Delete(delete(from, context)?),
        b'T' => Message::Truncate(truncate(from, context)?),
        b'M' => Message::Logical(LogicalMessage {
            xid: transaction(from, context)?,
            transactional: from.u8("flags")? & 1 != 0,
            lsn: from.lsn("LSN")?,
            prefix: from.name("prefix")?,
            content: from.counted("content")?,
        }),
        b'S' => Message::StreamStart(StreamStart {
            xid: from.u32("transaction")?,
            first: from.u8("first segment")? != 0,
        }),
        b'E' => Message::StreamStop,
        b'c' => Message::StreamCommit(StreamCommit {
            xid: from.u32("transaction")?,
            commit: commit(from)?,
        }),
        b'A' => Message::StreamAbort(stream_abort(from)?),
        b'b' => Message::BeginPrepare(prepare(from)?),
        b'P' => Message::Prepare(flagged_prepare(from)?),
        b'K' => {
            from.u8("flags")?;
            Message::CommitPrepared(CommitPrepared {
                commit: commit_body(from)?,
                xid: from.u32("transaction")?,
                gid: from.name("gid")?,
            })
        }
        b'r' => Message::RollbackPrepared(rollback_prepared(from)?),
        b'p' => Message::StreamPrepare(flagged_prepare(from)?),
        unknown => return Ok(Message::Unknown(unknown)),
    };
    cursor.finish()?;
    Ok(message)
}

fn transaction(from: &mut Cursor<'_>, context: Context) -> Result<Option<u32>, DecodeError> {
    match context {
        Context::Whole => Ok(None),
        Context::Streamed => from.u32("transaction").map(Some),
    }
}

fn commit(from: &mut Cursor<'_>) -> Result<Commit, DecodeError> {
    from.u8("flags")?;
    commit_body(from)
}

fn commit_body(from: &mut Cursor<'_>) -> Result<Commit, DecodeError> {
    Ok(Commit {
        commit_lsn: from.lsn("commit LSN")?,
        end_lsn: from.lsn("end LSN")?,
        committed_at: from.time("commit time")?,
    })
}

fn insert<'a>(from: &mut Cursor<'a>, context: Context) -> Result<Insert<'a>, DecodeError> {
    let xid = transaction(from, context)?;
    let relation = from.u32("relation")?;
    match from.u8("kind of row")? {
        b'N' => Ok(Insert { xid, relation, new: Tuple::decode(from)? }),
        other => Err(from.unexpected("kind of row", other)),
    }
}

fn update<'a>(from: &mut Cursor<'a>, context: Context) -> Result<Update<'a>, DecodeError> {
    let xid = transaction(from, context)?;
    let relation = from.u32("relation")?;
    let mut old = None;
    let mut kind = from.u8("kind of row")?;
    if matches!(kind, b'K' | b'O') {
        old = Some(Tuple::decode(from)?);
        kind = from.u8("kind of row")?;
    }
    match kind {
        b'N' => Ok(Update { xid, relation, old, new: Tuple::decode(from)? }),
        other => Err(from.unexpected("kind of row", other)),
    }
}

fn delete<'a>(from: &mut Cursor<'a>, context: Context) -> Result<Delete<'a>, DecodeError> {
    let xid = transaction(from, context)?;
    let relation = from.u32("relation")?;
    match from.u8("kind of row")? {
        b'K' | b'O' => Ok(Delete { xid, relation, old: Tuple::decode(from)? }),
        other => Err(from.unexpected("kind of row", other)),
    }
}

fn truncate<'a>(from: &mut Cursor<'a>, context: Context) -> Result<Truncate<'a>, DecodeError> {
    let xid = transaction(from, context)?;
    let count = from.u32("number of relations")?;
    let options = from.u8("options")?;
    let length = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(size_of::<u32>());
    Ok(Truncate {
        xid,
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
        relations: from.bytes(length, "relations")?,
    })
}

fn stream_abort(from: &mut Cursor<'_>) -> Result<StreamAbort, DecodeError> {
    let xid = from.u32("transaction")?;
    let subtransaction = from.u32("subtransaction")?;
    // Not the version decides but the option `streaming`, which the message does not tell.
    let at = if from.rest().is_empty() {
        None
    } else {
        Some((from.lsn("abort LSN")?, from.time("abort time")?))
    };
    Ok(StreamAbort { xid, subtransaction, at })
}

fn flagged_prepare<'a>(from: &mut Cursor<'a>) -> Result<Prepare<'a>, DecodeError> {
    from.u8("flags")?;
    prepare(from)
}

fn prepare<'a>(from: &mut Cursor<'a>) -> Result<Prepare<'a>, DecodeError> {
    Ok(Prepare {
        prepare_lsn: from.lsn("prepare LSN")?,
        end_lsn: from.lsn("end LSN")?,
        prepared_at: from.time("prepare time")?,
        xid: from.u32("transaction")?,
        gid: from.name("gid")?,
    })
}

fn rollback_prepared<'a>(from: &mut Cursor<'a>) -> Result<RollbackPrepared<'a>, DecodeError> {
    from.u8("flags")?;
    Ok(RollbackPrepared {
        prepare_end_lsn: from.lsn("prepare end LSN")?,
        end_lsn: from.lsn("end LSN")?,
        prepared_at: from.time("prepare time")?,
        rolled_back_at: from.time("rollback time")?,
        xid: from.u32("transaction")?,
        gid: from.name("gid")?,
    })
}
