//! The broadcaster's task: how it is told to finish, and that its end is noticed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::report::Report;

/// A broadcaster at work; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::engine) struct Telling {
    task: AbortOnDropHandle<()>,
    finish: CancellationToken,
    report: Arc<Report>,
}

impl Telling {
    /// Lets a broadcaster run, which is done soon after `finish`.
    pub(in crate::engine) fn start(
        broadcaster: impl Future<Output = ()> + Send + 'static,
        finish: CancellationToken,
        report: Arc<Report>,
    ) -> Self {
        Self { task: AbortOnDropHandle::new(tokio::spawn(broadcaster)), finish, report }
    }

    /// Says so when it has ended by itself.
    pub(in crate::engine) fn look(&self) {
        if self.task.is_finished() {
            self.report.ended();
        }
    }

    /// Gives it so long to send what is left. Whether it was enough.
    pub(in crate::engine) async fn finish(self, limit: Duration) -> bool {
        self.finish.cancel();
        matches!(timeout(limit, self.task).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broadcaster_that_falls_over_is_said_to_have_ended() {
        let report = Arc::<Report>::default();
        let finish = CancellationToken::new();
        let working =
            Telling::start(finish.clone().cancelled_owned(), finish.clone(), Arc::clone(&report));
        working.look();
        assert_eq!((report.now().failing, report.now().last_error), (false, None));
        assert!(working.finish(Duration::MAX).await);

        let fallen = Telling::start(
            async { panic!("a fault of ours") },
            CancellationToken::new(),
            Arc::clone(&report),
        );
        while !fallen.task.is_finished() {
            tokio::task::yield_now().await;
        }
        fallen.look();

        let now = report.now();
        assert!(now.failing && now.last_error.unwrap().contains("has ended"));
    }
}
