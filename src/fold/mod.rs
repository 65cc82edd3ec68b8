//! What a batch of events does to the rows of a projection: one change a row. Pure.
//!
//! * `blocks`: memory that comes and goes in equal pieces
//! * `cell`: a column's pending value · `rows`: pending rows, found by their key
//! * `compose`: how one more operation changes a column
//! * `error`: what is wrong with an event · `letters`: events set aside, and the rows that wait
//! * `plan`: what is worked out once · `work`: what an event does, evaluated
//! * `aside`: what of it must wait · `pending`: the rest, applied · this file: from an event to pending rows
//! * `settle`: how a change meets a row, as the database has it
//! * `memory`: changes applied to a table in memory, as the database applies them
//! * `cases`: given/expect cases run on that table
//!
//! Folding a batch needs nothing that is stored. Where two events of a row cannot be put together
//! without knowing it (an attempt ends and the next begins), the row gets a second change in a later
//! *pass*. So any split of the same events into batches gives the same rows.
//!
//! An event that a rule fails on is *set aside*, where the definition says so: its row is parked as
//! it was before, and the row's later events are set aside too, untried, since applied to a row that
//! misses one they would give a wrong row. All other rows go on, those of the same event included.

pub mod blocks;
pub mod cell;
pub mod rows;
pub mod compose;
mod error;
pub mod letters;
mod plan;
mod work;
mod aside;
mod pending;
pub mod settle;
pub mod memory;
pub mod cases;

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use self::aside::{Aside, Parked};
pub use self::error::{FoldError, Reason};
use self::letters::{BadKey, parse_key};
use self::pending::Pending;
use self::plan::Plan;
use self::work::{Failure, Lists, Work, lists};
use crate::definition::{Definition, HandlerError, Scope, Scratch, UpcastError};
use crate::event::Event;
use crate::fold::cell::Kind;
use crate::fold::rows::{Changes, KeyIndex};
use crate::lsn::Lsn;
use crate::redact::Redactor;

/// Folds events into the pending rows of one projection.
#[derive(Debug)]
pub struct Fold {
    definition: Arc<Definition>,
    plan: Plan,
    pending: Pending,
    aside: Aside,
}

/// Which rows were parked at some moment.
#[derive(Debug)]
pub struct Mark(Parked);

impl Fold {
    /// An empty fold, in which no row is parked and any number may be.
    pub fn new(definition: Arc<Definition>) -> Self {
        let plan = Plan::new(&definition);
        let kinds = definition.columns.iter().map(|it| Kind::of(&it.ty)).collect();
        let changes = Changes::new(kinds);
        let hasher = foldhash::fast::FixedState::default();
        let pending = Pending { changes, spare: None, index: KeyIndex::default(), hasher };
        Self { definition, plan, pending, aside: Aside::default() }
    }

    /// The definition that it folds by.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// What has been folded since the last [`take`](Self::take).
    pub fn changes(&self) -> &Changes {
        &self.pending.changes
    }

    /// Gives away what has been folded and starts anew. Parked rows stay parked.
    pub fn take(&mut self) -> Changes {
        let Pending { changes, spare, index, .. } = &mut self.pending;
        index.clear();
        let next = spare.take().unwrap_or_else(|| changes.emptied());
        std::mem::replace(changes, next)
    }

    /// Takes back the memory of rows that have been written. Two sets of it go to and fro, and their
    /// pages stay warm; what was needed once and is not any more is given up.
    pub fn recycle(&mut self, mut written: Changes) {
        written.clear();
        self.pending.spare = Some(written);
    }

    /// The next events belong to a transaction that ends at `lsn`; only what is set aside tells.
    pub fn at(&mut self, lsn: Lsn) {
        self.aside.lsn = lsn;
    }

    /// Folds one event.
    ///
    /// # Errors
    /// When a rule cannot be applied to it and the definition says `on_error = "pause"`, or when too
    /// many rows are parked. The caller drops the fold.
    pub fn event(&mut self, scope: &Scope<'_>) -> Result<(), FoldError> {
        if self.definition.upcasts.is_empty() {
            return self.read(scope.event(), scope);
        }
        match self.definition.upcast(scope) {
            Ok(None) => self.read(scope.event(), scope),
            Ok(Some(it)) => {
                let mut scratch = Scratch::default();
                self.read(scope.event(), &scope.with_payload(&it.payload, &mut scratch))
            }
            Err(error) => self.unreadable(scope, error),
        }
    }

