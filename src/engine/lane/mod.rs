//! A lane: the projections that commit together, in one task, over one connection.
//!
//! ```text
//! queue ──▶ fold (while the last transaction is being written) ──▶ write ──▶ committed
//! ```
//!
//! A lane takes whatever waits. When it is quiet that is one event, written at once; when it is busy
//! batches gather in the fold for as long as the transaction before them takes, so that the busier
//! it is the more events share a row change and a commit.
//!
//! A source transaction too large to be held is written in parts, inside one target transaction that
//! ends with it. A projection that a rule fails on leaves the lane; what it had folded is dropped,
//! and its checkpoint stays where it is.
//!
//! Projections come and go while the lane is held (`hold`). One without any takes what it is given
//! all the same, so that its position moves on.

mod care;
mod fold;
mod hold;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use uuid::Uuid;

pub use self::care::Care;
pub use self::hold::{Change, Command, Held, Joining, LaneHandle};
use self::write::{Done, QUIET, Writing, finish};
use crate::apply::error::WriteError;
use crate::apply::writer::Writer;
use crate::definition::Order;
use crate::engine::progress::{LaneProgress, MemberProgress, Progress};
use crate::event::Batch;
use crate::event::Timestamp;
use crate::fold::Fold;
use crate::fold::FoldError;
use crate::history::heads::Heads;
use crate::history::refold::{History, Refold};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::redact::Redactor;

/// What the reader gives to a lane.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Events of committed transactions.
    Batch(Arc<Batch>),
    /// Nothing up to here: the checkpoint may advance.
    Idle(Lsn),
}

/// A projection left its lane.
#[derive(Debug)]
pub struct Departure {
    /// The projection.
    pub projection: String,
    /// Why.
    pub error: FoldError,
}

/// Why a lane ended before its queue did.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The rows could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A projection left in the midst of a transaction that is written in parts: its rows must go
    /// with the transaction.
    #[error("projection `{0}` failed inside a large transaction")]
    Torn(String),
    /// The database refused rows; the events are to be written one by one, to find the one to blame.
    #[error("looking for the event to blame")]
    Careful(#[source] WriteError),
    /// A run that was folded again has a row that is parked now, which the folds do not know of.
    #[error("a row was parked while its run was folded again")]
    Parked,
}

/// What all lanes of a session share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where positions are kept.
    pub progress: Arc<Progress>,
    /// Counted per batch.
    pub metrics: Arc<Metrics>,
    /// What `redact()` hides.
    pub redactor: Arc<Redactor>,
    /// Who is told of failures.
    pub departures: mpsc::Sender<Departure>,
    /// Bytes of pending rows at which a lane stops to take more.
    pub pending_limit: usize,
    /// Where runs are folded again from.
    pub history: Arc<History>,
    /// Who is written with care.
    pub care: Arc<Care>,
    /// Counts commits that brought rows, for whoever shows them.
    pub commits: watch::Sender<u64>,
    /// How many rows of a projection may be parked.
    pub parked_limit: usize,
}

/// A lane at work.
#[derive(Debug)]
pub struct Lane {
    number: usize,
    shared: Shared,
    members: Vec<Member>,
    queue: mpsc::Receiver<Delivery>,
    commands: mpsc::Receiver<Command>,
    /// Who waits for the lane to be held.
    asked: Option<oneshot::Sender<Held>>,
    pending: Pending,
    heads: Heads,
    /// Where the commit record of the last transaction starts that was taken.
    last_commit: Lsn,
    /// Bytes of the rows that are being written.
    in_flight: Arc<AtomicUsize>,
    /// Whether runs are folded again in what is being written.
    is_refolding: bool,
}

/// A projection in its lane.
#[derive(Debug)]
struct Member {
    fold: Fold,
    progress: Arc<MemberProgress>,
    /// Up to where its rows are committed, or will be when what is being written is.
    checkpoint: Lsn,
    /// Events folded since.
    events: u64,
    failed: bool,
    /// Whether its rows depend on the order of a run's versions.
    follows_versions: bool,
    /// Whether each event has rows of its own, so that waiting gathers nothing.
    grows: bool,
    /// Transactions that commit before this are written event by event.
    careful_upto: Lsn,
    /// Events of the batch at hand that are to be written so: which, and where they end.
    careful: Vec<(usize, Lsn)>,
}

/// What has been taken from the queue and is not being written.
#[derive(Debug, Default)]
struct Pending {
    /// The end of the last complete transaction.
    covered: Option<Lsn>,
    committed_at: Option<Timestamp>,
    /// Whether a transaction has begun and not ended.
    is_open: bool,
    /// Whether a part of it has been written.
    is_partly_written: bool,
    /// When the first of it was taken.
    since: Option<Instant>,
    /// When the last of it was taken, and how far behind that was.
    taken: Option<Instant>,
    lag: Duration,
    /// Whether more was waiting.
    more: bool,
    /// Runs with events that came late.
    late: BTreeMap<Uuid, Refold>,
}

/// How often a lane that has no room looks whether there is some.
const FULL: Duration = Duration::from_millis(5);

/// Runs whose order is watched, at least: about 4 MiB.
const WATCHED_RUNS: usize = 50_000;

impl Lane {
    /// The `number`-th lane, without projections yet.
    pub fn new(
        number: usize,
        queue: mpsc::Receiver<Delivery>,
        commands: mpsc::Receiver<Command>,
        shared: Shared,
    ) -> Self {
        Self {
            number,
            shared,
            members: Vec::new(),
            queue,
            commands,
            asked: None,
            pending: Pending::default(),
            heads: Heads::new(WATCHED_RUNS),
            last_commit: Lsn::ZERO,
            in_flight: Arc::default(),
            is_refolding: false,
        }
    }

