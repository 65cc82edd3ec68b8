//! How fast frames of a client are read: at a steady rate, after a burst. A client that sends faster
//! is read more slowly, and waits.

use std::time::Duration;

use tokio::time::Instant;

use super::server::Patience;

/// The pace of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The time that a frame takes.
    frame: Duration,
    /// How far ahead a client may be.
    burst: Duration,
    /// When all frames so far would have come at the steady rate.
    even_at: Instant,
}

impl Pace {
    /// Nothing has come yet.
    pub(super) fn new(patience: Patience, now: Instant) -> Self {
        let Patience { frame, burst, .. } = patience;
        Self { frame, burst: frame * burst, even_at: now }
    }

    /// A frame has come.
    pub(super) fn count(&mut self, now: Instant) {
        self.even_at = self.even_at.max(now) + self.frame;
    }

    /// When the next may be read, unless that is now.
    pub(super) fn waits_until(&self, now: Instant) -> Option<Instant> {
        (now + self.burst < self.even_at).then(|| self.even_at - self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_read_at_once_and_what_follows_evenly() {
        let now = Instant::now();
        let mut pace = Pace::new(Patience::default(), now);

        let burst = (0..10_000).take_while(|_| {
            pace.count(now);
            pace.waits_until(now).is_none()
        });

        assert_eq!(burst.count(), 500);
        assert_eq!(pace.waits_until(now), Some(now + pace.frame));
        assert_eq!(pace.waits_until(now + pace.frame), None);
    }
}
