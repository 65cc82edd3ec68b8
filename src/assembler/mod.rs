//! From messages to batches of events.
//!
//! ```text
//! Begin ──▶ open ──Insert*──▶ open ──Commit──▶ closed       take() at any time: what there is so far
//! ```
//!
//! The assembler keeps the rows of the events table and drops all others; it remembers where the
//! last transaction ended even when none of its rows was ours, so that an idle position advances.
//! A batch may be taken in the midst of a transaction. The part that was taken then has no end LSN,
//! and the next batch opens the same transaction again when its next event or its end arrives.
//!
//! Transactions are expected whole, in commit order (protocol version 1). Streamed and prepared
//! transactions are refused: nobody asks for them, and to take rows of a transaction that may yet be
//! rolled back for committed ones would be worse than to stop.

mod event;
mod value;

pub use event::RowProblem;
pub use value::NotA;

use crate::event::Batch;
use crate::event::Timestamp;
use crate::ident::QualifiedName;
use crate::lsn::Lsn;
use crate::pgoutput::Begin;
use crate::pgoutput::ColumnNames;
use crate::pgoutput::Commit;
use crate::pgoutput::EventColumns;
use crate::pgoutput::Insert;
use crate::pgoutput::LogicalMessage;
use crate::pgoutput::Message;
use crate::pgoutput::MissingColumn;
use crate::pgoutput::Relations;

/// The prefix of `pg_logical_emit_message` that speaks to us.
pub const MESSAGE_PREFIX: &str = "projector";

/// Builds batches from the messages of one replication stream.
#[derive(Debug)]
pub struct Assembler {
    table: QualifiedName,
    names: ColumnNames,
    relations: Relations,
    batch: Batch,
    open: Option<Open>,
    last_commit: Lsn,
}

/// The transaction between its Begin and its Commit.
#[derive(Debug)]
struct Open {
    commit_lsn: Lsn,
    committed_at: Timestamp,
    /// Whether any batch has a part of it, and therefore must be told its end.
    has_events: bool,
    /// Whether the batch at hand has a part of it.
    in_batch: bool,
}

/// What a message meant to the reader of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing to act upon.
    Nothing,
    /// The batch has one event more.
    Event,
    /// A transaction is complete.
    Committed {
        /// Where its commit record ends.
        end_lsn: Lsn,
        /// Whether it has events, in this batch or in one taken before.
        has_events: bool,
    },
    /// Somebody speaks to us: `pg_logical_emit_message(…, 'projector', …)`.
    Message(LogicalMessage<'a>),
    /// The events table was changed other than by appending, and the publication was altered to
    /// tell of it. The batch does not reflect it.
    Tampering(Tampering),
}

/// How history was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "SQL's words")]
pub enum Tampering {
    Update,
    Delete,
    Truncate,
}

/// The stream does not make sense, or a row is not an event.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// The events table lacks a column.
    #[error(transparent)]
    MissingColumn(#[from] MissingColumn),
    /// A row of the events table cannot be read.
    #[error("{table}: {problem} (position {}, transaction {commit_lsn})", Known(*position))]
    Row {
        /// The events table.
        table: QualifiedName,
        /// The row's position, when that much could be read.
        position: Option<i64>,
        /// Where the transaction's commit record starts.
        commit_lsn: Lsn,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// A row of a table that the log has not described.
    #[error("a row of unknown relation {relation} in transaction {commit_lsn}")]
    UnknownRelation {
        /// The object id.
        relation: u32,
        /// Where the transaction's commit record starts.
        commit_lsn: Lsn,
    },
    /// A message where it cannot be: a row outside of a transaction, a second Begin.
    #[error("replication message {message} out of order, after the commit at {after}")]
    OutOfOrder {
        /// The message's name.
        message: &'static str,
        /// The last commit that was seen.
        after: Lsn,
    },
    /// A message of streaming or two-phase commit, which were not asked for.
    #[error("replication message {message} was not asked for, after the commit at {after}")]
    NotAskedFor {
        /// The message's name.
        message: &'static str,
        /// The last commit that was seen.
        after: Lsn,
    },
}

/// Prints a position that may not be known.
struct Known(Option<i64>);

impl std::fmt::Display for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(position) => write!(f, "{position}"),
            None => f.write_str("unknown"),
        }
    }
}

impl Assembler {
    /// Starts with a new stream: nothing is known of any table, no transaction is open.
    pub fn new(table: QualifiedName, names: ColumnNames) -> Self {
        Self {
            table,
            names,
            relations: Relations::default(),
            batch: Batch::default(),
            open: None,
            last_commit: Lsn::ZERO,
        }
    }

