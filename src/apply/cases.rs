//! Given/expect cases of statements: a database does what it would do, in a transaction that is rolled
//! back.
//!
//! The table is a temporary one, which is found before any other of its name. The events are given in
//! each way in which they may come, because the rows must not depend on it.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tokio_postgres::{Client, Error as PgError};

use crate::apply::careful::said;
use crate::apply::gathered;
use crate::apply::generation::Tables;
use crate::definition::case::{Case, Difference, compare};
use crate::definition::{Definition, Scope, Scratch, Sql};
use crate::event::Event;
use crate::fold::{Fold, FoldError};
use crate::ident::Ident;
use crate::redact::Redactor;

/// Why a case has no rows to compare.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The events could not be read.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The database refused the table or the statement.
    #[error("the database refuses it: {}", said(.0))]
    Refused(#[from] PgError),
}

/// How the events of a case come to the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In one batch, in their order.
    Together,
    /// A batch each.
    OneByOne,
    /// A batch for each run, as history gives them to a rebuild.
    RunByRun,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Together => "its events come together",
            Self::OneByOne => "its events come one by one",
            Self::RunByRun => "its events come run by run, as a rebuild gives them",
        })
    }
}

/// Gives the events to the statement in each [`Way`], and compares the rows with what is expected.
/// The first way in which they differ, with how; `None` where all agree.
///
/// # Errors
/// When the statement fails, which stops a projection: no case can expect it.
pub async fn run(
    client: &mut Client,
    schema: &Ident,
    (definition, sql): (&Definition, &Sql),
    case: &Case,
    redactor: &Redactor,
) -> Result<Option<(Way, Vec<Difference>)>, CaseError> {
    let definition = &Arc::new(definition.clone());
    let events: Vec<Event<'_>> = case.given.events().collect();
    let mut by_run = events.clone();
    by_run.sort_by_key(|it| (it.run_id, it.version));
    let ways: [(Way, Vec<&[Event<'_>]>); 3] = [
        (Way::Together, vec![&events[..]]),
        (Way::OneByOne, events.chunks(1).collect()),
        (Way::RunByRun, by_run.chunk_by(|a, b| a.run_id == b.run_id).collect()),
    ];
    for (way, batches) in ways {
        let rows = rows(client, schema, (definition, sql), &batches, redactor).await?;
        let mut differences = compare(&case.expect, &rows);
        let unmet = case.set_aside.iter().cloned();
        differences.extend(unmet.map(|expected| Difference::SetAside { expected, found: None }));
        if !differences.is_empty() {
            return Ok(Some((way, differences)));
        }
    }
    Ok(None)
}

/// The rows that a statement makes of batches, one after the other. Nothing of it stays.
async fn rows(
    client: &mut Client,
    schema: &Ident,
    (definition, sql): (&Arc<Definition>, &Sql),
    batches: &[&[Event<'_>]],
    redactor: &Redactor,
) -> Result<Vec<Map<String, Json>>, CaseError> {
    let transaction = client.transaction().await?;
    let table = Tables::new(definition, schema).create_temporary();
    let begin =
        format!("set local search_path = {schema}, public; set local timezone = 'UTC'; {table}");
    transaction.batch_execute(&begin).await?;
    let statement = transaction.prepare_typed(&sql.with_batch(), &gathered::TYPES).await?;
    let mut fold = Fold::new(Arc::clone(definition));
    let mut scratch = Scratch::default();
    for batch in batches {
        for event in *batch {
            fold.event(&Scope::new(*event, &mut scratch, redactor))?;
        }
        let changes = fold.take();
        if !changes.gathered.is_empty() {
            gathered::execute(&transaction, &statement, &changes.gathered).await?;
        }
    }
    let select = format!("select to_jsonb(it) from {} it", definition.table);
    let found = transaction.query(&select, &[]).await?;
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        if let Json::Object(row) = row.try_get(0)? {
            rows.push(row);
        }
    }
    transaction.rollback().await?;
    Ok(rows)
}
