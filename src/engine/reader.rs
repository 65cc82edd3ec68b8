//! The reader: one OS thread that owns the replication connection.
//!
//! It decodes what the socket brings, hands batches to the lanes, and tells the server what is
//! durable. Status updates never wait for the lanes: while a queue is full the reader goes on to
//! report, it only stops to read.
//!
//! The server sends each row by itself and would wake a waiting reader for each. When there is more
//! than one gulp to read, the thread sleeps for a moment first and lets the kernel's buffer fill, so
//! that both sides do the work of many rows at once. A real sleep of a real thread: a timer of the
//! runtime costs more than it saves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::assembler::{AssembleError, Assembler, Step};
use crate::engine::broadcast::Feed;
use crate::engine::lane::Delivery;
use crate::engine::progress::Progress;
use crate::event::Timestamp;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::pgoutput::{Context, DecodeError, decode};
use crate::wal::error::WalError;
use crate::wal::frame::Frame;
use crate::wal::stream::Stream;

/// More than this at once means that more is waiting.
const BEHIND_BYTES: usize = 64 * 1024;
/// So does a transaction that was committed this long ago; and this long ago is far behind.
const BEHIND: Duration = Duration::from_millis(20);
const FAR_BEHIND: Duration = Duration::from_secs(1);
/// How long to let the kernel's buffer fill when behind, and far behind.
const GATHER: Duration = Duration::from_micros(300);
const GATHER_FAR: Duration = Duration::from_millis(2);
/// When behind, a batch is handed over at this size …
const BATCH_BYTES_WHEN_BEHIND: usize = 1024 * 1024;
/// … or this long after the one before: each wakes the lanes.
const HOLD: Duration = Duration::from_millis(10);
const HOLD_FAR: Duration = Duration::from_millis(100);
/// How often positions are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often the server hears from us although nothing has changed.
const REPORT_AT_LEAST: Duration = Duration::from_secs(5);
/// An idle checkpoint moves when the log has grown this much …
const IDLE_BYTES: u64 = 64 * 1024;
/// … or has grown at all in this time: the checkpoint itself is log.
const IDLE_PERIOD: Duration = Duration::from_secs(10);
/// But not more often than this, in a busy database.
const IDLE_PAUSE: Duration = Duration::from_millis(500);
/// What somebody writes into the log who waits for our checkpoints to pass it: `projector.wait_for`.
const WAIT: &[u8] = b"wait";
/// How long the server may take to end the stream with us.
const FINISH: Duration = Duration::from_secs(5);

/// Why the reader ended.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// The connection or the server.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The server sent what we cannot read.
    #[error("a replication message cannot be read")]
    Decode(#[from] DecodeError),
    /// The messages are no events.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Not a byte, nor an answer when asked for one: the server or the way to it is gone.
    #[error("the server has been silent for {0:?}")]
    Silent(Duration),
    /// A lane has ended, and with it the session.
    #[error("lane {0} ended")]
    LaneEnded(usize),
}

/// Reads one stream.
#[derive(Debug)]
pub struct Reader {
    stream: Stream,
    assembler: Assembler,
    lanes: Vec<mpsc::Sender<Delivery>>,
    /// For broadcasts, which never make the reader wait.
    feed: Option<Arc<Feed>>,
    progress: Arc<Progress>,
    metrics: Arc<Metrics>,
    limits: BatchLimits,
    /// Ends the reading: what has been received is still handed over.
    stop: CancellationToken,
    tick: Interval,
    /// How long the server may be silent: half of it before it is asked to answer.
    silence: Duration,
    heard_at: Instant,
    reported_at: Instant,
    handed_over_at: Instant,
    /// When the server sent the newest frame, by its clock.
    sent_at: Timestamp,
    /// Time spent on the batch at hand.
    decoding: Duration,
    idle_at: Instant,
    idle_lsn: Lsn,
    /// Up to here somebody waits for the checkpoints.
    awaited: Option<Lsn>,
}

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Events.
    pub events: usize,
    /// Bytes of events.
    pub bytes: usize,
}

impl Reader {
    /// Must be made and run inside the runtime of the reader's own thread.
    pub fn new(
        stream: Stream,
        assembler: Assembler,
        (lanes, feed): (Vec<mpsc::Sender<Delivery>>, Option<Arc<Feed>>),
        (progress, metrics): (Arc<Progress>, Arc<Metrics>),
        limits: BatchLimits,
        silence: Duration,
        stop: CancellationToken,
    ) -> Self {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        let idle_lsn = progress.durable();
        Self {
            stream,
            assembler,
            lanes,
            feed,
            progress,
            metrics,
            limits,
            stop,
            tick,
            silence,
            heard_at: now,
            reported_at: now,
            handed_over_at: now,
            sent_at: Timestamp::NEG_INFINITY,
            decoding: Duration::ZERO,
            idle_at: now,
            idle_lsn,
            awaited: None,
        }
    }

