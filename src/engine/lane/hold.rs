//! A lane that is held: between two source transactions, with everything before committed.
//!
//! Whoever holds it may do what must not happen in the midst of the lane's work, and change who is in
//! it. The reader goes on to report meanwhile, but what it reads piles up: a hold is for milliseconds.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::definition::Definition;
use crate::ident::QualifiedName;
use crate::lsn::Lsn;

/// What a lane can be told.
#[derive(Debug)]
pub enum Command {
    /// To stop at the next boundary, and to wait there until it is released.
    Hold(oneshot::Sender<Held>),
}

/// A held lane. Dropped, it goes on as it was, or as [`if_dropped`](Self::if_dropped) says.
#[derive(Debug)]
pub struct Held {
    /// What lies up to here is committed for every projection of the lane, and the lane has taken
    /// nothing that lies beyond.
    pub position: Lsn,
    /// Until it is released.
    release: Option<oneshot::Sender<Vec<Change>>>,
    if_dropped: Vec<Change>,
}

/// A change of who is in a lane.
#[derive(Clone, Debug)]
pub enum Change {
    /// A projection joins, or goes on by another definition or in another table.
    Put(Joining),
    /// A projection leaves; its checkpoint stays where it is.
    Remove(String),
    /// Other rows of a projection are parked than before.
    Parked(String),
}

/// A projection that goes on from its checkpoint.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Its rules.
    pub definition: Arc<Definition>,
    /// The generation that it writes.
    pub table: QualifiedName,
    /// Up to where its rows are committed, and that is durable.
    pub checkpoint: Lsn,
    /// How many events it has seen.
    pub events: u64,
}

/// Where a lane is told something.
#[derive(Clone, Debug)]
pub struct LaneHandle {
    /// The lane.
    pub name: String,
    commands: mpsc::Sender<Command>,
}

impl Held {
    /// A held lane that stands at `position`, and where its release will be told.
    pub(super) fn new(position: Lsn) -> (Self, oneshot::Receiver<Vec<Change>>) {
        let (release, released) = oneshot::channel();
        (Self { position, release: Some(release), if_dropped: Vec::new() }, released)
    }

    /// How the lane goes on when nobody lives to say what became of what the hold was for.
    pub fn if_dropped(&mut self, changes: Vec<Change>) {
        self.if_dropped = changes;
    }

    /// Lets the lane go on, with these changes.
    pub fn release(mut self, changes: Vec<Change>) {
        self.if_dropped = changes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            // a lane that has ended meanwhile is noticed by its session
            drop(release.send(std::mem::take(&mut self.if_dropped)));
        }
    }
}

impl LaneHandle {
    /// For the lane called `name`, which listens to what comes out of the other end.
    pub fn new(name: String) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(1);
        (Self { name, commands }, receiver)
    }

    /// Resolves when the lane is held; `None` when it has ended. May be dropped before.
    pub async fn hold(&self) -> Option<Held> {
        let (asked, held) = oneshot::channel();
        self.commands.send(Command::Hold(asked)).await.ok()?;
        held.await.ok()
    }
}