    /// Takes a projection in, or gives one another definition or table. `writer` is the one that
    /// the lane runs with; the order of its targets is that of the members.
    ///
    /// # Errors
    /// When the table is not what the definition says, or the connection is lost.
    pub async fn put(&mut self, writer: &mut Writer, it: Joining) -> Result<(), WriteError> {
        let Joining { definition, table, checkpoint, events } = it;
        writer.put(&definition, &table).await?;
        let name = definition.name.clone();
        let progress = Arc::new(MemberProgress::new(name, checkpoint, events));
        self.progress().join(Arc::clone(&progress));
        let mut fold = Fold::new(Arc::clone(&definition));
        fold.limit_parked(self.shared.parked_limit);
        care::park(writer, &mut fold, self.shared.parked_limit).await?;
        let member = Member {
            careful_upto: self.shared.care.upto(&definition.name),
            careful: Vec::new(),
            checkpoint,
            progress,
            events: 0,
            failed: false,
            follows_versions: definition.order == Order::Version,
            grows: definition.is_unique_per_event(),
            fold,
        };
        match self.members.iter_mut().find(|it| it.progress.name == member.progress.name) {
            Some(place) => *place = member,
            None => self.members.push(member),
        }
        Ok(())
    }

    fn remove(&mut self, writer: &mut Writer, projection: &str) {
        writer.remove(projection);
        self.members.retain(|it| it.progress.name != projection);
        self.progress().leave(projection);
    }

    /// Works until the queue is closed and everything in it is written.
    ///
    /// # Errors
    /// When rows cannot be written. What was not committed is lost and will come again.
    pub async fn run(mut self, writer: Writer) -> Result<(), LaneError> {
        let mut writer = Some(writer);
        let mut writing: Option<Writing> = None;
        let mut closed = false;
        loop {
            if writing.is_none()
                && let Some(idle) = writer.take()
            {
                match self.begin_writing(idle) {
                    Ok(begun) => writing = Some(begun),
                    Err(mut idle) => {
                        if self.is_at_rest()
                            && let Some(asked) = self.asked.take()
                        {
                            self.rest(asked, &mut idle).await?;
                        } else if closed {
                            return Ok(());
                        }
                        writer = Some(idle);
                    }
                }
            }
            let has_room = self.has_room();
            // who is to stop at a boundary takes more only to get to one
            let takes_more = !closed
                && has_room
                && (self.asked.is_none() || self.pending.is_open)
                && (writer.is_some() || !self.is_careful());
            let listens = !closed && self.asked.is_none();
            let is_full = !has_room && writing.is_some();
            let gathers = writer.is_some() && self.pending.covered.is_some();
            // the branches may be dropped at any await: the write goes on where it is kept, and a
            // receive that was not completed has taken nothing
            tokio::select! {
                biased;
                (idle, parts, result) = finish(&mut writing) => {
                    writing = None;
                    self.in_flight.store(0, Ordering::Relaxed);
                    let done = result.map_err(|error| self.refused(error))?;
                    let parked = matches!(done, Done::Whole { parked: true, .. });
                    self.written(done);
                    if parked {
                        return Err(LaneError::Parked);
                    }
                    self.recycle(parts);
                    writer = Some(idle);
                }
                delivery = self.queue.recv(), if takes_more => match delivery {
                    Some(Delivery::Batch(batch)) => {
                        self.fold(&batch)?;
                        if let Some(writer) = &mut writer {
                            self.write_carefully(writer, &batch).await?;
                        }
                    }
                    Some(Delivery::Idle(lsn)) => self.pending.idle(lsn),
                    None => closed = true,
                },
                Some(command) = self.commands.recv(), if listens => {
                    let Command::Hold(asked) = command;
                    self.asked = Some(asked);
                }
                // something is pending that was not due: perhaps nothing more comes
                () = sleep(QUIET), if gathers => {}
                // what is being written makes room as it goes
                () = sleep(FULL), if is_full => {}
            }
        }
    }

    /// Whether everything that was taken is committed.
    fn is_at_rest(&self) -> bool {
        !self.pending.is_open && self.pending.covered.is_none()
    }

    /// Is held until it is released, and changes then.
    async fn rest(
        &mut self,
        asked: oneshot::Sender<Held>,
        writer: &mut Writer,
    ) -> Result<(), LaneError> {
        let (held, released) = Held::new(self.progress().committed());
        // who has not waited so long holds nothing; who drops what it holds changes nothing
        drop(asked.send(held));
        for change in released.await.unwrap_or_default() {
            match change {
                Change::Put(joining) => self.put(writer, joining).await?,
                Change::Remove(projection) => self.remove(writer, &projection),
                Change::Parked(projection) => {
                    let named = |it: &&mut Member| it.progress.name == projection;
                    if let Some(member) = self.members.iter_mut().find(named) {
                        care::park(writer, &mut member.fold, self.shared.parked_limit).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether more may be taken: rows that are being written take room as well.
    fn has_room(&self) -> bool {
        let (pending, limit) = (self.pending_bytes(), self.shared.pending_limit);
        pending < limit && pending + self.in_flight.load(Ordering::Relaxed) < limit + limit / 8
    }

    fn pending_bytes(&self) -> usize {
        self.members.iter().map(|it| it.fold.changes().bytes()).sum()
    }

    fn progress(&self) -> &LaneProgress {
        self.shared.progress.lanes().get(self.number).expect("a lane has its own progress")
    }
}

impl Pending {
    fn idle(&mut self, lsn: Lsn) {
        if !self.is_open {
            self.covered = Some(self.covered.map_or(lsn, |it| it.max(lsn)));
        }
    }
}
