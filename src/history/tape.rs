//! What comes through a slot, kept until somebody wants it.
//!
//! While history is read the log goes on. A slot that nobody follows keeps all of it, the log of the
//! build itself among it, and a server that has a limit for that takes the slot away. So the stream is
//! read from the beginning on, and what is read is kept here: only events, which are little beside the
//! rest. Those that are too many for memory go to a file.
//!
//! ```text
//!                 ┌▶ waiting (memory) ─────▶ whoever takes
//! stream ─ record ┤      ▲
//!                 └▶ spool (file) ─ replay, first of all once recording has ended
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::assembler::{Assembler, Step};
use crate::event::Batch;
use crate::history::error::BuildError;
use crate::history::source::{Source, column_names};
use crate::history::spool::{Spool, Spooled};
use crate::ident::Ident;
use crate::lsn::Lsn;
use crate::pgoutput::{Context, Message, decode};
use crate::wal::error::WalError;
use crate::wal::frame::Frame;
use crate::wal::stream::Stream;

/// How often the server is told what it need not keep.
const REPORT: Duration = Duration::from_secs(1);
/// Events that come one by one are kept together, up to so many bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// The stream of a slot, and what has come through it.
pub struct Tape {
    slot: Ident,
    stream: Stream,
    assembler: Assembler,
    /// What was received and not taken, in order.
    pub(super) waiting: VecDeque<Batch>,
    /// Everything that ends here or before is waiting, or was taken.
    pub(super) received: Lsn,
    /// Everything that ends here or before is kept, in memory or in the file.
    kept: Lsn,
    /// How many bytes may wait in memory.
    room: usize,
    overflow: Overflow,
    reported: Instant,
}

/// What memory has no room for.
enum Overflow {
    /// There was none so far.
    None,
    /// It is written to a file, and all that comes later.
    Written(Spool),
    /// The file takes no more: what comes later stays with the server.
    Full(Spool),
    /// It is read again.
    Read(Spooled),
    /// No file can be made: it stays with the server.
    Left,
}

impl Tape {
    /// `stream` begins at `lsn`.
    pub(super) fn new(source: &Source, slot: Ident, stream: Stream, lsn: Lsn) -> Self {
        let names = column_names(&source.columns);
        Self {
            slot,
            stream,
            assembler: Assembler::new(source.events.clone(), names),
            waiting: VecDeque::new(),
            received: lsn,
            kept: lsn,
            room: source.memory,
            overflow: Overflow::None,
            reported: Instant::now(),
        }
    }

    /// Keeps what comes, and tells the server so. Ends only by an error.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the connection is gone, the server sends what cannot be read, or the file breaks.
    pub async fn record(&mut self) -> Result<Infallible, BuildError> {
        loop {
            // whoever calls may do so again and again, to do something else between
            self.report_in_time().await?;
            let waiting = self.waiting.iter().map(Batch::bytes).sum::<usize>();
            if self.room <= waiting + self.assembler.batch().bytes() {
                self.spill();
            }
            let listens = !matches!(self.overflow, Overflow::Full(_) | Overflow::Left);
            tokio::select! {
                filled = self.stream.fill(), if listens => {
                    filled.map_err(|it| explain(&self.slot, it))?;
                    self.take_frames(BATCH_BYTES)?;
                }
                () = sleep(REPORT) => {}
            }
        }
    }

    /// From here on what comes goes to a file.
    fn spill(&mut self) {
        if !matches!(self.overflow, Overflow::None) {
            return;
        }
        self.overflow = match Spool::create() {
            Ok(spool) => Overflow::Written(spool),
            Err(error) => {
                stays(&error);
                Overflow::Left
            }
        };
    }

    /// Ends recording: what was kept comes before what is new.
    pub(super) fn play(&mut self) -> Result<(), BuildError> {
        self.keep_batch(0);
        self.overflow = match std::mem::replace(&mut self.overflow, Overflow::None) {
            Overflow::Written(spool) | Overflow::Full(spool) => {
                Overflow::Read(spool.rewind().map_err(BuildError::Spool)?)
            }
            other => other,
        };
        Ok(())
    }

