//! Statements of one connection that are sent without waiting for the answers of those before.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio_postgres::Error as PgError;

use crate::apply::error::WriteError;

/// The SQLSTATE with which `projector.advance` refuses.
const OVERTAKEN: &str = "PJ001";
/// The most rows that are sent before the first of them is answered.
const ROWS_ON_THEIR_WAY: usize = 4096;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<u64, PgError>> + Send + 'a>>;

/// Statements that have been sent and not been answered.
#[derive(Default)]
pub(super) struct Pipeline<'a> {
    /// Each with the projection that it is of, and how many rows it carries.
    waiting: VecDeque<(Option<&'a str>, usize, Answer<'a>)>,
    rows: usize,
}

impl<'a> Pipeline<'a> {
    /// Sends a statement: polling it once does that. Waits for earlier ones only when too many rows
    /// are on their way, since each is a copy in memory until the server has taken it.
    pub(super) async fn send(
        &mut self,
        owner: Option<&'a str>,
        rows: usize,
        statement: impl Future<Output = Result<u64, PgError>> + Send + 'a,
    ) -> Result<(), WriteError> {
        let mut answer: Answer<'a> = Box::pin(statement);
        match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
            Poll::Ready(result) => return check(result, owner),
            Poll::Pending => self.waiting.push_back((owner, rows, answer)),
        }
        self.rows += rows;
        while ROWS_ON_THEIR_WAY < self.rows {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for all answers.
    pub(super) async fn finish(mut self) -> Result<(), WriteError> {
        self.settle_all().await
    }

    pub(super) async fn settle_all(&mut self) -> Result<(), WriteError> {
        while !self.waiting.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for the oldest answer. The first failure is the cause; those after it would only say
    /// that the transaction is aborted.
    async fn settle(&mut self) -> Result<(), WriteError> {
        let Some((owner, rows, answer)) = self.waiting.pop_front() else { return Ok(()) };
        self.rows -= rows;
        check(answer.await, owner)
    }
}

/// An answer, or whose statement failed.
pub(super) fn check(result: Result<u64, PgError>, owner: Option<&str>) -> Result<(), WriteError> {
    let Err(source) = result else { return Ok(()) };
    Err(match owner {
        Some(name) => WriteError::Rows { projection: name.to_owned(), source },
        None if source.code().is_some_and(|it| it.code() == OVERTAKEN) => {
            WriteError::Overtaken(source)
        }
        None => WriteError::Transaction(source),
    })
}
