//! The messages.

use crate::event::Timestamp;
use crate::lsn::Lsn;

use super::cursor::Cursor;
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
    pub(super) relations: &'a [u8],
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
