//! One of those who read history: ranges of runs, one after the other, folded for all tables.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Shelf};

use futures_util::TryStreamExt;
use tokio::sync::mpsc;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::definition::{Needs, Scope, Scratch, Wanted};
use crate::event::Event;
use crate::fold::Fold;
use crate::history::error::BuildError;
use crate::history::fill::fast::{Stop, next};
use crate::history::fill::found::Found;
use crate::history::fill::read;
use crate::history::fill::sink::{Block, Table, Way};
use crate::history::fill::split::Range;
use crate::history::pace::Turn;
use crate::history::source::Source;
use crate::lsn::Lsn;

/// How often it is looked how much is pending, in events.
const LOOK: u64 = 256;
/// How much is handed over at once where much must not be.
const CAREFUL_BYTES: usize = 256 * 1024;

/// What all readers share.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) source: Source,
    pub(super) needs: Needs,
    /// What is read ends here.
    pub(super) lsn: Lsn,
    /// How much of a table is gathered before it is handed over.
    pub(super) block_bytes: usize,
    /// What nobody reads yet.
    pub(super) ranges: Shelf<VecDeque<Range>>,
    /// Events folded by all.
    pub(super) done: AtomicU64,
    pub(super) tables: Arc<[Table]>,
}

/// A reader.
pub(super) struct Reader {
    work: Arc<Work>,
    queue: mpsc::Sender<Block>,
    members: Vec<Member>,
    scratch: Scratch,
    /// The run that is being folded.
    run: Option<Uuid>,
    events: u64,
    /// Whether enough is pending to be handed over when the run ends.
    is_due: bool,
    /// Leave to work; taken anew from time to time.
    turn: Option<Turn>,
}

/// A table as a reader sees it.
struct Member {
    table: usize,
    fold: Fold,
    /// Per lookup of the definition.
    found: Vec<Found>,
    /// How many rows were pending when the run began.
    rows_before: usize,
    /// Whether rows are final before their run has ended.
    at_any_time: bool,
    /// Whether its rows gather events of runs that others read.
    is_shared: bool,
}

impl Reader {
    pub(super) fn new(work: Arc<Work>, queue: mpsc::Sender<Block>) -> Self {
        let member = |(table, it): (usize, &Table)| {
            let definition = &it.target.definition;
            let is_merged = matches!(it.way, Way::Merged(_));
            let mut fold = Fold::new(Arc::clone(definition));
            fold.limit_parked(work.source.parked_limit);
            fold.at(work.lsn);
            let lookups = if is_merged { &[] } else { definition.lookups.as_slice() };
            Member {
                table,
                fold,
                found: lookups.iter().map(|it| Found::new(it.which)).collect(),
                rows_before: 0,
                at_any_time: is_merged || definition.is_unique_per_event(),
                is_shared: !definition.belongs_to_runs(),
            }
        };
        let members = work.tables.iter().enumerate().map(member).collect();
        Self {
            members,
            work,
            queue,
            scratch: Scratch::default(),
            run: None,
            events: 0,
            is_due: false,
            turn: None,
        }
    }

    /// Reads until no range is left.
    pub(super) async fn run(mut self, client: Client) -> Result<(), Stop> {
        while let Some(range) = next(&self.work.ranges) {
            self.take_turn().await;
            let statement = read::statement(&self.work.source, &self.work.needs, range);
            let rows = client.copy_out(&statement).await.map_err(BuildError::Read)?;
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await.map_err(BuildError::Read)? {
                let Some(event) = read::event(&row)? else { continue };
                if self.run != Some(event.run_id) {
                    self.end_run();
                    self.run = Some(event.run_id);
                    if self.is_due {
                        self.hand_over(|_| true).await?;
                    }
                }
                self.fold(event)?;
                if self.events.is_multiple_of(LOOK) {
                    self.work.done.fetch_add(LOOK, Ordering::Relaxed);
                    self.look().await?;
                    if self.turn.as_ref().is_none_or(Turn::is_over) {
                        self.take_turn().await;
                    }
                }
            }
        }
        self.end_run();
        self.hand_over(|_| true).await?;
        self.work.done.fetch_add(self.events % LOOK, Ordering::Relaxed);
        Ok(())
    }

    /// Lets others work before it goes on.
    async fn take_turn(&mut self) {
        self.turn = None;
        self.turn = Some(self.work.source.pace.turn().await);
    }

    fn fold(&mut self, event: Event<'_>) -> Result<(), Stop> {
        self.events += 1;
        let scope = Scope::new(event, &mut self.scratch, &self.work.source.redactor);
        for member in &mut self.members {
            member.fold.event(&scope)?;
            let lookups = &member.fold.definition().lookups;
            for (lookup, found) in lookups.iter().zip(&mut member.found) {
                if let Some(text) = lookup.text(&scope) {
                    found.see(event.version, &text);
                }
            }
        }
        Ok(())
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        for member in &mut self.members {
            let rows = member.fold.changes().rows.len();
            for found in &mut member.found {
                found.end(run, member.rows_before < rows);
            }
            member.rows_before = rows;
        }
    }

    /// Hands over what need not wait for the run's end, and sees whether the rest is due.
    async fn look(&mut self) -> Result<(), Stop> {
        let is_careful = self.work.source.pace.is_careful();
        let most = self.work.block_bytes.min(if is_careful { CAREFUL_BYTES } else { usize::MAX });
        self.hand_over(|it| it.at_any_time && most <= it.bytes()).await?;
        let waiting = self.members.iter().filter(|it| !it.at_any_time);
        self.is_due = most <= waiting.map(Member::bytes).sum();
        Ok(())
    }

    async fn hand_over(&mut self, which: impl Fn(&Member) -> bool) -> Result<(), Stop> {
        for member in self.members.iter_mut().filter(|it| which(it)) {
            let changes = member.fold.take();
            member.rows_before = 0;
            let fresh = member.fold.definition().lookups.iter().map(|it| Found::new(it.which));
            let fresh = fresh.take(member.found.len()).collect();
            let found = std::mem::replace(&mut member.found, fresh);
            if changes.is_empty() {
                continue;
            }
            if !changes.letters.is_empty() {
                // which of a row's events come after one that failed depends on the order of all
                if member.is_shared {
                    return Err(Stop::OneByOne);
                }
                if self.work.needs.payload != Wanted::All {
                    return Err(Stop::NeedsEverything);
                }
            }
            // the sink may have to wait for a turn before it takes another
            self.turn = None;
            let block = Block { table: member.table, changes, found };
            self.queue.send(block).await.map_err(|_| Stop::SinkGone)?;
        }
        Ok(())
    }
}

impl Member {
    fn bytes(&self) -> usize {
        self.fold.changes().bytes() + self.found.iter().map(Found::bytes).sum::<usize>()
    }
}
