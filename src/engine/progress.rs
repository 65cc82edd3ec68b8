//! How far everybody is: written by the reader and the lanes, read by the reader (what may be
//! acknowledged) and by the monitor (what to report).
//!
//! A lane's checkpoint is *committed* before it is *durable*: commits do not wait for the log to be
//! flushed. It is durable once the server has sent us log from beyond that commit, since the server
//! sends nothing that it has not flushed, or once it says so. Only durable checkpoints are acknowledged.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::event::Timestamp;
use crate::lsn::Lsn;

/// The positions of one session: from connecting to the slot until the connection ends.
#[derive(Debug)]
pub struct Progress {
    received: AtomicU64,
    flushed: AtomicU64,
    handed_over: AtomicU64,
    acknowledged: AtomicU64,
    lanes: Vec<LaneProgress>,
    changed: Notify,
    /// Up to where broadcasts were delivered or skipped; `MAX` where there are none.
    told: AtomicU64,
    /// When a lane wrote rows last, in milliseconds since `began`; 0 where none has.
    served_at: AtomicU64,
    began: Instant,
    /// The same as `changed`, for whoever broadcasts what is committed.
    tellable: Notify,
}

/// The positions of one lane.
#[derive(Debug)]
pub struct LaneProgress {
    /// The lane.
    pub name: String,
    members: Mutex<Vec<Arc<MemberProgress>>>,
    committed: AtomicU64,
    durable: AtomicU64,
    applied_at: AtomicI64,
    /// Commits that are not known to be flushed: the checkpoint, and the end of the log after it.
    unflushed: Mutex<VecDeque<(Lsn, Lsn)>>,
}

/// The positions of one projection.
#[derive(Debug)]
pub struct MemberProgress {
    /// The projection.
    pub name: String,
    checkpoint: AtomicU64,
    events: AtomicU64,
}

/// More commits than this on their way to the disk are not told apart: the older ones wait for the
/// newer.
const UNFLUSHED: usize = 256;

/// Who was served so short a time ago is being served.
const SERVING: Duration = Duration::from_secs(1);

/// So much log may be kept for broadcasts that were not delivered. It costs the server's disk, and
/// nothing is lost without it but what a crash then makes viewers fetch.
const HELD_FOR_BROADCASTS: u64 = 64 * 1024 * 1024;

impl Progress {
    /// A session that starts at `start`: everything before is durable in every lane.
    pub fn new(start: Lsn, lanes: Vec<LaneProgress>) -> Self {
        for lane in &lanes {
            lane.durable.store(start.0, Ordering::Relaxed);
        }
        Self {
            received: AtomicU64::new(start.0),
            flushed: AtomicU64::new(start.0),
            handed_over: AtomicU64::new(start.0),
            acknowledged: AtomicU64::new(start.0),
            lanes,
            changed: Notify::new(),
            told: AtomicU64::new(u64::MAX),
            served_at: AtomicU64::new(0),
            began: Instant::now(),
            tellable: Notify::new(),
        }
    }

    /// The lanes, in the order of the reader's queues.
    pub fn lanes(&self) -> &[LaneProgress] {
        &self.lanes
    }

