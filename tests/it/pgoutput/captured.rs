//! Frames captured from real servers by `data/capture.sh`.

use std::collections::BTreeMap;
use std::path::Path;

use projector::assembler::{AssembleError, Step, Tampering};
use projector::event::Timestamp;
use projector::lsn::Lsn;
use projector::pgoutput::{Column, Context, Message, decode};
use uuid::Uuid;

use super::assembler;

struct Capture {
    name: String,
    frames: Vec<Vec<u8>>,
}

fn captures() -> Vec<Capture> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data");
    let mut found = Vec::new();
    for version in std::fs::read_dir(data).unwrap().map(|it| it.unwrap().path()) {
        let files = std::fs::read_dir(&version).into_iter().flatten().map(|it| it.unwrap().path());
        for file in files.filter(|it| it.extension().is_some_and(|it| it == "hex")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let frames = text.lines().filter(|it| !it.starts_with('#')).map(unhex).collect();
            let part = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
            found.push(Capture { name: format!("{}/{}", part(&version), part(&file)), frames });
        }
    }
    assert!(!found.is_empty());
    found
}

fn unhex(line: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    (0..line.len()).step_by(2).map(pair).collect()
}

fn messages(capture: &Capture) -> Vec<Message<'_>> {
    let mut context = Context::default();
    let decoded = capture.frames.iter().map(|frame| {
        let message = decode(frame, context).unwrap_or_else(|it| panic!("{}: {it}", capture.name));
        context = context.after(&message);
        message
    });
    decoded.collect()
}

#[test]
fn every_frame_of_every_server_is_understood() {
    let mut seen = BTreeMap::<_, usize>::new();
    for capture in captures() {
        for message in messages(&capture) {
            *seen.entry(message.name()).or_default() += 1;
        }
    }
    let names: Vec<_> = seen.keys().copied().collect();
    assert_eq!(
        names,
        [
            "Begin",
            "Begin Prepare",
            "Commit",
            "Commit Prepared",
            "Delete",
            "Insert",
            "Message",
            "Origin",
            "Prepare",
            "Relation",
            "Rollback Prepared",
            "Stream Abort",
            "Stream Commit",
            "Stream Prepare",
            "Stream Start",
            "Stream Stop",
            "Truncate",
            "Type",
            "Update",
        ]
    );
}

#[test]
fn a_frame_cut_short_or_too_long_is_an_error() {
    for capture in captures() {
        let mut context = Context::default();
        for frame in &capture.frames {
            for end in 0..frame.len() {
                let is_refused = decode(&frame[..end], context).is_err();
                // An abort without its LSN is one of an earlier version.
                assert!(is_refused || (frame[0] == b'A' && end == 9), "{} {end}", capture.name);
            }
            assert!(decode(&[frame, &b"x"[..]].concat(), context).is_err(), "{}", capture.name);
            context = context.after(&decode(frame, context).unwrap());
        }
    }
}

#[test]
fn streamed_messages_name_their_transaction_and_others_do_not() {
    for capture in captures() {
        let mut open = None;
        for message in messages(&capture) {
            match message {
                Message::StreamStart(start) => open = Some(start.xid),
                Message::StreamStop => open = None,
                // A savepoint's rows carry the savepoint's own transaction.
                Message::Insert(insert) => assert_eq!(insert.xid.is_some(), open.is_some()),
                Message::Relation(relation) => assert_eq!(relation.xid.is_some(), open.is_some()),
                _ => {}
            }
        }
        assert_eq!(open, None);
    }
}

#[test]
fn an_update_tells_unchanged_toast_old_keys_and_old_rows_apart() {
    for capture in captures().iter().filter(|it| it.name.ends_with("/plain")) {
        let updates: Vec<_> = messages(capture)
            .into_iter()
            .filter_map(|it| if let Message::Update(update) = it { Some(update) } else { None })
            .collect();
        let [unchanged, new_key, full, _tampering] = updates[..] else { panic!("four updates") };

        assert_eq!(unchanged.old, None);
        assert_eq!(
            unchanged.new.columns().collect::<Vec<_>>(),
            [Column::Text(b"1"), Column::Text(b"busy"), Column::Unchanged]
        );
        let key = new_key.old.unwrap().columns().next();
        assert_eq!(key, Some(Column::Text(b"2")));
        assert_eq!(full.old.unwrap().len(), 3);
    }
}

#[test]
fn the_events_table_is_read_through_every_change_of_its_shape() {
    for capture in captures() {
        if !capture.name.ends_with("/plain") && !capture.name.ends_with("/binary") {
            continue;
        }
        let mut assembler = assembler();
        let (mut told, mut tampering) = (Vec::new(), Vec::new());
        let mut last_end = Lsn::ZERO;
        for message in messages(&capture) {
            match assembler.message(&message).unwrap() {
                Step::Message(it) => told.push((it.transactional, it.content)),
                Step::Tampering(it) => tampering.push(it),
                Step::Committed { end_lsn, .. } => last_end = end_lsn,
                Step::Event | Step::Nothing => {}
            }
        }
        let batch = assembler.take();

        let run = |digit: u128| Uuid::from_u128(digit << 124);
        let keys: Vec<_> = batch.events().map(|it| (it.run_id, it.version)).collect();
        let mut expected = vec![(run(1), 1), (run(0xf), 1)];
        expected.extend((2..=6).map(|version| (run(1), version)));
        expected.extend((1..=23).map(|version| (run(2), version)));
        expected.extend([(run(5), 1), (run(8), 1), (run(7), 1)]);
        assert_eq!(keys, expected, "{}", capture.name);

        let first = batch.events().next().unwrap();
        assert_eq!(first.kind, "run_started");
        assert_eq!(first.position, 1);
        assert_eq!(first.payload, r#"{"emoji": "🦀 שלום", "workflow": "hello"}"#);
        assert_eq!(first.metadata, "{}");
        assert_eq!(first.event_id, Uuid::from_u128(1));
        assert_eq!(first.recorded_at, Timestamp(1_795_465_740_123_456));
        let moved = batch.events().find(|it| it.run_id == run(1) && it.version == 5).unwrap();
        assert_eq!(moved.metadata, r#"{"moved": true}"#);

        assert_eq!(told, [(true, &b"hello"[..]), (false, b"now")]);
        assert_eq!(tampering, [Tampering::Update, Tampering::Delete, Tampering::Truncate]);
        assert!(batch.is_complete());
        assert_eq!(batch.transactions().last().unwrap().end_lsn, Some(last_end));
        assert_eq!(assembler.last_commit(), last_end);
    }
}

#[test]
fn streamed_and_prepared_transactions_are_refused() {
    for capture in captures() {
        let mut assembler = assembler();
        let outcome = messages(&capture).iter().try_for_each(|it| assembler.message(it).map(drop));
        let is_whole = capture.name.ends_with("/plain") || capture.name.ends_with("/binary");
        assert_eq!(outcome.is_ok(), is_whole, "{}", capture.name);
        assert!(is_whole || matches!(outcome, Err(AssembleError::NotAskedFor { .. })));
    }
}
