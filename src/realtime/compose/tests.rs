use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::definition::parse_broadcast;

const WHOLE: &str = r#"
kind  = "broadcast"
topic = "run:{run_id}"
event = "log"
[[on]]
event   = "*"
payload = { message = "payload.message" }
"#;

const SOME: &str = r#"
kind  = "broadcast"
topic = "project:{project_id}"
event = "run"
[[on]]
event   = "run_started"
payload = { run_id = "run_id" }
"#;

fn composer(definition: &str, window: u64, bytes: usize) -> Composer {
    let definition = parse_broadcast("told.toml".as_ref(), definition).unwrap();
    let (window, beacon) = (Duration::from_millis(window), Some(Duration::from_secs(5)));
    let limits = Limits { window, message_bytes: bytes, beacon };
    Composer::new(limits, vec![Arc::new(definition)], Lsn(0))
}

fn line(topic: &str, name: &str, cursor: i64) -> Line {
    Line { topic: topic.to_owned(), json: format!("{{\"{name}\":{cursor}}}"), cursor }
}

/// Topic, prev, head and the cursors of a message.
fn told(it: &Outgoing) -> (String, Option<i64>, i64, Vec<i64>) {
    let payload: Value = serde_json::from_str(&it.message.payload).unwrap();
    let cursor = |it: &Value| it["version"].as_i64().or_else(|| it["position"].as_i64()).unwrap();
    let lines: Vec<_> = payload["lines"].as_array().unwrap().iter().map(cursor).collect();
    assert_eq!(lines.len(), it.lines);
    let head = payload["head"].as_i64().unwrap();
    (it.message.topic.to_string(), payload["prev"].as_i64(), head, lines)
}

#[test]
fn the_first_line_goes_at_once_and_the_next_ones_gather() {
    let mut composer = composer(WHOLE, 200, 10_000);
    let start = Instant::now();
    let later = |millis| start + Duration::from_millis(millis);
    composer.begin(Lsn(10));
    composer.add(0, &line("run:a", "version", 1), start);
    composer.end();

    let first = composer.take(start, 10, 10_000, false);
    composer.begin(Lsn(20));
    for version in 2..=4 {
        composer.add(0, &line("run:a", "version", version), later(20));
    }
    composer.end();

    assert_eq!(told(&first[0]), ("run:a".to_owned(), Some(0), 1, vec![1]));
    assert!(composer.take(later(199), 10, 10_000, false).is_empty());
    assert_eq!(composer.next_due(), Some(later(200)));
    let second = composer.take(later(200), 10, 10_000, false);
    assert_eq!(told(&second[0]), ("run:a".to_owned(), Some(1), 4, vec![2, 3, 4]));
    // what came first holds what came after it
    composer.done(&second[0]);
    assert_eq!((composer.delivered(), composer.is_settled(), composer.lines()), (Lsn(0), false, 0));
    assert_eq!(composer.delivered_after(&first), Lsn(20));
    composer.done(&first[0]);
    assert_eq!((composer.delivered(), composer.is_settled()), (Lsn(20), true));
    assert_eq!((composer.lines(), composer.bytes()), (0, 0));
}

#[test]
fn a_message_that_is_full_does_not_wait() {
    let mut composer = composer(WHOLE, 200, FRAME + 40);
    let start = Instant::now();
    composer.begin(Lsn(10));
    composer.add(0, &line("run:a", "version", 1), start);
    let first = composer.take(start, 10, 10_000, false);
    for version in 2..=6 {
        composer.add(0, &line("run:a", "version", version), start);
    }

    let full = composer.take(start, 10, 10_000, false);

    assert_eq!(first.len(), 1);
    assert_eq!(full.iter().map(told).map(|it| it.3).collect::<Vec<_>>(), [vec![2, 3], vec![4, 5]]);
    let rest = composer.take(start, 10, 10_000, true);
    assert_eq!(told(&rest[0]), ("run:a".to_owned(), Some(5), 6, vec![6]));
}

#[test]
fn what_was_skipped_shows() {
    let now = Instant::now();
    let (mut whole, mut some) = (composer(WHOLE, 0, 10_000), composer(SOME, 0, 10_000));
    for (composer, topic, name) in [(&mut whole, "run:a", "version"), (&mut some, "p", "position")]
    {
        composer.begin(Lsn(10));
        composer.add(0, &line(topic, name, 7), now);
        let sent = composer.take(now, 1, 1, false);
        composer.add(0, &line(topic, name, 8), now);
        // one is on its way, and one waits
        assert_eq!(composer.skip(Lsn(50)), 2);
        assert_eq!(composer.delivered(), Lsn(50));
        composer.done(&sent[0]);
        composer.begin(Lsn(60));
        composer.add(0, &line(topic, name, 12), now);
    }

    assert_eq!(told(&whole.take(now, 1, 1, false)[0]).1, Some(11));
    assert_eq!(told(&some.take(now, 1, 1, false)[0]).1, None);
}