    /// Folds one event, as rules see it in `scope`.
    fn read(&mut self, event: &Event<'_>, scope: &Scope<'_>) -> Result<(), FoldError> {
        let Self { definition, plan, pending, aside } = self;
        let (definition, plan): (&Definition, &Plan) = (definition, plan);
        pending.changes.events += 1;
        if let Some(sql) = &definition.sql {
            if sql.events.matches(event.kind) {
                // as the rules of another definition would see it
                pending.changes.gather(*scope.event());
            }
            return Ok(());
        }
        let lists = if plan.has_foreach { lists((definition, plan), scope) } else { Lists::new() };
        let mut work = Work::default();
        match &definition.code {
            None => work.evaluate((definition, plan), scope, &lists),
            Some(code) => {
                if plan.rules(definition, event.kind).next().is_none() {
                    return Ok(());
                }
                let Some(handler) = &code.handler else {
                    let reason = format!("the code `{}` is not part of this program", code.name);
                    let reason = HandlerError::new(reason).into();
                    return Err(FoldError::new(definition, event, 1, None, reason));
                };
                work.handle(definition, handler.as_ref(), scope);
            }
        }
        work.failures.iter_mut().for_each(|it| it.redact(scope.redactor()));
        let is_plain = work.failures.is_empty() && aside.is_empty();
        let blocked = match is_plain {
            true => SmallVec::new(),
            false => {
                let letters = (&mut pending.changes.letters, scope.redactor());
                aside.sort(definition, event, &work, letters)?
            }
        };
        let mut rows: SmallVec<[Option<usize>; 4]> = smallvec![None; work.keys.len()];
        for step in &work.steps {
            let Some(row) = rows.get_mut(step.key) else { continue };
            if !is_plain && blocked.get(step.key) == Some(&true) {
                continue;
            }
            let applied = pending.apply((definition, plan), event, &work, (step, row));
            applied.map_err(|it| {
                let reason = Reason::from(it).redacted(scope.redactor());
                FoldError::new(definition, event, step.line, None, reason)
            })?;
        }
        Ok(())
    }

    /// Sets an event aside that an upcast fails on, unless no rule takes it. Which row it means nobody
    /// knows then.
    fn unreadable(&mut self, scope: &Scope<'_>, error: UpcastError) -> Result<(), FoldError> {
        let event = scope.event();
        let Self { definition, plan, pending, aside } = self;
        pending.changes.events += 1;
        let is_taken = match &definition.sql {
            Some(sql) => sql.events.matches(event.kind),
            None => plan.rules(definition, event.kind).next().is_some(),
        };
        if !is_taken {
            return Ok(());
        }
        let mut work = Work::default();
        work.failures.push(Failure { key: None, line: 1, column: None, reason: error.into() });
        let letters = (&mut pending.changes.letters, scope.redactor());
        aside.sort(definition, event, &work, letters).map(drop)
    }

    /// How many rows may be parked, and events set aside without a row, before
    /// [`event`](Self::event) fails.
    pub fn limit_parked(&mut self, limit: usize) {
        self.aside.limit = limit;
    }

    /// Parks a row by its key as a letter has it; without one, counts an event that has no row.
    ///
    /// # Errors
    /// When the key is not one of this definition.
    pub fn park(&mut self, key: Option<&str>) -> Result<(), BadKey> {
        match key {
            Some(key) => self.aside.parked.insert(parse_key(&self.definition, key)?),
            None => self.aside.parked.keyless += 1,
        }
        Ok(())
    }

    /// Frees all rows.
    pub fn free(&mut self) {
        self.aside.parked = Parked::default();
    }

    /// Frees a row.
    ///
    /// # Errors
    /// When the key is not one of this definition.
    pub fn unpark(&mut self, key: &str) -> Result<(), BadKey> {
        self.aside.parked.remove(&parse_key(&self.definition, key)?);
        Ok(())
    }

    /// How many rows are parked, and events set aside without a row.
    pub fn parked(&self) -> usize {
        self.aside.parked.len()
    }

    /// Which rows are parked now, for [`rewind`](Self::rewind).
    pub fn mark(&self) -> Mark {
        Mark(self.aside.parked.clone())
    }

    /// Whether a row was parked when the mark was made, by its key as a letter has it.
    pub fn had_parked(&self, mark: &Mark, key: &str) -> bool {
        parse_key(&self.definition, key).is_ok_and(|it| mark.0.contains(&it))
    }

    /// Forgets what was folded since the mark was made; nothing may have been pending then.
    pub fn rewind(&mut self, mark: Mark) {
        drop(self.take());
        self.aside.parked = mark.0;
    }

    /// Folds what concerns one row only, by its key as a letter has it; whatever happens to others
    /// goes unnoticed.
    ///
    /// # Errors
    /// When the key is not one of this definition.
    pub fn only(&mut self, key: &str) -> Result<(), BadKey> {
        self.aside.only = Some(parse_key(&self.definition, key)?);
        Ok(())
    }

    /// Sets an event aside that the database refused: the row that it made in `changes` is parked.
    ///
    /// # Errors
    /// When too many rows are parked, or the definition says `on_error = "pause"`.
    pub fn refused(
        &mut self,
        event: &Event<'_>,
        (changes, row): (&Changes, usize),
        (error, redactor): (&str, &Redactor),
    ) -> Result<(), FoldError> {
        let Self { definition, aside, pending, .. } = self;
        let columns = definition.key_columns();
        let key: Vec<_> = columns.map(|it| changes.texts.value(changes.cell(row, it))).collect();
        let mut work = Work::default();
        work.keys.push(key.into());
        work.failures.push(Failure {
            key: Some(0),
            line: 1,
            column: None,
            reason: Reason::Refused(redactor.text(error).into_owned()),
        });
        aside.sort(definition, event, &work, (&mut pending.changes.letters, redactor)).map(drop)
    }
}
