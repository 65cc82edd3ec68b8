//! Events written one by one, where the database refused what many of them made.
//!
//! A statement that writes the rows of a batch fails as a whole, after the next batch has been folded
//! already. So the session ends, nothing of the transaction remains, and in the next one the
//! projection is written carefully until it is past the place: see [`careful`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::apply::careful::{self, Located};
use crate::apply::error::WriteError;
use crate::apply::letters;
use crate::apply::writer::Writer;
use crate::definition::OnError;
use crate::engine::lane::{Lane, LaneError, Member};
use crate::event::Batch;
use crate::event::Transaction;
use crate::fold::Fold;
use crate::lsn::Lsn;
use crate::pg::{Class, class};

/// Projections that need care, and up to where. Outlives a session.
#[derive(Debug, Default)]
pub struct Care(Mutex<BTreeMap<String, Lsn>>);

impl Care {
    /// Asks for care up to a position; false when it was taken up to there already, in vain.
    fn ask(&self, projection: &str, upto: Lsn) -> bool {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = list.entry(projection.to_owned()).or_default();
        let is_new = *known < upto;
        *known = upto.max(*known);
        is_new
    }

    /// Up to where a projection needs care.
    pub(super) fn upto(&self, projection: &str) -> Lsn {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.get(projection).copied().unwrap_or_default()
    }
}

/// Lets a fold know which of its projection's rows are parked.
pub(super) async fn park(writer: &Writer, fold: &mut Fold, limit: usize) -> Result<(), WriteError> {
    let name = fold.definition().name.clone();
    let parked = letters::parked(writer.client(), &name, limit).await;
    fold.free();
    for key in parked.map_err(WriteError::Transaction)? {
        if let Err(error) = fold.park(key.as_deref()) {
            tracing::warn!(projection = name, %error, "a dead letter is of no row");
        }
    }
    Ok(())
}

impl Member {
    /// Whether a transaction's events are written one by one.
    pub(super) fn needs_care(&self, transaction: &Transaction) -> bool {
        transaction.commit_lsn < self.careful_upto
    }
}

impl Lane {
    /// Whether some projection needs care with what comes next.
    pub(super) fn is_careful(&self) -> bool {
        self.members.iter().any(|it| !it.failed && self.last_commit < it.careful_upto)
    }

    /// Writes what projections in need of care have not folded of a batch, and opens a transaction
    /// for it, which ends as always.
    pub(super) async fn write_carefully(
        &mut self,
        writer: &mut Writer,
        batch: &Batch,
    ) -> Result<(), LaneError> {
        if self.members.iter().all(|it| it.careful.is_empty()) {
            return Ok(());
        }
        let events: Vec<_> = batch.events().collect();
        for (target, member) in self.members.iter_mut().enumerate() {
            let numbers = std::mem::take(&mut member.careful);
            let located: Vec<Located<'_>> =
                numbers.iter().filter_map(|(at, lsn)| Some((*events.get(*at)?, *lsn))).collect();
            let fold = &mut member.fold;
            careful::write(writer, (target, fold), &located, &self.shared.redactor).await?;
        }
        self.pending.is_partly_written = true;
        Ok(())
    }

    /// Why the lane ends when rows could not be written: for good, or to begin again with care.
    pub(super) fn refused(&self, error: WriteError) -> LaneError {
        if let WriteError::Rows { projection, source } = &error
            && class(source) == Class::Poison
            // in the new session nobody would know which events were late
            && !self.is_refolding
            && self.parks(projection)
            && self.shared.care.ask(projection, Lsn(self.last_commit.0 + 1))
        {
            return LaneError::Careful(error);
        }
        LaneError::Write(error)
    }

    fn parks(&self, projection: &str) -> bool {
        let member = self.members.iter().find(|it| it.progress.name == projection);
        member.is_some_and(|it| it.fold.definition().on_error == OnError::Park)
    }
}