#[test]
fn a_position_below_the_last_one_is_not_named_as_the_one_before() {
    let now = Instant::now();
    let mut composer = composer(SOME, 0, 10_000);
    composer.begin(Lsn(10));
    let mut prevs = Vec::new();
    for position in [5, 9, 8, 10, 11] {
        composer.add(0, &line("p", "position", position), now);
        prevs.push(told(&composer.take(now, 1, 1, false)[0]).1);
    }

    assert_eq!(prevs, [None, Some(5), Some(9), None, Some(10)]);
}

#[test]
fn a_topic_that_falls_silent_has_one_beacon() {
    let mut composer = composer(WHOLE, 0, 10_000);
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let speak = |composer: &mut Composer, topic: &str, version, now| {
        composer.begin(Lsn(10));
        composer.add(0, &line(topic, "version", version), now);
        composer.take(now, 1, 1, false);
    };
    speak(&mut composer, "a", 1, at(0));
    speak(&mut composer, "b", 1, at(0));
    speak(&mut composer, "a", 2, at(3));

    assert_eq!(composer.next_beacon(), Some(at(5)));
    let first = composer.beacons(at(5), 10);
    assert_eq!(first.iter().map(told).collect::<Vec<_>>(), [("b".to_owned(), Some(1), 1, vec![])]);
    assert_eq!(composer.next_beacon(), Some(at(8)));
    // a line that waits goes before, and is followed by another
    composer.begin(Lsn(20));
    composer.add(0, &line("a", "version", 3), at(7));
    assert!(composer.beacons(at(8), 10).is_empty());
    let lines = composer.take(at(9), 1, 1, false);
    let second = composer.beacons(at(14), 10);
    assert_eq!(told(&second[0]), ("a".to_owned(), Some(3), 3, vec![]));
    assert_ne!(second[0].message.id, lines[0].message.id);
    assert_eq!((composer.next_beacon(), composer.beacons(at(99), 10).len()), (None, 0));

    // one that could not be sent in time is of no use, and what was skipped has none
    speak(&mut composer, "a", 4, at(100));
    assert!(composer.beacons(at(121), 10).is_empty());
    speak(&mut composer, "a", 5, at(200));
    composer.skip(Lsn(30));
    assert_eq!(composer.next_beacon(), None);
}

#[test]
fn beacons_have_a_bound() {
    let mut composer = composer(SOME, 0, 10_000);
    let start = Instant::now();
    for position in 0..30_000 {
        composer.begin(Lsn(10));
        composer.add(0, &line(&format!("project:{position}"), "position", position), start);
        composer.take(start, 1, 1, false);
    }

    let beacons = composer.beacons(start + Duration::from_secs(5), usize::MAX);

    // of those that are watched the oldest are forgotten
    assert!(beacons.len() <= 10_000, "{}", beacons.len());
    assert_eq!(composer.next_beacon(), None);
}

proptest! {
    /// Whatever is taken when: each topic's lines are there once and in order, and each message
    /// follows the one before.
    #[test]
    fn any_split_tells_the_same(
        topics in prop::collection::vec(0..4_usize, 1..60),
        looks in prop::collection::vec((0..3_usize, 0..3_u64, 1..4_usize), 0..60),
        window in 0..3_u64,
        bytes in 140..400_usize,
        is_whole: bool,
    ) {
        let (text, name) = if is_whole { (WHOLE, "version") } else { (SOME, "position") };
        let mut composer = composer(text, window, bytes);
        let mut now = Instant::now();
        let mut cursors = [0_i64; 4];
        let mut sent = Vec::new();
        let mut looks = looks.into_iter();
        for (at, topic) in topics.iter().enumerate() {
            // positions are of all topics
            cursors[*topic] = if is_whole { cursors[*topic] + 1 } else { at as i64 + 1 };
            composer.begin(Lsn(at as u64 + 1));
            composer.add(0, &line(&topic.to_string(), name, cursors[*topic]), now);
            composer.end();
            if let Some((takes, passed, most)) = looks.next() {
                now += Duration::from_millis(passed);
                for _ in 0..takes {
                    sent.extend(composer.take(now, most, 300, false));
                }
            }
        }
        sent.extend(composer.take(now, usize::MAX, usize::MAX, true));

        let mut seen: [Vec<i64>; 4] = Default::default();
        for it in &sent {
            let (topic, prev, head, lines) = told(it);
            let seen = &mut seen[topic.parse::<usize>().unwrap()];
            let before = seen.last().copied().or(is_whole.then_some(0));
            prop_assert_eq!(prev, before);
            prop_assert!(it.message.payload.len() <= bytes.max(FRAME + 20));
            seen.extend(lines);
            prop_assert_eq!(seen.last().copied(), Some(head));
        }
        let total: usize = seen.iter().map(Vec::len).sum();
        prop_assert_eq!(total, topics.len());
        prop_assert!(seen.iter().all(|it| it.is_sorted()));
        let mut ids: Vec<_> = sent.iter().map(|it| it.message.id).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), sent.len());
        for it in sent.iter().rev() {
            composer.done(it);
        }
        prop_assert_eq!(composer.delivered(), Lsn(topics.len() as u64));
        prop_assert_eq!((composer.lines(), composer.bytes()), (0, 0));
    }
}
