//! Broadcasts: what every lane has committed is told to its viewers, in order, at least once.
//!
//! ```text
//! reader ─▶ feed (batches) ─▶ once committed: lines ─▶ composer (messages) ─▶ sink
//!            │ too much: the oldest are skipped                                │ delivered
//!            └───────────────────────────▶ the slot may forget ◀───────────────┘
//! ```
//!
//! A target that is slow or away never makes the reader or a lane wait, and memory has a bound: beyond
//! it lines are skipped, which `prev` shows to clients. What was neither delivered nor skipped holds the
//! slot, so that it comes again after a crash.
//!
//! * this file: what it does · `feed`: its queue · `report`: what it says of itself
//! * `keep`: its checkpoint · `telling`: its task, and who notices its end

mod feed;
mod report;
mod keep;
mod telling;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::feed::Feed;
use self::keep::Keeper;
pub(super) use self::report::Report;
pub(super) use self::telling::Telling;
use crate::definition::{Broadcast, Line, Scope, Scratch};
use crate::engine::progress::Progress;
use crate::event::Batch;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::pg::Settings;
use crate::realtime::compose::{Composer, Limits, Outgoing};
use crate::realtime::link::Link;
use crate::realtime::pace::Pace;
use crate::realtime::sink::{Refusal, Sink};
use crate::realtime::{Message, Target};
use crate::redact::Redactor;
use crate::wal::backoff::Backoff;

/// The first wait after a failure, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How long to wait for an operator before trying again.
const OPERATOR: Duration = Duration::from_secs(30);
/// Messages in a request.
const MESSAGES: usize = 100;
/// Bytes of payloads in a request.
const REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// What a broadcaster works with.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) target: Target,
    pub(super) settings: Settings,
    pub(super) limits: Limits,
    pub(super) rate: usize,
    /// The definitions; the catalogue tells of changes.
    pub(super) definitions: watch::Receiver<Vec<Arc<Broadcast>>>,
    pub(super) feed: Arc<Feed>,
    /// What may be rendered ahead of what is sent, in bytes.
    pub(super) ahead: usize,
    pub(super) progress: Arc<Progress>,
    pub(super) redactor: Arc<Redactor>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) report: Arc<Report>,
    /// Where to go on.
    pub(super) checkpoint: Lsn,
    /// Says that no more comes.
    pub(super) finish: CancellationToken,
}

/// Who broadcasts.
pub(super) struct Broadcaster {
    setup: Setup,
    composer: Composer,
    sink: Sink,
    pace: Pace,
    backoff: Backoff,
    /// Whether the target was seen to take what it is sent.
    is_probed: bool,
    /// Whether definitions have changed, and wait for what was made by those before.
    is_redefined: bool,
    keeper: Keeper,
    told: String,
    /// Up to where the slot may be told; never less than before.
    passed: Lsn,
    line: Line,
    scratch: Scratch,
}

