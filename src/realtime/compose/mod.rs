//! Lines to messages: many lines of a topic in one, each message with the one before it.
//!
//! A topic that has been silent sends its first line at once. What comes within the window after that
//! gathers for the next message, up to a size, because a Realtime counts each message for each viewer.
//!
//! ```json
//! {"prev": 6, "head": 9, "lines": [{"version": 7, …}, {"version": 8, …}, {"version": 9, …}]}
//! ```
//!
//! `prev` is the cursor of the line before on this topic and event; null when that is not known. Whoever
//! has seen it has all lines up to `head` now; whoever has not reads the table. A message without lines is
//! a beacon: nothing was said since `head`, which is `prev` as well.
//!
//! * this file: lines and messages · `beacons`: topics that fall silent

mod beacons;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use uuid::Uuid;

use self::beacons::Beacons;
use crate::definition::{Broadcast, Line};
use crate::lsn::Lsn;
use crate::realtime::Message;
use crate::realtime::recent::Recent;

/// What a payload has around its lines, at most: names, brackets and two numbers.
const FRAME: usize = 96;

/// What a waiting line costs besides its text.
const LINE_COST: usize = 48;

/// A beacon that could not be sent for so many times its silence is of no use any more: viewers have
/// looked by themselves.
const STALE: u32 = 4;

/// How messages are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long lines gather after a message.
    pub window: Duration,
    /// Bytes of a payload.
    pub message_bytes: usize,
    /// How long a topic is silent until its viewers are told where it ends; `None`: they are not.
    pub beacon: Option<Duration>,
}

impl Limits {
    /// The most bytes of a line.
    pub fn line_bytes(&self) -> usize {
        self.message_bytes.saturating_sub(FRAME)
    }
}

/// Lines that wait to be sent, and what is known of their topics.
#[derive(Debug)]
pub struct Composer {
    limits: Limits,
    tellers: Vec<Teller>,
    /// Topics with lines, by when their next message is due: one ticket each, and old ones.
    due: BinaryHeap<Reverse<Due>>,
    tickets: u64,
    /// What was taken in and is not wholly delivered, from the oldest.
    parts: VecDeque<Part>,
    /// The number of the first of them.
    first_part: u64,
    delivered: Lsn,
    lines: usize,
    /// Lines on their way.
    flying: usize,
    bytes: usize,
}

/// When, by which ticket, of which definition, on which topic.
type Due = (Instant, u64, usize, Arc<str>);

/// A definition and its topics.
#[derive(Debug)]
struct Teller {
    definition: Arc<Broadcast>,
    event: Arc<str>,
    waiting: HashMap<Arc<str>, Topic>,
    recent: Recent,
    beacons: Beacons,
}

/// A topic with lines.
#[derive(Debug, Default)]
struct Topic {
    segments: VecDeque<Segment>,
    /// The ticket that counts.
    ticket: u64,
}

/// A message in the making.
#[derive(Debug)]
struct Segment {
    lines: String,
    count: usize,
    prev: Option<i64>,
    first: i64,
    head: i64,
    /// Which parts of the log its lines are of, and how many of each.
    of: SmallVec<[(u64, usize); 2]>,
}

/// A stretch of the log, and how many of its lines are not delivered.
#[derive(Debug)]
struct Part {
    end: Lsn,
    open: usize,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// How many lines are in it.
    pub lines: usize,
    of: SmallVec<[(u64, usize); 2]>,
}

impl Composer {
    /// One that takes what follows `delivered`.
    pub fn new(limits: Limits, definitions: Vec<Arc<Broadcast>>, delivered: Lsn) -> Self {
        Self {
            limits,
            tellers: definitions.into_iter().map(Teller::new).collect(),
            due: BinaryHeap::new(),
            tickets: 0,
            parts: VecDeque::new(),
            first_part: 0,
            delivered,
            lines: 0,
            flying: 0,
            bytes: 0,
        }
    }