    /// Reads until told to stop, then closes the queues, waits for the lanes to finish, and tells
    /// the server the last position. `drained` resolves when the lanes have written everything.
    ///
    /// # Errors
    /// When the stream ends by itself.
    pub async fn run(mut self, drained: CancellationToken) -> Result<(), ReaderError> {
        self.read().await?;
        self.lanes.clear();
        while !drained.is_cancelled() {
            tokio::select! {
                () = drained.cancelled() => {}
                _ = self.tick.tick() => self.report(false).await?,
            }
        }
        self.report(true).await?;
        // closing a socket with unread bytes in it would throw the report away
        match timeout(FINISH, self.stream.finish()).await {
            Ok(finished) => finished?,
            Err(_) => tracing::debug!("the server had more to send than there was time to read"),
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), ReaderError> {
        let mut gulped = false;
        loop {
            let asked = self.decode().await?;
            let lag = self.lag();
            let behind = gulped || BEHIND <= lag;
            if !behind || self.has_gathered(lag) {
                self.hand_over_whole(behind).await?;
            }
            self.answer_waiting().await?;
            if asked {
                self.report(true).await?;
            }
            let gathers = behind && !self.assembler.batch().is_empty();
            if behind {
                std::thread::sleep(if FAR_BEHIND <= lag { GATHER_FAR } else { GATHER });
            }
            // every branch may be dropped: filling loses nothing, and the others only wake; the tick
            // comes before it, for under load there is always something to read
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.hand_over_whole(false).await,
                _ = self.tick.tick() => {
                    self.listen().await?;
                    self.report(false).await?;
                    self.idle().await?;
                }
                filled = self.stream.fill() => {
                    gulped = BEHIND_BYTES <= filled?;
                    self.heard_at = Instant::now();
                }
                // nothing more has come in the meantime: yielding lets the runtime ask the socket once
                () = tokio::task::yield_now(), if gathers => {
                    gulped = false;
                    self.hand_over_whole(false).await?;
                }
            }
        }
    }