impl Broadcaster {
    /// One that has not begun. `link` is for the checkpoint, where the target does not keep it.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub(super) fn new(mut setup: Setup, link: Link) -> Result<Self, reqwest::Error> {
        let definitions = setup.definitions.borrow_and_update().clone();
        // what the slot has passed over does not come again
        let delivered = setup.checkpoint.max(setup.progress.received());
        let composer = Composer::new(setup.limits, definitions, delivered);
        let sink = Sink::new(&setup.target, &setup.settings)?;
        let now = Instant::now();
        setup.progress.tell(delivered);
        Ok(Self {
            composer,
            sink,
            pace: Pace::new(setup.rate, now),
            backoff: Backoff::new(WAITS.0, WAITS.1, fastrand::u64(..)),
            is_probed: false,
            is_redefined: false,
            keeper: Keeper::new(link, setup.checkpoint, now),
            told: String::new(),
            passed: delivered,
            line: Line::default(),
            scratch: Scratch::default(),
            setup,
        })
    }

    /// Works until all that comes before `finish` is sent.
    pub(super) async fn run(mut self) {
        self.name();
        loop {
            self.catch_up();
            self.keeper.keep(self.composer.delivered(), &self.setup.report).await;
            let is_finishing = self.setup.finish.is_cancelled();
            let now = Instant::now();
            let most = match self.sink.is_paced() {
                true => self.pace.available(now).min(MESSAGES),
                false => MESSAGES,
            };
            let all = is_finishing || self.is_redefined;
            let outgoing = self.composer.take(now, most, REQUEST_BYTES, all);
            if !outgoing.is_empty() {
                self.send(outgoing).await;
                continue;
            }
            if is_finishing && self.composer.lines() == 0 {
                self.keeper.keep_last(self.composer.delivered(), &self.setup.report).await;
                return;
            }
            if !all {
                let most = match self.sink.is_paced() {
                    true => self.pace.spare(now).min(MESSAGES),
                    false => MESSAGES,
                };
                let beacons = self.composer.beacons(now, most);
                if !beacons.is_empty() {
                    self.send(beacons).await;
                    continue;
                }
            }
            self.wait(now, all).await;
        }
    }

    /// Until there may be something to do.
    async fn wait(&mut self, now: Instant, all: bool) {
        let paced = match self.sink.is_paced() {
            true => now + self.pace.wait(),
            false => now,
        };
        let due = self.composer.next_due().map(|it| if all { paced } else { it.max(paced) });
        let beacon =
            self.composer.next_beacon().filter(|_| !all).map(|it| match self.sink.is_paced() {
                true => it.max(now + self.pace.wait_for_spare()),
                false => it,
            });
        let keep = self.keeper.due(self.composer.delivered());
        let next = [due, beacon, keep].into_iter().flatten().min();
        let Self { setup, keeper, .. } = self;
        // all branches only wake; a notification that comes meanwhile is kept
        tokio::select! {
            () = setup.feed.pushed() => {}
            () = setup.progress.visibly_changed() => {}
            () = setup.finish.cancelled(), if !setup.finish.is_cancelled() => {}
            Ok(()) = setup.definitions.changed() => self.is_redefined = true,
            () = keeper.ended(&setup.report) => {}
            () = until(next) => {}
        }
    }

    /// Makes lines of what is committed, as far as there is room, and skips what is too much. Whether
    /// anything was skipped.
    fn catch_up(&mut self) -> bool {
        let is_skipped = self.skip();
        if self.is_redefined && self.composer.lines() == 0 {
            self.is_redefined = false;
            let definitions = self.setup.definitions.borrow_and_update().clone();
            self.composer.redefine(definitions);
            self.is_probed = false;
            self.name();
        }
        // a commit that comes after this look wakes us again
        let visible = self.setup.progress.visible();
        while !self.is_redefined
            && self.composer.bytes() < self.setup.ahead
            && let Some((batch, end)) = self.setup.feed.take(visible)
        {
            self.composer.begin(end);
            self.render(&batch);
            self.composer.end();
        }
        self.setup.feed.set_rendered(self.composer.bytes());
        self.tell();
        is_skipped
    }

    /// Says what is told, and to whom.
    fn name(&self) {
        let names = self.composer.definitions().map(|it| it.name.clone()).collect();
        self.setup.report.tells(self.setup.target.name(), names);
    }

    fn render(&mut self, batch: &Batch) {
        let checkpoint = self.setup.checkpoint;
        let now = Instant::now();
        let most = self.setup.limits.line_bytes();
        let definitions: Vec<_> = self.composer.definitions().cloned().collect();
        for transaction in batch.transactions() {
            if transaction.is_covered_by(checkpoint) {
                continue;
            }
            for event in batch.events_of(transaction) {
                let scope = Scope::new(event, &mut self.scratch, &self.setup.redactor);
                for (number, definition) in definitions.iter().enumerate() {
                    match definition.render(&scope, most, &mut self.line) {
                        Ok(true) => self.composer.add(number, &self.line, now),
                        Ok(false) => {}
                        Err(error) => {
                            // clients see the hole
                            self.composer.forget(number);
                            let name = self.setup.target.name();
                            self.setup.report.fails(&definition.name, &error.to_string());
                            self.setup.metrics.lines_skipped(name, "rule", 1);
                        }
                    }
                }
            }
        }
    }

    /// What the feed had to drop: all that is older goes, too. Whether anything was.
    fn skip(&mut self) -> bool {
        let Some(skipped) = self.setup.feed.skipped() else { return false };
        let waiting = self.composer.skip(skipped.through);
        self.setup.feed.set_rendered(0);
        let (name, events) = (self.setup.target.name(), skipped.events);
        self.setup.metrics.lines_skipped(name, "backlog", events + waiting as u64);
        self.setup.report.skips(name, events, waiting);
        self.tell();
        true
    }

    /// Says how far we are.
    fn tell(&mut self) {
        let Setup { progress, feed, report, .. } = &self.setup;
        let delivered = self.composer.delivered();
        let idle = self.composer.is_settled().then(|| feed.idle_at()).flatten();
        self.passed = self.passed.max(delivered).max(idle.unwrap_or_default());
        progress.tell(self.passed);
        report.is_at(
            self.composer.delivered(),
            (self.composer.undelivered(), self.composer.bytes()),
            feed,
        );
        report.publish(&self.setup.metrics, self.setup.target.name());
    }

    /// Sends until all is taken, refused for good, or skipped.
    async fn send(&mut self, mut outgoing: Vec<Outgoing>) {
        while !outgoing.is_empty() {
            let failure = match self.probe().await {
                Ok(()) => self.attempt(&mut outgoing).await,
                Err(refusal) => Some(refusal),
            };
            let Some(refusal) = failure else { continue };
            if self.rest_after(&refusal).await {
                return;
            }
            if matches!(refusal, Refusal::Operator { .. }) {
                // what came meanwhile may be taken, and show that these are to blame
                if self.catch_up() {
                    return;
                }
                let most = MESSAGES.saturating_sub(outgoing.len());
                let size: usize = outgoing.iter().map(|it| it.message.payload.len()).sum();
                if let Some(bytes) = REQUEST_BYTES.checked_sub(size) {
                    outgoing.extend(self.composer.take(Instant::now(), most, bytes, false));
                }
            }
        }
    }

    /// Sends once. What is settled is not in `outgoing` any more.
    async fn attempt(&mut self, outgoing: &mut Vec<Outgoing>) -> Option<Refusal> {
        let messages: Vec<Message> = outgoing.iter().map(|it| it.message.clone()).collect();
        let checkpoint = self.composer.delivered_after(outgoing);
        let began = Instant::now();
        let delivery = self.sink.deliver(&messages, checkpoint).await;
        self.pace.spend(messages.len());
        if let Some(events) = self.sink.allowed() {
            self.pace.limit(events);
        }
        let name = self.setup.target.name();
        let metrics = &self.setup.metrics;
        metrics
            .broadcast_send_seconds
            .with_label_values(&[name])
            .observe(began.elapsed().as_secs_f64());
        for (place, reason) in &delivery.refused {
            let topic = messages.get(*place).map_or("", |it| &it.topic);
            self.setup.report.refuses(name, topic, reason);
        }
        let refused = delivery.refused.len();
        metrics.broadcasts(name, "refused", refused);
        metrics.broadcasts(name, "sent", delivery.done - refused);
        metrics.broadcasts(name, "failed", usize::from(delivery.failure.is_some()));
        let done = delivery.done.min(outgoing.len());
        outgoing.drain(..done).for_each(|it| self.composer.done(&it));
        if 0 < done {
            self.recovered(done - refused);
        }
        if delivery.is_kept {
            self.keeper.kept(checkpoint);
        }
        self.tell();
        delivery.failure
    }

    /// Makes sure, once, that what is sent would arrive.
    async fn probe(&mut self) -> Result<(), Refusal> {
        if !self.is_probed {
            let is_private = self.composer.definitions().any(|it| it.private);
            self.sink.probe(is_private).await?;
            self.is_probed = true;
        }
        Ok(())
    }

    fn recovered(&mut self, sent: usize) {
        self.backoff.reset();
        if !std::mem::take(&mut self.told).is_empty() {
            let target = self.setup.target.name();
            tracing::info!(target_kind = target, "broadcasts are delivered again");
        }
        self.setup.report.sends(sent);
    }

    /// Waits after a failure. True when what was to be sent has been skipped meanwhile, or when there
    /// is no time left.
    async fn rest_after(&mut self, refusal: &Refusal) -> bool {
        let wait = match refusal {
            Refusal::Operator { .. } => {
                // what was right once may be wrong now
                self.is_probed = false;
                OPERATOR
            }
            Refusal::Later { after, .. } => after.unwrap_or_default().max(self.backoff.wait()),
            Refusal::Content(_) => self.backoff.wait(),
        };
        let error = refusal.to_string();
        let target = self.setup.target.name();
        if self.told == error {
            tracing::debug!(target_kind = target, error, ?wait, "still the same");
        } else if matches!(refusal, Refusal::Operator { .. }) {
            tracing::error!(target_kind = target, error, "broadcasts are not taken");
        } else {
            tracing::warn!(target_kind = target, error, ?wait, "broadcasts wait");
        }
        self.setup.report.waits(&error);
        self.told = error;
        let until = Instant::now() + wait;
        loop {
            self.keeper.keep(self.composer.delivered(), &self.setup.report).await;
            let Setup { feed, finish, report, .. } = &self.setup;
            // an end that is asked for is worth another try, at once
            tokio::select! {
                () = sleep_until(until.into()) => return false,
                () = feed.pushed() => {}
                () = self.keeper.ended(report) => {}
                () = finish.cancelled() => {
                    sleep(WAITS.0).await;
                    return false;
                }
            }
            if self.skip() {
                return true;
            }
            self.setup.report.publish(&self.setup.metrics, target);
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