    /// The definitions.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Broadcast>> {
        self.tellers.iter().map(|it| &it.definition)
    }

    /// Other definitions from now on; those that mean the same keep what they know of their topics.
    /// Nothing may be waiting.
    pub fn redefine(&mut self, definitions: Vec<Arc<Broadcast>>) {
        let mut before = std::mem::take(&mut self.tellers);
        self.tellers = definitions
            .into_iter()
            .map(|now| match before.iter().position(|it| it.definition.hash == now.hash) {
                Some(at) => Teller { definition: now, ..before.swap_remove(at) },
                None => Teller::new(now),
            })
            .collect();
        self.due.clear();
    }

    /// Lines that wait.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Lines that wait or are on their way.
    pub fn undelivered(&self) -> usize {
        self.lines + self.flying
    }

    /// About how much memory those take that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits, and nothing is on its way.
    pub fn is_settled(&self) -> bool {
        self.parts.is_empty()
    }

    /// Up to where everything was delivered, or skipped.
    pub fn delivered(&self) -> Lsn {
        self.delivered
    }

    /// The next lines are of a stretch of the log that ends at `end`.
    pub fn begin(&mut self, end: Lsn) {
        self.parts.push_back(Part { end, open: 0 });
    }

    /// Everything of that stretch was added.
    pub fn end(&mut self) {
        self.settle();
    }

    /// Takes a line of the `number`-th definition.
    pub fn add(&mut self, number: usize, line: &Line, now: Instant) {
        let part = self.first_part + (self.parts.len() as u64).saturating_sub(1);
        let room = self.limits.message_bytes.saturating_sub(FRAME);
        let Some(teller) = self.tellers.get_mut(number) else { return };
        let Some(open) = self.parts.back_mut() else { return };
        let known = teller.recent.get(&line.topic);
        let prev = match teller.definition.is_whole {
            true => Some(line.cursor - 1),
            false => known.and_then(|it| it.cursor()),
        };
        open.open += 1;
        self.lines += 1;
        self.bytes += line.json.len() + LINE_COST;
        let topic = match teller.waiting.get_key_value(line.topic.as_str()) {
            Some((topic, _)) => Arc::clone(topic),
            None => Arc::from(line.topic.as_str()),
        };
        teller.recent.saw(&topic, line.cursor);
        let waiting = teller.waiting.entry(Arc::clone(&topic)).or_default();
        if let Some(last) = waiting.segments.back_mut()
            && prev == Some(last.head)
            && last.lines.len() + 1 + line.json.len() <= room
        {
            last.add(line, part);
            return;
        }
        waiting.segments.push_back(Segment::new(line, prev, part));
        let due = match waiting.segments.len() {
            1 => {
                let sent_at = known.and_then(|it| it.sent_at);
                sent_at.map_or(now, |it| (it + self.limits.window).max(now))
            }
            // the first will not grow any more: nothing is gained by waiting
            2 => now,
            _ => return,
        };
        self.tickets += 1;
        waiting.ticket = self.tickets;
        self.due.push(Reverse((due, self.tickets, number, topic)));
    }

    /// When the next message is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Messages that are due at `now`, in the order in which they are to be sent: at most `most`, and
    /// as many as fit into `bytes`, but one at least. With `all`, those that are not due yet as well.
    pub fn take(&mut self, now: Instant, most: usize, bytes: usize, all: bool) -> Vec<Outgoing> {
        let mut taken: Vec<Outgoing> = Vec::new();
        let mut size = 0;
        while taken.len() < most && (size < bytes || taken.is_empty()) {
            let Some(Reverse((at, ..))) = self.due.peek() else { break };
            if now < *at && !all {
                break;
            }
            let Some(Reverse((_, ticket, number, topic))) = self.due.pop() else { break };
            let Some(teller) = self.tellers.get_mut(number) else { continue };
            let Some(waiting) = teller.waiting.get_mut(&topic) else { continue };
            if waiting.ticket != ticket {
                continue;
            }
            let Some(segment) = waiting.segments.pop_front() else { continue };
            match waiting.segments.len() {
                0 => drop(teller.waiting.remove(&topic)),
                left => {
                    let due = if 1 < left { now } else { now + self.limits.window };
                    self.tickets += 1;
                    waiting.ticket = self.tickets;
                    self.due.push(Reverse((due, self.tickets, number, Arc::clone(&topic))));
                }
            }
            teller.sent(&topic, now, self.limits.beacon);
            self.lines -= segment.count;
            self.flying += segment.count;
            self.bytes -= segment.cost();
            size += segment.lines.len() + FRAME;
            taken.push(teller.outgoing(topic, segment));
        }
        taken
    }

    /// When to look next whether a topic has fallen silent.
    pub fn next_beacon(&self) -> Option<Instant> {
        self.tellers.iter().filter_map(|it| it.beacons.next()).min()
    }

    /// Beacons of topics that have been silent for long enough, at most `most`.
    pub fn beacons(&mut self, now: Instant, most: usize) -> Vec<Outgoing> {
        let mut taken = Vec::new();
        let Some(silence) = self.limits.beacon else { return taken };
        for teller in &mut self.tellers {
            while taken.len() < most
                && let Some(topic) = teller.beacons.pop(now)
            {
                taken.extend(teller.beacon(topic, now, silence));
            }
        }
        taken
    }

    /// A message was delivered, or given up.
    pub fn done(&mut self, outgoing: &Outgoing) {
        self.flying = self.flying.saturating_sub(outgoing.lines);
        for (part, count) in &outgoing.of {
            let place = part.checked_sub(self.first_part).and_then(|it| usize::try_from(it).ok());
            if let Some(part) = place.and_then(|it| self.parts.get_mut(it)) {
                part.open = part.open.saturating_sub(*count);
            }
        }
        self.settle();
    }

    /// Up to where everything is delivered once `outgoing` is.
    pub fn delivered_after(&self, outgoing: &[Outgoing]) -> Lsn {
        let mut lsn = self.delivered;
        for (number, part) in (self.first_part..).zip(&self.parts) {
            let of = outgoing.iter().flat_map(|it| &it.of).filter(|(it, _)| *it == number);
            if part.open != of.map(|(_, count)| count).sum::<usize>() {
                break;
            }
            lsn = lsn.max(part.end);
        }
        lsn
    }

    /// Gives up all lines that wait or are on their way, and everything up to `through`. What comes
    /// next on a topic does not know what came before. Returns how many lines that is.
    pub fn skip(&mut self, through: Lsn) -> usize {
        for teller in &mut self.tellers {
            teller.waiting.clear();
            teller.forget();
        }
        self.due.clear();
        let end = self.parts.back().map_or(through, |it| it.end.max(through));
        self.first_part += self.parts.len() as u64;
        self.parts.clear();
        self.delivered = self.delivered.max(end);
        self.bytes = 0;
        std::mem::take(&mut self.lines) + std::mem::take(&mut self.flying)
    }

    /// Nothing is known any more of what the `number`-th definition told before on any topic, except
    /// where versions tell.
    pub fn forget(&mut self, number: usize) {
        if let Some(teller) = self.tellers.get_mut(number) {
            teller.forget();
        }
    }

    fn settle(&mut self) {
        while let Some(first) = self.parts.front().filter(|it| it.open == 0) {
            self.delivered = self.delivered.max(first.end);
            self.parts.pop_front();
            self.first_part += 1;
        }
    }
}