    /// The server has sent log up to here, and thus flushed it.
    pub fn receive(&self, lsn: Lsn) {
        self.received.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// Up to where the log has been received.
    pub fn received(&self) -> Lsn {
        Lsn(self.received.load(Ordering::Relaxed))
    }

    /// The server says that it has flushed its log up to here. A reader that is far behind learns that
    /// no other way.
    pub fn flush(&self, lsn: Lsn) {
        self.flushed.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// A transaction that ends here went to the lanes.
    pub fn hand_over(&self, end_lsn: Lsn) {
        self.handed_over.fetch_max(end_lsn.0, Ordering::Relaxed);
    }

    /// Whether every lane has committed all it was given.
    pub fn is_idle(&self) -> bool {
        let handed_over = self.handed_over.load(Ordering::Relaxed);
        self.lanes.iter().all(|lane| handed_over <= lane.committed.load(Ordering::Relaxed))
    }

    /// The oldest of the lanes' durable checkpoints: what may be acknowledged.
    pub fn durable(&self) -> Lsn {
        let received = self.received();
        let flushed = received.max(Lsn(self.flushed.load(Ordering::Relaxed)));
        self.lanes.iter().map(|lane| lane.settle(flushed)).min().unwrap_or(received)
    }

    /// A lane has written rows.
    pub(super) fn serve(&self) {
        self.served_at.store(self.millis(), Ordering::Relaxed);
    }

    /// Whether a lane has written rows in the last second.
    pub(super) fn is_serving(&self) -> bool {
        let at = self.served_at.load(Ordering::Relaxed);
        at != 0 && Duration::from_millis(self.millis().saturating_sub(at)) < SERVING
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Up to where every lane has committed: readers see the rows.
    pub fn visible(&self) -> Lsn {
        let committed = self.lanes.iter().map(LaneProgress::committed).min();
        committed.unwrap_or_else(|| self.received())
    }

    /// Broadcasts were delivered, or skipped, up to here.
    pub fn tell(&self, lsn: Lsn) {
        self.told.store(lsn.0, Ordering::Relaxed);
    }

    /// What the slot may be told: what is durable, as far as broadcasts were delivered. A target that
    /// is away holds back no more than a little of the log, for it may stay away.
    pub fn acknowledgeable(&self) -> Lsn {
        let told = self.told.load(Ordering::Relaxed);
        let told = told.max(self.received().0.saturating_sub(HELD_FOR_BROADCASTS));
        self.durable().min(Lsn(told))
    }

    /// The slot was told that it may forget the log up to here.
    pub fn acknowledge(&self, lsn: Lsn) {
        self.acknowledged.store(lsn.0, Ordering::Relaxed);
    }

    /// What the slot was last told.
    pub fn acknowledged(&self) -> Lsn {
        Lsn(self.acknowledged.load(Ordering::Relaxed))
    }

    /// Resolves after a lane has committed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Resolves after a lane has committed, for whoever broadcasts.
    pub(super) async fn visibly_changed(&self) {
        self.tellable.notified().await;
    }

    /// Tells whoever waits that a lane has committed.
    pub fn notify(&self) {
        self.changed.notify_one();
        self.tellable.notify_one();
    }
}

impl LaneProgress {
    /// A lane without projections yet, which has nothing to do up to `committed`.
    pub fn new(name: String, committed: Lsn) -> Self {
        Self {
            name,
            members: Mutex::default(),
            committed: AtomicU64::new(committed.0),
            durable: AtomicU64::new(committed.0),
            applied_at: AtomicI64::new(0),
            unflushed: Mutex::default(),
        }
    }

    /// Its projections at the moment.
    pub fn members(&self) -> Vec<Arc<MemberProgress>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A projection is in the lane from now on, instead of the one of its name before it.
    pub(super) fn join(&self, member: Arc<MemberProgress>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|it| it.name != member.name);
        members.push(member);
    }

    /// A projection is not in the lane any more.
    pub(super) fn leave(&self, projection: &str) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|it| it.name != projection);
    }

    /// The lane has committed up to `covered`; the log ends at `wal_lsn` after it.
    pub fn commit(&self, covered: Lsn, wal_lsn: Lsn, committed_at: Option<Timestamp>) {
        self.committed.fetch_max(covered.0, Ordering::Relaxed);
        if let Some(at) = committed_at {
            self.applied_at.store(at.0, Ordering::Relaxed);
        }
        let mut unflushed = self.unflushed();
        if UNFLUSHED <= unflushed.len() {
            unflushed.pop_back();
        }
        unflushed.push_back((covered, wal_lsn));
    }

    /// Up to where the lane's rows are committed.
    pub fn committed(&self) -> Lsn {
        Lsn(self.committed.load(Ordering::Relaxed))
    }

