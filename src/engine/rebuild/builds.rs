//! What is to be built and what is being built: told by the session, worked off by the rebuilder, shown
//! by the status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::definition::Definition;
use crate::engine::status::RebuildStatus;
use crate::history::source::BuildProgress;

/// All builds of a session that have not ended.
#[derive(Debug, Default)]
pub(in crate::engine) struct Builds {
    list: Mutex<BTreeMap<String, Build>>,
    changed: Notify,
}

/// A build of one projection.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Build {
    /// Its row in `projector.rebuilds`.
    pub(in crate::engine) id: i64,
    /// What is built.
    pub(in crate::engine) definition: Arc<Definition>,
    /// Whether somebody asked for it, who is told when it cannot be done; what is needed is tried again.
    pub(in crate::engine) is_request: bool,
    /// Why it is not wanted any more.
    pub(in crate::engine) given_up: Option<String>,
    status: RebuildStatus,
    /// Ends the attempt under way.
    attempt: Option<CancellationToken>,
    folding_since: Option<Instant>,
}

impl Build {
    /// One that nobody has begun.
    pub(in crate::engine) fn new(id: i64, definition: Arc<Definition>, is_request: bool) -> Self {
        let status = RebuildStatus { phase: "requested".to_owned(), ..RebuildStatus::default() };
        let (given_up, attempt, folding_since) = (None, None, None);
        Self { id, definition, is_request, given_up, status, attempt, folding_since }
    }
}

impl Builds {
    /// Builds are wanted; those that are told together are done together. Of one projection there is
    /// one at a time.
    pub(in crate::engine) fn add(&self, builds: Vec<Build>) {
        if builds.is_empty() {
            return;
        }
        let named = builds.into_iter().map(|it| (it.definition.name.clone(), it));
        self.list().extend(named);
        self.changed.notify_one();
    }

    /// Whether a build of this projection has not ended.
    pub(in crate::engine) fn has(&self, projection: &str) -> bool {
        self.list().contains_key(projection)
    }

    /// Gives a build up; false when there is none.
    pub(in crate::engine) fn give_up(&self, projection: &str, why: &str) -> bool {
        let mut list = self.list();
        let Some(build) = list.get_mut(projection) else { return false };
        build.given_up = Some(why.to_owned());
        build.interrupt();
        self.changed.notify_one();
        true
    }

    /// Another definition is to be built than the one that is being built; false when none is.
    pub(in crate::engine) fn redefine(&self, definition: &Arc<Definition>) -> bool {
        let mut list = self.list();
        let Some(build) = list.get_mut(&definition.name) else { return false };
        if build.definition.hash != definition.hash {
            build.interrupt();
        }
        build.definition = Arc::clone(definition);
        true
    }

    /// What has not ended, by projection.
    pub(in crate::engine) fn statuses(&self) -> BTreeMap<String, RebuildStatus> {
        self.list().iter().map(|(name, it)| (name.clone(), it.status.clone())).collect()
    }

    /// The builds to do next, in one pass over history: those of the lane of the oldest.
    pub(super) fn next(&self) -> Vec<String> {
        let list = self.list();
        let oldest = list.values().min_by_key(|it| it.id);
        let Some(lane) = oldest.map(|it| it.definition.lane.clone()) else { return Vec::new() };
        let of_lane = list.values().filter(|it| it.definition.lane == lane);
        of_lane.map(|it| it.definition.name.clone()).collect()
    }

    /// Resolves when there is more to do.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Builds as they are now, without those that have ended.
    pub(super) fn get(&self, names: &[String]) -> Vec<Build> {
        let list = self.list();
        names.iter().filter_map(|it| list.get(it)).cloned().collect()
    }

    /// An attempt begins that `token` ends.
    pub(super) fn begin(&self, names: &[String], token: &CancellationToken) {
        self.change(names, |it| {
            it.attempt = Some(token.clone());
            it.folding_since = None;
            it.status = RebuildStatus { phase: "snapshot".to_owned(), ..RebuildStatus::default() };
            // what came while nothing could be interrupted
            if it.given_up.is_some() {
                it.interrupt();
            }
        });
    }

    /// The builds have come to a phase.
    pub(super) fn enter(&self, names: &[String], phase: &str) {
        self.change(names, |it| {
            phase.clone_into(&mut it.status.phase);
            it.status.waiting_for = None;
        });
    }

    /// The builds wait for something.
    pub(super) fn wait_for(&self, names: &[String], what: Option<&str>) {
        self.change(names, |it| it.status.waiting_for = what.map(str::to_owned));
    }

    /// How far history has been folded.
    pub(super) fn fold(&self, names: &[String], progress: BuildProgress) {
        let BuildProgress { done, total } = progress;
        self.change(names, |it| {
            let since = *it.folding_since.get_or_insert_with(Instant::now);
            let seconds = since.elapsed().as_secs_f64();
            let rate = if seconds < 0.1 { 0.0 } else { number(done) / seconds };
            let left = number(total.saturating_sub(done)) / rate;
            let status = &mut it.status;
            (status.done, status.total, status.events_per_second) = (done, total, rate);
            status.seconds_left = (0.0 < rate).then_some(left);
        });
    }

    /// A build has ended.
    pub(super) fn remove(&self, projection: &str) {
        self.list().remove(projection);
    }

    fn change(&self, names: &[String], mut change: impl FnMut(&mut Build)) {
        let mut list = self.list();
        for name in names {
            if let Some(build) = list.get_mut(name) {
                change(build);
            }
        }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<String, Build>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Build {
    fn interrupt(&self) {
        if let Some(attempt) = &self.attempt {
            attempt.cancel();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact beyond 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}
