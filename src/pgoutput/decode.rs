//! How each message is read.

use super::cursor::{Cursor, DecodeError};
use super::message::{
    Begin, Commit, CommitPrepared, Context, Delete, Insert, LogicalMessage, Message, Origin,
    Prepare, RollbackPrepared, StreamAbort, StreamCommit, StreamStart, Truncate, Type, Update,
};
use super::relation::Relation;
use super::tuple::Tuple;

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