    /// When the last transaction that the lane applied was committed at its source.
    pub fn applied_at(&self) -> Option<Timestamp> {
        let micros = self.applied_at.load(Ordering::Relaxed);
        (micros != 0).then_some(Timestamp(micros))
    }

    /// Up to where the lane's rows survive a crash of the server, given that it has flushed its log
    /// up to `flushed`.
    fn settle(&self, flushed: Lsn) -> Lsn {
        let mut unflushed = self.unflushed();
        while let Some(&(covered, wal_lsn)) = unflushed.front() {
            if flushed < wal_lsn {
                break;
            }
            self.durable.fetch_max(covered.0, Ordering::Relaxed);
            unflushed.pop_front();
        }
        Lsn(self.durable.load(Ordering::Relaxed))
    }

    fn unflushed(&self) -> MutexGuard<'_, VecDeque<(Lsn, Lsn)>> {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemberProgress {
    /// A projection that stands at `checkpoint` after `events` events.
    pub fn new(name: String, checkpoint: Lsn, events: u64) -> Self {
        Self { name, checkpoint: AtomicU64::new(checkpoint.0), events: AtomicU64::new(events) }
    }

    /// Its rows are committed up to `checkpoint`; `events` more have been applied.
    pub fn advance(&self, checkpoint: Lsn, events: u64) {
        self.checkpoint.store(checkpoint.0, Ordering::Relaxed);
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// Up to where its rows are committed.
    pub fn checkpoint(&self) -> Lsn {
        Lsn(self.checkpoint.load(Ordering::Relaxed))
    }

    /// How many events it has applied over its life.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(start: u64) -> Progress {
        let lane = |name: &str| LaneProgress::new(name.to_owned(), Lsn(start));
        Progress::new(Lsn(start), vec![lane("default"), lane("slow")])
    }

    fn lane(progress: &Progress, at: usize) -> &LaneProgress {
        progress.lanes().get(at).expect("two lanes")
    }

    #[test]
    fn a_commit_is_acknowledged_only_after_the_log_was_flushed_past_it() {
        let progress = session(10);
        for at in 0..2 {
            lane(&progress, at).commit(Lsn(20), Lsn(35), None);
        }
        progress.receive(Lsn(34));
        assert_eq!(progress.durable(), Lsn(10));

        progress.receive(Lsn(35));
        assert_eq!(progress.durable(), Lsn(20));
    }

    #[test]
    fn broadcasts_hold_back_a_little_of_the_log_and_no_more() {
        let progress = session(10);
        let far = Lsn(10 + 2 * HELD_FOR_BROADCASTS);
        for at in 0..2 {
            lane(&progress, at).commit(Lsn(20), Lsn(35), None);
        }
        progress.receive(Lsn(40));
        assert_eq!(progress.acknowledgeable(), Lsn(20));

        progress.tell(Lsn(15));
        assert_eq!((progress.acknowledgeable(), progress.durable()), (Lsn(15), Lsn(20)));

        for at in 0..2 {
            lane(&progress, at).commit(far, far, None);
        }
        progress.receive(far);
        assert_eq!(progress.acknowledgeable(), Lsn(10 + HELD_FOR_BROADCASTS));
    }

    #[test]
    fn the_slowest_lane_decides_what_is_acknowledged() {
        let progress = session(10);
        progress.hand_over(Lsn(30));
        progress.receive(Lsn(100));

        lane(&progress, 0).commit(Lsn(30), Lsn(40), None);
        assert_eq!(progress.durable(), Lsn(10));
        assert!(!progress.is_idle());

        lane(&progress, 1).commit(Lsn(30), Lsn(50), None);
        assert_eq!(progress.durable(), Lsn(30));
        assert!(progress.is_idle());
    }

    #[test]
    fn many_commits_before_a_flush_are_not_forgotten() {
        let progress = session(0);
        for at in 0..2 {
            for number in 1..=1000 {
                lane(&progress, at).commit(Lsn(number), Lsn(number), None);
            }
        }
        progress.receive(Lsn(2000));

        assert_eq!(progress.durable(), Lsn(1000));
    }
}