    /// Waits for more, no longer than `patience`; says whether something came.
    pub(super) async fn hear(&mut self, patience: Duration) -> Result<bool, BuildError> {
        // the server takes a stream for dead that says nothing, however busy it is here
        self.report_in_time().await?;
        if let Overflow::Read(_) = self.overflow {
            self.replay()?;
            return Ok(true);
        }
        let Ok(filled) = timeout(patience, self.stream.fill()).await else { return Ok(false) };
        filled.map_err(|it| explain(&self.slot, it))?;
        self.take_frames(0)?;
        Ok(true)
    }

    /// Takes the next messages of the file.
    fn replay(&mut self) -> Result<(), BuildError> {
        let Overflow::Read(spooled) = &mut self.overflow else { return Ok(()) };
        let mut message = Vec::new();
        while self.assembler.batch().bytes() < BATCH_BYTES {
            if !spooled.read(&mut message).map_err(BuildError::Spool)? {
                self.overflow = Overflow::None;
                // also what was received when the file was full already
                return self.take_frames(0);
            }
            if let Step::Committed { end_lsn, .. } =
                self.assembler.message(&decode(&message, Context::Whole)?)?
            {
                self.received = self.received.max(end_lsn);
            }
        }
        self.keep_batch(0);
        Ok(())
    }

    /// Reports where that was not done for a while.
    async fn report_in_time(&mut self) -> Result<(), BuildError> {
        if self.reported.elapsed() < REPORT {
            return Ok(());
        }
        self.reported = Instant::now();
        self.report(false).await
    }

    /// What was received need not be kept for us: after a crash all begins anew.
    pub(super) async fn report(&mut self, ask_reply: bool) -> Result<(), BuildError> {
        let at = self.kept;
        let sent = self.stream.send_status(at, at, at, ask_reply).await;
        sent.map_err(|it| explain(&self.slot, it))
    }

    /// Ends the stream; the slot goes with it.
    ///
    /// # Errors
    /// When the connection breaks before the server has heard of it.
    pub async fn finish(self) -> Result<(), BuildError> {
        let slot = self.slot;
        self.stream.finish().await.map_err(|source| BuildError::Wal { slot, source })
    }

    /// Takes every frame that is buffered. Events wait together until they are `least` bytes.
    fn take_frames(&mut self, least: usize) -> Result<(), BuildError> {
        while !matches!(self.overflow, Overflow::Full(_))
            && let Some(frame) = self.stream.next().map_err(|it| explain(&self.slot, it))?
        {
            let mut full = None;
            // where a message stands says nothing of what has been sent
            let end = match (frame, &mut self.overflow) {
                (Frame::Keepalive { end, .. }, _) => Some(end),
                (Frame::Data { message, .. }, Overflow::Written(spool)) => {
                    full = spool.write(message).err();
                    match decode(message, Context::Whole)? {
                        Message::Commit(it) => Some(it.end_lsn),
                        _ => None,
                    }
                }
                (Frame::Data { message, .. }, _) => {
                    match self.assembler.message(&decode(message, Context::Whole)?)? {
                        Step::Committed { end_lsn, .. } => Some(end_lsn),
                        _ => None,
                    }
                }
            };
            self.kept = end.map_or(self.kept, |it| self.kept.max(it));
            if let Some(error) = full {
                stays(&error);
                self.overflow = match std::mem::replace(&mut self.overflow, Overflow::Left) {
                    Overflow::Written(spool) => Overflow::Full(spool),
                    other => other,
                };
            }
        }
        if !matches!(self.overflow, Overflow::Written(_) | Overflow::Full(_)) {
            self.received = self.kept;
            self.keep_batch(least);
        }
        Ok(())
    }

    fn keep_batch(&mut self, least: usize) {
        let batch = self.assembler.batch();
        if !batch.is_empty() && least <= batch.bytes() {
            self.waiting.push_back(self.assembler.take());
        }
    }
}

/// Says why what comes from now on stays with the server.
fn stays(error: &io::Error) {
    let folder = std::env::temp_dir();
    let folder = folder.display();
    tracing::warn!(%folder, %error, "no file for the events of the meantime; the slot keeps them");
}

fn explain(slot: &Ident, source: WalError) -> BuildError {
    BuildError::Wal { slot: slot.clone(), source }
}
