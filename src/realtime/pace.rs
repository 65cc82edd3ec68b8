//! How many messages may go now: a bucket of tokens.

use std::time::{Duration, Instant};

/// Of a limit that the server tells, this part is used: viewers count too.
const HEADROOM: f64 = 0.5;

/// A bucket that fills steadily and holds what flows in within a second.
#[derive(Debug)]
pub struct Pace {
    /// Messages a second, as configured.
    wanted: f64,
    /// The same, within what the server has told of its limit.
    rate: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Pace {
    /// A full one.
    pub fn new(rate: usize, now: Instant) -> Self {
        let rate = u32::try_from(rate).unwrap_or(u32::MAX).into();
        Self { wanted: rate, rate, tokens: rate, filled_at: now }
    }

    /// The server allows so many events a second, deliveries included.
    pub fn limit(&mut self, events: f64) {
        self.rate = self.wanted.min((events * HEADROOM).max(1.0));
    }

    /// How many messages may be sent now.
    pub fn available(&mut self, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.rate.max(1.0));
        self.filled_at = now;
        whole(self.tokens)
    }

    /// How many that can wait may be sent now: half of the bucket is left for those that cannot.
    pub fn spare(&mut self, now: Instant) -> usize {
        self.available(now).saturating_sub(self.reserve())
    }

    /// So many were sent.
    pub fn spend(&mut self, messages: usize) {
        self.tokens -= f64::from(u32::try_from(messages).unwrap_or(u32::MAX));
    }

    /// How long until one more may be sent.
    pub fn wait(&self) -> Duration {
        self.wait_for(1)
    }

    /// How long until one more that can wait may be sent.
    pub fn wait_for_spare(&self) -> Duration {
        self.wait_for(self.reserve() + 1)
    }

    fn wait_for(&self, tokens: usize) -> Duration {
        let tokens = f64::from(u32::try_from(tokens).unwrap_or(u32::MAX));
        let missing = (tokens - self.tokens).max(0.0);
        Duration::from_secs_f64((missing / self.rate).min(3600.0))
    }

    fn reserve(&self) -> usize {
        whole(self.rate / 2.0)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates, and what is negative is none"
)]
fn whole(tokens: f64) -> usize {
    tokens.max(0.0).floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_goes_than_flows_in() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(10, start);

        assert_eq!(pace.available(at(0)), 10);
        pace.spend(10);
        assert_eq!(pace.available(at(50)), 0);
        assert_eq!(pace.wait(), Duration::from_millis(50));
        assert_eq!(pace.available(at(350)), 3);
        assert_eq!(pace.available(at(60_000)), 10);

        pace.spend(3);
        assert_eq!((pace.spare(at(60_000)), pace.available(at(60_000))), (2, 7));
        pace.spend(2);
        assert_eq!((pace.spare(at(60_000)), pace.wait()), (0, Duration::ZERO));
        assert_eq!(pace.wait_for_spare(), Duration::from_millis(100));

        pace.limit(8.0);
        assert_eq!(pace.available(at(60_000)), 4);
        pace.limit(1_000.0);
        assert_eq!(pace.available(at(120_000)), 10);
    }
}