impl Teller {
    fn new(definition: Arc<Broadcast>) -> Self {
        let event = Arc::from(definition.event.as_str());
        Self {
            definition,
            event,
            waiting: HashMap::new(),
            recent: Recent::default(),
            beacons: Beacons::default(),
        }
    }

    fn forget(&mut self) {
        self.recent.forget();
        self.beacons.clear();
    }

    /// A message goes to a topic: if it is the last for some time, a beacon follows.
    fn sent(&mut self, topic: &Arc<str>, now: Instant, silence: Option<Duration>) {
        let Some(seen) = self.recent.get_mut(topic) else { return };
        seen.sent_at = Some(now);
        if let Some(silence) = silence.filter(|_| !seen.is_watched) {
            seen.is_watched = self.beacons.watch(topic, now + silence);
        }
    }

    /// The beacon of a topic, if it is silent. One that is not is looked at again when it may be.
    fn beacon(&mut self, topic: Arc<str>, now: Instant, silence: Duration) -> Option<Outgoing> {
        let seen = self.recent.get_mut(&topic).filter(|it| it.is_watched)?;
        seen.is_watched = false;
        // with its next message it is watched again
        let sent_at = seen.sent_at.filter(|_| !self.waiting.contains_key(&topic))?;
        if now < sent_at + silence {
            seen.is_watched = self.beacons.watch(&topic, sent_at + silence);
            return None;
        }
        if sent_at + silence * STALE < now {
            return None;
        }
        let (prev, head) = (seen.cursor(), seen.head);
        // no lines have this id: it would be those after the head, up to it
        let id = id(&topic, &self.event, head.saturating_add(1), head);
        let of = SmallVec::new();
        Some(Outgoing { message: self.message(topic, id, prev, head, ""), lines: 0, of })
    }

    fn outgoing(&self, topic: Arc<str>, segment: Segment) -> Outgoing {
        let Segment { lines, count, prev, first, head, of } = segment;
        let id = id(&topic, &self.event, first, head);
        let message = self.message(topic, id, prev, head, &lines);
        Outgoing { message, lines: count, of }
    }

    fn message(
        &self,
        topic: Arc<str>,
        id: Uuid,
        prev: Option<i64>,
        head: i64,
        lines: &str,
    ) -> Message {
        let prev = prev.map_or_else(|| "null".to_owned(), |it| it.to_string());
        let payload = format!("{{\"prev\":{prev},\"head\":{head},\"lines\":[{lines}]}}");
        Message {
            topic,
            event: Arc::clone(&self.event),
            private: self.definition.private,
            id,
            payload: payload.into(),
        }
    }
}

impl Segment {
    fn new(line: &Line, prev: Option<i64>, part: u64) -> Self {
        let mut of = SmallVec::new();
        of.push((part, 1));
        let (first, head) = (line.cursor, line.cursor);
        Self { lines: line.json.clone(), count: 1, prev, first, head, of }
    }

    fn add(&mut self, line: &Line, part: u64) {
        self.lines.push(',');
        self.lines.push_str(&line.json);
        self.count += 1;
        self.head = line.cursor;
        match self.of.last_mut() {
            Some((last, count)) if *last == part => *count += 1,
            _ => self.of.push((part, 1)),
        }
    }

    /// What its lines were counted as.
    fn cost(&self) -> usize {
        let commas = self.count.saturating_sub(1);
        self.lines.len() - commas + self.count * LINE_COST
    }
}

/// The same for the same lines of a topic, however often they are sent: a UUID of version 8.
fn id(topic: &str, event: &str, first: i64, head: i64) -> Uuid {
    let mut digest = Sha256::new();
    for part in [topic, event] {
        digest.update(part.len().to_le_bytes());
        digest.update(part.as_bytes());
    }
    digest.update(first.to_le_bytes());
    digest.update(head.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest.finalize()).for_each(|(to, from)| *to = from);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests;
