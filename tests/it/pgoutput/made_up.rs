//! Messages written by a small encoder, and any bytes at all.

use projector::assembler::{AssembleError, Assembler, RowProblem, Step};
use projector::event::{Batch, Timestamp};
use projector::lsn::Lsn;
use projector::pgoutput::{Column, ColumnNames, Context, DecodeError, Field, Message, decode};
use proptest::prelude::*;
use uuid::Uuid;

use super::{assembler, table};

/// Writes messages as a server does.
#[derive(Default)]
struct Frame(Vec<u8>);

impl Frame {
    fn new(tag: u8) -> Self {
        Self(vec![tag])
    }

    fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    fn name(self, text: &str) -> Self {
        self.raw(text).raw([0])
    }

    fn count(self, length: usize) -> Self {
        self.raw(u16::try_from(length).unwrap().to_be_bytes())
    }

    fn value(self, value: &Value) -> Self {
        let counted = |frame: Self, bytes: &[u8]| {
            frame.raw(u32::try_from(bytes.len()).unwrap().to_be_bytes()).raw(bytes)
        };
        match value {
            Value::Null => self.raw("n"),
            Value::Unchanged => self.raw("u"),
            Value::Text(bytes) => counted(self.raw("t"), bytes),
            Value::Binary(bytes) => counted(self.raw("b"), bytes),
        }
    }

    fn row(self, values: &[Value]) -> Self {
        values.iter().fold(self.count(values.len()), Self::value)
    }
}

#[derive(Clone, Debug)]
enum Value {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

impl Value {
    fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string().into_bytes())
    }

    fn borrowed(&self) -> Column<'_> {
        match self {
            Self::Null => Column::Null,
            Self::Unchanged => Column::Unchanged,
            Self::Text(bytes) => Column::Text(bytes),
            Self::Binary(bytes) => Column::Binary(bytes),
        }
    }
}

fn begin(lsn: u64) -> Vec<u8> {
    Frame::new(b'B').raw(lsn.to_be_bytes()).raw([0; 8]).raw([0; 4]).0
}

fn commit(lsn: u64) -> Vec<u8> {
    let end = lsn + 8;
    Frame::new(b'C').raw([0]).raw(lsn.to_be_bytes()).raw(end.to_be_bytes()).raw([0; 8]).0
}

fn relation(id: u32, name: &str, columns: &[&str]) -> Vec<u8> {
    let frame = Frame::new(b'R').raw(id.to_be_bytes()).name("public").name(name).raw("d");
    let column = |frame: Frame, name: &&str| frame.raw([0]).name(name).raw([0; 8]);
    columns.iter().fold(frame.count(columns.len()), column).0
}

fn insert(id: u32, values: &[Value]) -> Vec<u8> {
    Frame::new(b'I').raw(id.to_be_bytes()).raw("N").row(values).0
}

const ENVELOPE: [&str; 9] = [
    "position",
    "project_id",
    "run_id",
    "version",
    "event_id",
    "type",
    "payload",
    "metadata",
    "recorded_at",
];

fn row(position: i64) -> Vec<Value> {
    vec![
        Value::text(position),
        Value::text(Uuid::nil()),
        Value::text(Uuid::nil()),
        Value::text(position),
        Value::text(Uuid::nil()),
        Value::text("log"),
        Value::text("{}"),
        Value::text("{}"),
        Value::text("2026-11-23 20:29:00+00"),
    ]
}

/// What an assembler makes of `frames`, the batch taken wherever `cuts` says.
fn assemble(frames: &[Vec<u8>], cuts: &[bool]) -> Result<Vec<Batch>, AssembleError> {
    let mut assembler = assembler();
    let mut batches = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        assembler.message(&decode(frame, Context::Whole).unwrap())?;
        if cuts.get(index).copied().unwrap_or(false) {
            batches.push(assembler.take());
        }
    }
    batches.push(assembler.take());
    Ok(batches)
}

