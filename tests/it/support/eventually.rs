//! Waiting for what will be, without guessing how long it takes.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long anything may take: `PROJECTOR_TEST_LIMIT` seconds, 180 if not set. It is only reached by
/// a test that fails.
pub(crate) fn limit() -> Duration {
    let seconds = std::env::var("PROJECTOR_TEST_LIMIT").ok().map(|it| it.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(180))
}

/// Polls `look` until it gives `Ok`, and returns that. `Err` says what is there instead; the last
/// one is shown when the limit is reached.
///
/// ```ignore
/// let rows = eventually("a row", async || match count(&client).await { 0 => Err(0), it => Ok(it) }).await;
/// ```
pub(crate) async fn eventually<T, E: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(instead) if limit() < began.elapsed() => {
                panic!("waited {:?} for {what}; instead: {instead:#?}", limit())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