    /// Takes the next message of the stream.
    ///
    /// # Errors
    /// See [`AssembleError`]. The stream cannot go on after one.
    pub fn message<'a>(&mut self, message: &Message<'a>) -> Result<Step<'a>, AssembleError> {
        match message {
            Message::Insert(insert) => self.insert(insert),
            Message::Begin(begin) => self.begin(begin),
            Message::Commit(commit) => self.commit(commit),
            Message::Relation(relation) => {
                self.relations.learn(relation, &self.table, &self.names)?;
                Ok(Step::Nothing)
            }
            Message::Update(update) => self.tampering(Tampering::Update, [update.relation]),
            Message::Delete(delete) => self.tampering(Tampering::Delete, [delete.relation]),
            Message::Truncate(it) => self.tampering(Tampering::Truncate, it.relations()),
            Message::Logical(it) if it.prefix == MESSAGE_PREFIX => Ok(Step::Message(*it)),
            Message::Logical(_) | Message::Origin(_) | Message::Type(_) | Message::Unknown(_) => {
                Ok(Step::Nothing)
            }
            Message::StreamStart(_)
            | Message::StreamStop
            | Message::StreamCommit(_)
            | Message::StreamAbort(_)
            | Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::CommitPrepared(_)
            | Message::RollbackPrepared(_)
            | Message::StreamPrepare(_) => {
                Err(AssembleError::NotAskedFor { message: message.name(), after: self.last_commit })
            }
        }
    }

    /// The batch at hand; its last transaction may be unfinished.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Hands over the batch at hand and starts the next.
    pub fn take(&mut self) -> Batch {
        if let Some(open) = &mut self.open {
            open.in_batch = false;
        }
        let next = self.batch.another();
        std::mem::replace(&mut self.batch, next)
    }

    /// Where the commit record of the last complete transaction ends, whether or not it had events;
    /// [`Lsn::ZERO`] before the first.
    pub fn last_commit(&self) -> Lsn {
        self.last_commit
    }

    /// Whether a transaction is open: the stream stands between its Begin and its Commit.
    pub fn is_within_transaction(&self) -> bool {
        self.open.is_some()
    }

    fn begin(&mut self, begin: &Begin) -> Result<Step<'static>, AssembleError> {
        if self.open.is_some() {
            return Err(self.out_of_order("Begin"));
        }
        self.open = Some(Open {
            commit_lsn: begin.commit_lsn,
            committed_at: begin.committed_at,
            has_events: false,
            in_batch: false,
        });
        Ok(Step::Nothing)
    }

    fn commit(&mut self, commit: &Commit) -> Result<Step<'static>, AssembleError> {
        let Some(open) = self.open.take() else {
            return Err(self.out_of_order("Commit"));
        };
        if open.has_events {
            if !open.in_batch {
                self.batch.begin(open.commit_lsn, open.committed_at);
            }
            self.batch.commit(commit.end_lsn);
        }
        self.last_commit = commit.end_lsn;
        Ok(Step::Committed { end_lsn: commit.end_lsn, has_events: open.has_events })
    }

    fn insert(&mut self, insert: &Insert<'_>) -> Result<Step<'static>, AssembleError> {
        let Some(open) = &mut self.open else {
            return Err(self.out_of_order("Insert"));
        };
        let Some(columns) = known(&self.relations, insert.relation, open)? else {
            return Ok(Step::Nothing);
        };
        let event = event::read(&insert.new, columns).map_err(|unreadable| AssembleError::Row {
            table: self.table.clone(),
            position: unreadable.position,
            commit_lsn: open.commit_lsn,
            problem: unreadable.problem,
        })?;
        if !open.in_batch {
            self.batch.begin(open.commit_lsn, open.committed_at);
            open.in_batch = true;
            open.has_events = true;
        }
        self.batch.push(event);
        Ok(Step::Event)
    }

    fn tampering(
        &self,
        how: Tampering,
        relations: impl IntoIterator<Item = u32>,
    ) -> Result<Step<'static>, AssembleError> {
        let Some(open) = &self.open else {
            return Err(self.out_of_order("Update, Delete or Truncate"));
        };
        for relation in relations {
            if known(&self.relations, relation, open)?.is_some() {
                return Ok(Step::Tampering(how));
            }
        }
        Ok(Step::Nothing)
    }

    fn out_of_order(&self, message: &'static str) -> AssembleError {
        AssembleError::OutOfOrder { message, after: self.last_commit }
    }
}

/// The events table's columns, when `relation` is the events table.
fn known<'a>(
    relations: &'a Relations,
    relation: u32,
    open: &Open,
) -> Result<Option<&'a EventColumns>, AssembleError> {
    let commit_lsn = open.commit_lsn;
    relations.get(relation).ok_or(AssembleError::UnknownRelation { relation, commit_lsn })
}