    /// How long after its commit the newest transaction at hand was sent. One clock tells both, and
    /// it only decides how long to gather.
    fn lag(&self) -> Duration {
        let Some(last) = self.assembler.batch().transactions().last() else {
            return Duration::ZERO;
        };
        let micros = self.sent_at.0.saturating_sub(last.committed_at.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Whether the batch is worth a hand-over although more is coming.
    fn has_gathered(&self, lag: Duration) -> bool {
        let longest = if FAR_BEHIND <= lag { HOLD_FAR } else { HOLD };
        BATCH_BYTES_WHEN_BEHIND <= self.assembler.batch().bytes()
            || longest <= self.handed_over_at.elapsed()
    }

    /// Hands over the batch at hand, unless it is empty or ends within a transaction.
    async fn hand_over_whole(&mut self, more: bool) -> Result<(), ReaderError> {
        if self.assembler.is_within_transaction() || self.assembler.batch().is_empty() {
            return Ok(());
        }
        self.hand_over(more).await
    }

    /// A connection whose other end has lost its power stays open for hours, so silence counts: the
    /// server is asked to answer, and given up when it does not.
    async fn listen(&mut self) -> Result<(), ReaderError> {
        let silent = self.heard_at.elapsed();
        if self.silence <= silent {
            return Err(ReaderError::Silent(self.silence));
        }
        if self.silence / 2 <= silent && self.silence / 10 <= self.reported_at.elapsed() {
            let durable = self.progress.acknowledgeable();
            self.stream.send_status(self.progress.received(), durable, durable, true).await?;
            self.progress.acknowledge(durable);
            self.reported_at = Instant::now();
        }
        Ok(())
    }

    /// Takes every frame that is buffered, and hands over batches that are full on the way. Whether
    /// the server asked for a reply.
    async fn decode(&mut self) -> Result<bool, ReaderError> {
        let mut asked = false;
        loop {
            let started = Instant::now();
            let full = self.take_frames(&mut asked)?;
            self.decoding += started.elapsed();
            if !full {
                return Ok(asked);
            }
            self.hand_over(true).await?;
        }
    }

    /// Takes frames until there is none (false) or the batch is full (true).
    fn take_frames(&mut self, asked: &mut bool) -> Result<bool, ReaderError> {
        let mut received = Lsn::ZERO;
        let mut full = false;
        while !full && let Some(frame) = self.stream.next()? {
            match frame {
                Frame::Data { start, end, sent_at, message } => {
                    self.sent_at = sent_at;
                    received = received.max(start).max(end);
                    match self.assembler.message(&decode(message, Context::Whole)?)? {
                        Step::Event => {
                            let batch = self.assembler.batch();
                            full = self.limits.bytes <= batch.bytes()
                                || self.limits.events <= batch.len();
                        }
                        Step::Committed { end_lsn, has_events } => {
                            received = received.max(end_lsn);
                            if has_events {
                                self.progress.hand_over(end_lsn);
                                self.metrics.transactions_total.inc();
                            }
                        }
                        Step::Tampering(kind) => {
                            tracing::warn!(
                                ?kind,
                                lsn = %start,
                                "history was changed: the publication reports more than inserts"
                            );
                        }
                        Step::Message(it) if it.content == WAIT => {
                            self.awaited = self.awaited.max(Some(it.lsn));
                        }
                        Step::Nothing | Step::Message(_) => {}
                    }
                }
                Frame::Keepalive { end, reply_requested } => {
                    received = received.max(end);
                    *asked |= reply_requested;
                }
            }
        }
        self.progress.receive(received);
        Ok(full)
    }

    async fn hand_over(&mut self, more: bool) -> Result<(), ReaderError> {
        self.handed_over_at = Instant::now();
        let decoding = std::mem::take(&mut self.decoding).as_secs_f64();
        self.metrics.batch_seconds.with_label_values(&["reader", "decode"]).observe(decoding);
        let lag = self.lag();
        let mut batch = self.assembler.take();
        batch.note_lag(lag, more);
        if let Some(last) = batch.transactions().last() {
            let seconds = Duration::from_micros(last.committed_at.0.try_into().unwrap_or(0));
            self.metrics.last_event_timestamp_seconds.set(seconds.as_secs_f64());
        }
        let batch = Arc::new(batch);
        if let Some(feed) = &self.feed {
            feed.push(Arc::clone(&batch));
        }
        self.deliver(&Delivery::Batch(batch)).await
    }

    /// Gives a delivery to every lane, and goes on to report while a queue is full.
    async fn deliver(&mut self, delivery: &Delivery) -> Result<(), ReaderError> {
        for number in 0..self.lanes.len() {
            let waited = Instant::now();
            let mut full = false;
            loop {
                let Some(lane) = self.lanes.get(number).cloned() else { break };
                let permit = lane.reserve();
                // a permit that was not given has taken no place
                tokio::select! {
                    biased;
                    permit = permit => {
                        permit.map_err(|_| ReaderError::LaneEnded(number))?.send(delivery.clone());
                        break;
                    }
                    _ = self.tick.tick() => {
                        full = true;
                        self.report(false).await?;
                    }
                }
            }
            if full && let Some(lane) = self.progress.lanes().get(number) {
                let seconds = waited.elapsed().as_secs_f64();
                let counter = &self.metrics.queue_full_seconds_total;
                counter.with_label_values(&[lane.name.as_str()]).inc_by(seconds);
            }
        }
        // it was we who did not listen
        self.heard_at = Instant::now();
        Ok(())
    }

    /// Tells the server what is durable: when that has changed, when it was long ago, or `now`.
    async fn report(&mut self, now: bool) -> Result<(), ReaderError> {
        let durable = self.progress.acknowledgeable();
        let changed = self.progress.acknowledged() < durable;
        if now || changed || REPORT_AT_LEAST <= self.reported_at.elapsed() {
            let received = self.progress.received();
            self.stream.send_status(received, durable, durable, false).await?;
            self.progress.acknowledge(durable);
            self.reported_at = Instant::now();
        }
        for (lane, progress) in self.lanes.iter().zip(self.progress.lanes()) {
            let waiting = lane.max_capacity() - lane.capacity();
            let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
            self.metrics.queue_batches.with_label_values(&[progress.name.as_str()]).set(waiting);
        }
        Ok(())
    }

    /// Where nothing is on its way but the log grows, checkpoints follow it, so that the server need
    /// not keep it for us.
    async fn idle(&mut self) -> Result<(), ReaderError> {
        let received = self.progress.received();
        let grown = received.bytes_since(self.idle_lsn.max(self.progress.durable()));
        let since = self.idle_at.elapsed();
        let is_due =
            IDLE_BYTES <= grown && IDLE_PAUSE <= since || 0 < grown && IDLE_PERIOD <= since;
        if !is_due || self.assembler.is_within_transaction() || !self.progress.is_idle() {
            return Ok(());
        }
        self.pass(received).await
    }

    /// Whoever left a message in the log waits for the checkpoints to pass it: they do so at once.
    /// The messages of one gulp are answered together.
    async fn answer_waiting(&mut self) -> Result<(), ReaderError> {
        let Some(awaited) = self.awaited else { return Ok(()) };
        // what was committed before must be with the lanes first; that is a matter of milliseconds
        if self.assembler.is_within_transaction() || !self.assembler.batch().is_empty() {
            return Ok(());
        }
        self.awaited = None;
        self.pass(awaited.max(self.assembler.last_commit())).await
    }

    /// Tells the lanes that nothing more comes before `lsn`.
    async fn pass(&mut self, lsn: Lsn) -> Result<(), ReaderError> {
        self.idle_at = Instant::now();
        self.idle_lsn = lsn;
        if let Some(feed) = &self.feed {
            feed.idle(lsn);
        }
        self.deliver(&Delivery::Idle(lsn)).await
    }
}
