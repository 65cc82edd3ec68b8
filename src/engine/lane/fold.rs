//! How a lane folds a batch, and what becomes of a projection that a rule fails on.

use std::time::Instant;

use crate::definition::{Scope, Scratch};
use crate::engine::lane::{Departure, Lane, LaneError};
use crate::event::Batch;
use crate::fold::FoldError;

impl Lane {
    pub(super) fn fold(&mut self, batch: &Batch) -> Result<(), LaneError> {
        let started = Instant::now();
        self.pending.since.get_or_insert(started);
        self.pending.taken = Some(started);
        (self.pending.lag, self.pending.more) = batch.lag();
        let shared = self.shared.clone();
        let mut scratch = Scratch::default();
        for transaction in batch.transactions() {
            self.pending.is_open = true;
            self.last_commit = transaction.commit_lsn;
            // of a transaction that goes on, the end is not known yet
            let lsn = transaction.end_lsn.unwrap_or(transaction.commit_lsn);
            for member in &mut self.members {
                member.fold.at(lsn);
            }
            for (number, event) in transaction.events.clone().zip(batch.events_of(transaction)) {
                let head = self.heads.see(event.run_id, event.version);
                if let Some(head) = head {
                    let late = self.pending.late.entry(event.run_id).or_default();
                    late.head = late.head.max(head);
                    late.needed.push(event.version);
                    late.lsn = lsn;
                } else if !self.pending.late.is_empty()
                    && let Some(late) = self.pending.late.get_mut(&event.run_id)
                {
                    late.head = late.head.max(event.version);
                }
                let scope = Scope::new(event, &mut scratch, &shared.redactor);
                for at in 0..self.members.len() {
                    let Some(member) = self.members.get_mut(at) else { break };
                    if member.failed || transaction.is_covered_by(member.checkpoint) {
                        continue;
                    }
                    member.events += 1;
                    if head.is_some() && member.follows_versions {
                        continue;
                    }
                    if member.needs_care(transaction) {
                        member.careful.push((number, lsn));
                        continue;
                    }
                    if let Err(error) = member.fold.event(&scope) {
                        let projection = error.projection.clone();
                        self.depart(at, error);
                        if self.pending.is_partly_written {
                            return Err(LaneError::Torn(projection));
                        }
                    }
                }
            }
            if let Some(end) = transaction.end_lsn {
                self.pending.is_open = false;
                self.pending.covered = Some(end);
                self.pending.committed_at = Some(transaction.committed_at);
            }
        }
        let labels = [self.progress().name.as_str(), "fold"];
        let took = started.elapsed().as_secs_f64();
        shared.metrics.batch_seconds.with_label_values(&labels).observe(took);
        Ok(())
    }

    pub(super) fn depart(&mut self, at: usize, error: FoldError) {
        let Some(member) = self.members.get_mut(at) else { return };
        member.failed = true;
        member.events = 0;
        drop(member.fold.take());
        let projection = error.projection.clone();
        // there is room for every projection, and each leaves once
        let sent = self.shared.departures.try_send(Departure { projection, error });
        if let Err(error) = sent {
            tracing::error!(%error, "a failed projection could not be reported");
        }
    }
}
