//! An event, and the batch in which events travel from the log to the projections.
//!
//! A batch owns one buffer; its events are offsets into it. Reading an event out of a batch borrows,
//! so that an event costs one copy out of the socket's buffer and no allocation.

use std::ops::Range;
use std::time::Duration;

use postgres_types::{FromSql, IsNull, ToSql, Type, private::BytesMut};
use uuid::Uuid;

use crate::lsn::Lsn;

/// A moment in microseconds since 1970-01-01 UTC, the resolution of `timestamptz`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// Microseconds between 1970-01-01 and 2000-01-01, where Postgres starts to count.
pub const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Timestamp {
    /// After every moment: SQL's `infinity`.
    pub const INFINITY: Self = Self(i64::MAX);

    /// Before every moment: SQL's `-infinity`.
    pub const NEG_INFINITY: Self = Self(i64::MIN);

    /// From Postgres' binary form: microseconds since 2000-01-01 UTC.
    pub fn from_postgres(micros: i64) -> Self {
        match micros {
            i64::MAX | i64::MIN => Self(micros),
            finite => Self(finite.saturating_add(POSTGRES_EPOCH_MICROS)),
        }
    }

    /// To Postgres' binary form: microseconds since 2000-01-01 UTC.
    pub fn to_postgres(self) -> i64 {
        match self {
            Self::INFINITY | Self::NEG_INFINITY => self.0,
            Self(finite) => finite.saturating_sub(POSTGRES_EPOCH_MICROS),
        }
    }
}

type SqlError = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Timestamp {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
        self.to_postgres().to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    postgres_types::to_sql_checked!();
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, SqlError> {
        i64::from_sql(ty, raw).map(Self::from_postgres)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// One row of the events table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The identity column: an order across runs, with holes, not the order of commits.
    pub position: i64,
    /// The tenant.
    pub project_id: Uuid,
    /// The run: the stream of the event.
    pub run_id: Uuid,
    /// The place within the run: 1, 2, 3 …
    pub version: i32,
    /// Unique within the run; makes appending repeatable.
    pub event_id: Uuid,
    /// The event's type, `type` in SQL and JSON.
    pub kind: &'a str,
    /// JSON text, an object as a rule.
    pub payload: &'a str,
    /// JSON text, an object as a rule.
    pub metadata: &'a str,
    /// When the event was recorded.
    pub recorded_at: Timestamp,
}

/// Events of committed transactions, in commit order.
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    records: Vec<Record>,
    transactions: Vec<Transaction>,
    lag: (Duration, bool),
}

/// A source transaction's part in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its events, as a range of the batch's.
    pub events: Range<usize>,
    /// Where its commit record starts: known from the first message on.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: what a checkpoint holds. `None` while more of it is to come in
    /// the next batch.
    pub end_lsn: Option<Lsn>,
    /// When it was committed, by the server's clock.
    pub committed_at: Timestamp,
}

impl Transaction {
    /// Whether a projection whose checkpoint is `checkpoint` has this transaction already. The
    /// checkpoint is the end of a commit record, so a transaction whose commit starts before it is
    /// covered by it.
    pub fn is_covered_by(&self, checkpoint: Lsn) -> bool {
        self.commit_lsn < checkpoint
    }
}

/// The fixed part of an event; its texts are ranges of the batch's buffer, one after the other.
#[derive(Debug)]
struct Record {
    position: i64,
    project_id: Uuid,
    run_id: Uuid,
    event_id: Uuid,
    recorded_at: Timestamp,
    version: i32,
    kind_start: usize,
    payload_start: usize,
    metadata_start: usize,
    end: usize,
}

impl Batch {
    /// An empty batch with room for a little more than this one holds: batches that follow one
    /// another are much alike, and one that grows doubles.
    pub fn another(&self) -> Self {
        let room = |len: usize| len + len / 4;
        Self {
            text: String::with_capacity(room(self.text.len())),
            records: Vec::with_capacity(room(self.records.len())),
            transactions: Vec::with_capacity(room(self.transactions.len())),
            lag: (Duration::ZERO, false),
        }
    }

    /// Notes how long after its commit the last of it was sent, by the server's clock, and whether
    /// more is waiting.
    pub fn note_lag(&mut self, lag: Duration, more: bool) {
        self.lag = (lag, more);
    }