/// Each transaction's commit, end and positions, its parts joined.
fn joined(batches: &[Batch]) -> Vec<(Lsn, Option<Lsn>, Vec<i64>)> {
    let mut joined: Vec<(Lsn, Option<Lsn>, Vec<i64>)> = Vec::new();
    for batch in batches {
        for transaction in batch.transactions() {
            let positions = batch.events_of(transaction).map(|it| it.position);
            match joined.last_mut() {
                Some((lsn, end @ None, known)) if *lsn == transaction.commit_lsn => {
                    *end = transaction.end_lsn;
                    known.extend(positions);
                }
                _ => {
                    joined.push((transaction.commit_lsn, transaction.end_lsn, positions.collect()));
                }
            }
        }
    }
    joined
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        any::<Vec<u8>>().prop_map(Value::Text),
        any::<Vec<u8>>().prop_map(Value::Binary),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(
        tag in prop::sample::select(b"BCORYIUDTMSEcAbPKrpz".as_slice()), rest: Vec<u8>, streamed: bool,
    ) {
        let context = if streamed { Context::Streamed } else { Context::Whole };
        let frame = [&[tag], rest.as_slice()].concat();
        for bytes in [frame.as_slice(), rest.as_slice()] {
            match decode(bytes, context) {
                Ok(Message::Insert(it)) => prop_assert_eq!(it.new.columns().count(), it.new.len()),
                Ok(Message::Relation(it)) => prop_assert!(it.columns().count() < bytes.len()),
                _ => {}
            }
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written(
        id: u32, xid: u32, old in prop::collection::vec(value(), 0..9), new in prop::collection::vec(value(), 0..9),
    ) {
        let frame = Frame::new(b'U').raw(xid.to_be_bytes()).raw(id.to_be_bytes());
        let frame = frame.raw("O").row(&old).raw("N").row(&new).0;

        let Ok(Message::Update(update)) = decode(&frame, Context::Streamed) else {
            return Err(TestCaseError::fail("no update"));
        };

        prop_assert_eq!((update.xid, update.relation), (Some(xid), id));
        prop_assert!(update.old.unwrap().columns().eq(old.iter().map(Value::borrowed)));
        prop_assert!(update.new.columns().eq(new.iter().map(Value::borrowed)));
    }

    #[test]
    fn a_relation_is_read_as_it_was_written(
        id: u32, name in "[^\0]{0,20}", columns in prop::collection::vec("[^\0]{0,20}", 0..20),
    ) {
        let names: Vec<_> = columns.iter().map(String::as_str).collect();
        let frame = relation(id, &name, &names);

        let Ok(Message::Relation(it)) = decode(&frame, Context::Whole) else {
            return Err(TestCaseError::fail("no relation"));
        };

        prop_assert_eq!((it.id, it.schema, it.name), (id, "public", name.as_str()));
        prop_assert!(it.columns().map(|it| it.name).eq(names));
    }

    #[test]
    fn any_cut_into_batches_gives_the_same_events(
        transactions in prop::collection::vec((0_usize..5, any::<bool>()), 0..12),
        cuts in prop::collection::vec(any::<bool>(), 80),
    ) {
        let mut frames = vec![relation(1, "events", &ENVELOPE), relation(2, "other", &["id"])];
        let (mut position, mut lsn, mut expected) = (0, 100, Vec::new());
        for (events, has_other) in transactions {
            lsn += 100;
            frames.push(begin(lsn));
            if has_other {
                frames.push(insert(2, &[Value::Null]));
            }
            let first = position + 1;
            for _ in 0..events {
                position += 1;
                frames.push(insert(1, &row(position)));
            }
            frames.push(commit(lsn));
            if 0 < events {
                expected.push((Lsn(lsn), Some(Lsn(lsn + 8)), (first..=position).collect::<Vec<_>>()));
            }
        }

        let batches = assemble(&frames, &cuts).unwrap();

        prop_assert_eq!(joined(&batches), expected);
    }
}

// what must not be

#[test]
fn an_abort_of_version_4_says_where_and_when() {
    let frame = Frame::new(b'A').raw(7_u32.to_be_bytes()).raw(8_u32.to_be_bytes());
    let of_version_2 = decode(&frame.0, Context::Whole).unwrap();
    let Message::StreamAbort(abort) = of_version_2 else { panic!("an abort") };
    assert_eq!((abort.xid, abort.subtransaction, abort.at), (7, 8, None));

    let frame = frame.raw(0x10_u64.to_be_bytes()).raw(0_i64.to_be_bytes());
    let of_version_4 = decode(&frame.0, Context::Whole).unwrap();
    let Message::StreamAbort(abort) = of_version_4 else { panic!("an abort") };
    assert_eq!(abort.at, Some((Lsn(0x10), Timestamp::from_postgres(0))));
}

#[test]
fn an_unknown_message_is_stepped_over() {
    let message = decode(b"zsomething new", Context::Whole).unwrap();
    assert_eq!(message, Message::Unknown(b'z'));
    assert_eq!(assembler().message(&message).unwrap(), Step::Nothing);
}

#[test]
fn an_error_says_what_was_read_and_where() {
    let error = decode(b"I\0\0\0\x01X", Context::Whole).unwrap_err();
    assert_eq!(error.to_string(), "replication message `I`: kind of row at byte 5 is 0x58");
    let error = decode(b"B\0\0", Context::Whole).unwrap_err();
    assert_eq!(
        error.to_string(),
        "replication message `B` ends within final LSN at byte 1: 8 bytes needed, 2 left"
    );
    assert_eq!(decode(b"", Context::Whole), Err(DecodeError::Empty));
    let not_utf8 = Frame::new(b'O').raw([0; 8]).raw([0xff, 0]).0;
    assert!(matches!(
        decode(&not_utf8, Context::Whole),
        Err(DecodeError::NotUtf8 { offset: 9, .. })
    ));
}

#[test]
fn a_missing_column_is_named_with_those_found() {
    let names: Vec<_> = ENVELOPE.into_iter().filter(|it| *it != "metadata").collect();

    let error = assemble(&[relation(1, "events", &names)], &[]).unwrap_err();

    assert_eq!(
        error.to_string(),
        r#""public"."events" has no column `metadata` in the publication; it has position, project_id, run_id, version, event_id, type, payload, recorded_at"#
    );
}

#[test]
fn columns_may_have_other_names() {
    let names = ColumnNames { kind: "name".to_owned(), ..ColumnNames::default() };
    let mut assembler = Assembler::new(table(), names);
    let columns = ENVELOPE.map(|it| if it == "type" { "name" } else { it });
    for frame in [relation(1, "events", &columns), begin(1), insert(1, &row(1)), commit(1)] {
        assembler.message(&decode(&frame, Context::Whole).unwrap()).unwrap();
    }
    assert_eq!(assembler.take().events().next().unwrap().kind, "log");
}

#[test]
fn a_row_that_is_no_event_is_an_error_with_its_place() {
    for (index, value, problem) in [
        (6, Value::Null, RowProblem::Null(Field::Payload)),
        (6, Value::Unchanged, RowProblem::NotSent(Field::Payload)),
    ] {
        let mut values = row(7);
        values[index] = value;
        let frames = [relation(1, "events", &ENVELOPE), begin(0x20), insert(1, &values)];

        let error = assemble(&frames, &[]).unwrap_err();

        assert!(
            matches!(&error, AssembleError::Row { position: Some(7), problem: it, .. } if *it == problem)
        );
        assert!(error.to_string().ends_with("(position 7, transaction 0/20)"), "{error}");
    }
    let mut values = row(7);
    values[8] = Value::text("yesterday");
    let frames = [relation(1, "events", &ENVELOPE), begin(1), insert(1, &values)];
    let error = assemble(&frames, &[]).unwrap_err();
    assert!(error.to_string().contains("not a timestamptz"), "{error}");
    let frames = [relation(1, "events", &ENVELOPE), begin(1), insert(1, &values[..8])];
    let error = assemble(&frames, &[]).unwrap_err();
    assert!(error.to_string().contains("8 values in a table of 9 columns"), "{error}");
}

#[test]
fn messages_out_of_order_are_refused() {
    for frames in [
        vec![commit(1)],
        vec![begin(1), begin(2)],
        vec![relation(1, "events", &ENVELOPE), insert(1, &row(1))],
    ] {
        assert!(matches!(assemble(&frames, &[]), Err(AssembleError::OutOfOrder { .. })));
    }
    let unknown = assemble(&[begin(1), insert(9, &row(1))], &[]);
    assert!(matches!(unknown, Err(AssembleError::UnknownRelation { relation: 9, .. })));
}

#[test]
fn transactions_without_our_events_only_move_the_last_commit() {
    let mut assembler = assembler();
    for frame in [relation(2, "other", &["id"]), begin(50), insert(2, &[Value::Null]), commit(50)] {
        assembler.message(&decode(&frame, Context::Whole).unwrap()).unwrap();
    }
    assert!(assembler.take().is_empty());
    assert_eq!(assembler.last_commit(), Lsn(58));
}
