//! Events that are kept until they are written with care.

use crate::apply::careful::{self, Located};
use crate::apply::error::WriteError;
use crate::apply::writer::Writer;
use crate::definition::Order;
use crate::event::{Batch, Event, Timestamp};
use crate::fold::Fold;
use crate::lsn::Lsn;
use crate::redact::Redactor;

/// Events, each with where its transaction ends.
#[derive(Debug, Default)]
pub(super) struct Held {
    batch: Batch,
    facts: Vec<(Lsn, bool)>,
}

/// More are not written at once: most of them have to be written again when one is refused.
const MOST: usize = 1000;

impl Held {
    /// Takes an event.
    pub(super) fn push(&mut self, event: Event<'_>, lsn: Lsn) {
        self.keep(event, lsn, false);
    }

    /// Takes an event that may have come late: then the rows that follow versions pass it over, and
    /// have its run folded again.
    pub(super) fn keep(&mut self, event: Event<'_>, lsn: Lsn, is_late: bool) {
        if self.batch.is_empty() {
            self.batch.begin(lsn, Timestamp::default());
        }
        self.batch.push(event);
        self.facts.push((lsn, is_late));
    }

    /// Whether it is time to write.
    pub(super) fn is_full(&self) -> bool {
        MOST <= self.facts.len()
    }

    /// About how many bytes they are.
    pub(super) fn bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Writes what they make of the rows of the writer's targets, in its open transaction.
    pub(super) async fn write(
        &mut self,
        writer: &mut Writer,
        folds: &mut [Fold],
        redactor: &Redactor,
    ) -> Result<(), WriteError> {
        let batch = std::mem::take(&mut self.batch);
        let facts = std::mem::take(&mut self.facts);
        for (target, fold) in folds.iter_mut().enumerate() {
            let passes_over = fold.definition().order == Order::Version;
            let events = batch.events().zip(&facts);
            let events = events.filter(|(_, (_, is_late))| !(*is_late && passes_over));
            let events: Vec<Located<'_>> = events.map(|(it, (lsn, _))| (it, *lsn)).collect();
            careful::write(writer, (target, fold), &events, redactor).await?;
        }
        Ok(())
    }
}