    /// How far behind the newest transaction was when it was sent, and whether more was waiting.
    /// Decides nothing but how long to gather.
    pub fn lag(&self) -> (Duration, bool) {
        self.lag
    }

    /// Opens a transaction; the events pushed from now on are its own.
    pub fn begin(&mut self, commit_lsn: Lsn, committed_at: Timestamp) {
        let start = self.records.len();
        let events = start..start;
        self.transactions.push(Transaction { events, commit_lsn, end_lsn: None, committed_at });
    }

    /// Adds an event to the open transaction.
    pub fn push(&mut self, event: Event<'_>) {
        let kind_start = self.text.len();
        self.text.push_str(event.kind);
        let payload_start = self.text.len();
        self.text.push_str(event.payload);
        let metadata_start = self.text.len();
        self.text.push_str(event.metadata);
        self.records.push(Record {
            position: event.position,
            project_id: event.project_id,
            run_id: event.run_id,
            event_id: event.event_id,
            recorded_at: event.recorded_at,
            version: event.version,
            kind_start,
            payload_start,
            metadata_start,
            end: self.text.len(),
        });
        if let Some(open) = self.transactions.last_mut() {
            open.events.end = self.records.len();
        }
    }

    /// Closes the open transaction.
    pub fn commit(&mut self, end_lsn: Lsn) {
        if let Some(open) = self.transactions.last_mut() {
            open.end_lsn = Some(end_lsn);
        }
    }

    /// The transactions in commit order; only the last may be unfinished.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// The events of one of this batch's transactions.
    pub fn events_of(&self, transaction: &Transaction) -> impl Iterator<Item = Event<'_>> {
        let records = self.records.get(transaction.events.clone()).unwrap_or_default();
        records.iter().filter_map(|record| self.event(record))
    }

    /// All events in order.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.records.iter().filter_map(|record| self.event(record))
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds neither an event nor a transaction.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// About how much memory its events take, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.records.len() * size_of::<Record>()
    }

    /// Whether the last transaction is complete, so that a checkpoint may be taken here.
    pub fn is_complete(&self) -> bool {
        self.transactions.last().is_none_or(|last| last.end_lsn.is_some())
    }

    fn event(&self, record: &Record) -> Option<Event<'_>> {
        Some(Event {
            position: record.position,
            project_id: record.project_id,
            run_id: record.run_id,
            version: record.version,
            event_id: record.event_id,
            kind: self.text.get(record.kind_start..record.payload_start)?,
            payload: self.text.get(record.payload_start..record.metadata_start)?,
            metadata: self.text.get(record.metadata_start..record.end)?,
            recorded_at: record.recorded_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(version: i32, kind: &str) -> Event<'_> {
        Event {
            position: i64::from(version),
            project_id: Uuid::nil(),
            run_id: Uuid::nil(),
            version,
            event_id: Uuid::nil(),
            kind,
            payload: r#"{"a": 1}"#,
            metadata: "{}",
            recorded_at: Timestamp(0),
        }
    }

    #[test]
    fn the_infinities_stay_themselves_in_binary_form() {
        for end in [i64::MAX, i64::MIN, 0] {
            assert_eq!(Timestamp::from_postgres(end).to_postgres(), end);
        }
        assert_eq!(Timestamp::from_postgres(i64::MAX), Timestamp::INFINITY);
        assert_eq!(Timestamp::from_postgres(i64::MIN), Timestamp::NEG_INFINITY);
    }

    #[test]
    fn a_batch_gives_back_what_was_put_in_by_transaction() {
        let mut batch = Batch::default();
        batch.begin(Lsn(10), Timestamp(1));
        batch.push(event(1, "run_started"));
        batch.push(event(2, "log"));
        batch.commit(Lsn(20));
        batch.begin(Lsn(30), Timestamp(2));
        batch.push(event(3, ""));

        let [first, second] = batch.transactions() else { panic!("two transactions") };
        let kinds = |it| batch.events_of(it).map(|it| it.kind).collect::<Vec<_>>();
        assert_eq!(kinds(first), ["run_started", "log"]);
        assert_eq!(kinds(second), [""]);
        assert_eq!(batch.events().count(), 3);
        assert!(!batch.is_complete());
        assert!(first.is_covered_by(Lsn(20)) && !second.is_covered_by(Lsn(20)));
    }
}
