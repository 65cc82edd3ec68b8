//! Calls of `append_events`, several under way on one connection.

use std::collections::HashSet;
use std::pin::Pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use crate::cli::append::group::Group;
use crate::cli::context::statement_failed;
use crate::cli::fail::Failure;
use crate::ident::Ident;

/// Calls under way at once: enough to keep the server busy over a network, few enough to wait for.
const UNDER_WAY: usize = 32;

/// What became of a group.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) group: Group,
    pub(super) outcome: Outcome,
}

/// Whether a group's events are in the database.
#[derive(Debug)]
pub(super) enum Outcome {
    /// They are.
    Appended,
    /// They are not, and the server says why; other groups may fare better.
    Refused(Error),
    /// They are not, and others would fare no better.
    Failed(Error),
    /// Nobody knows: the connection broke before the answer.
    Unknown(Error),
}

type Call<'a> = Pin<Box<dyn Future<Output = Vec<Answer>> + Send + 'a>>;

/// The calls under way. No two of them are for one run, so that a run's events keep their order even
/// when a call is refused and repeated in parts.
pub(super) struct Calls<'a> {
    client: &'a Client,
    statement: &'a Statement,
    under_way: FuturesUnordered<Call<'a>>,
    runs: HashSet<Uuid>,
}

impl<'a> Calls<'a> {
    /// None yet.
    pub(super) fn new(client: &'a Client, statement: &'a Statement) -> Self {
        Self { client, statement, under_way: FuturesUnordered::new(), runs: HashSet::new() }
    }

    /// Whether a call for `group` may start now.
    pub(super) fn has_room_for(&self, group: &Group) -> bool {
        self.under_way.len() < UNDER_WAY && !self.runs.contains(&group.run_id())
    }

    /// Starts a call.
    pub(super) fn start(&mut self, group: Group) {
        self.runs.insert(group.run_id());
        self.under_way.push(Box::pin(call(self.client, self.statement, group)));
    }

    /// The answers of the next call that ends; `None` when none is under way. May be cancelled.
    pub(super) async fn next(&mut self) -> Option<Vec<Answer>> {
        let answers = self.under_way.next().await?;
        for answer in &answers {
            self.runs.remove(&answer.group.run_id());
        }
        Some(answers)
    }
}

/// Prepares the call.
pub(super) async fn prepare(client: &Client, schema: &Ident) -> Result<Statement, Failure> {
    let sql = format!(
        "select count(*) from {schema}.append_events($1::uuid, $2::uuid, $3::int, $4::text::jsonb)"
    );
    client
        .prepare(&sql)
        .await
        .map_err(|error| statement_failed(&format!("cannot call {schema}.append_events"), error))
}

/// Appends a group. When the data of one of its events is bad, the events are appended one by one,
/// in order, so that only the bad one is left out.
async fn call(client: &Client, statement: &Statement, group: Group) -> Vec<Answer> {
    let outcome = append(client, statement, &group).await;
    let in_parts = matches!(&outcome, Outcome::Refused(error) if !is_conflict(error));
    if !in_parts || group.len() == 1 {
        return vec![Answer { group, outcome }];
    }
    let mut answers = Vec::new();
    for group in group.split() {
        let outcome = append(client, statement, &group).await;
        answers.push(Answer { group, outcome });
    }
    answers
}

async fn append(client: &Client, statement: &Statement, group: &Group) -> Outcome {
    let (project, run) = (group.project_id(), group.run_id());
    let (expected, elements) = (group.expected_version(), group.elements());
    match client.query_one(statement, &[&project, &run, &expected, &elements]).await {
        Ok(_) => Outcome::Appended,
        Err(error) => judge(error),
    }
}

fn judge(error: Error) -> Outcome {
    match error.code() {
        None => Outcome::Unknown(error),
        // Class 22 is bad data.
        Some(code) if is_conflict(&error) || code.code().starts_with("22") => {
            Outcome::Refused(error)
        }
        Some(_) => Outcome::Failed(error),
    }
}

/// The run is not where a line expects it to be. The lines that follow in its group build on it, so
/// that they are left out together.
fn is_conflict(error: &Error) -> bool {
    error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}
