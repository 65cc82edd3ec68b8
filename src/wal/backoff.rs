//! How long to wait before the next attempt.

use std::time::Duration;

/// Waits that double from `first` to `longest`, each shortened at random by up to half, so that many
/// who failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    attempt: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Starts at `first`. `seed` makes the jitter repeatable.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { first, longest, next: first.min(longest), attempt: 0, random }
    }

    /// The wait before the next attempt: between half and the whole of the current step.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.longest);
        self.attempt = self.attempt.saturating_add(1);
        step.mul_f64(0.5 + 0.5 * self.random.f64())
    }

    /// How many waits there were since the last progress.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Something worked: the next failure starts from the shortest wait.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.longest);
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    proptest! {
        #[test]
        fn waits_double_up_to_the_longest(seed: u64) {
            let mut backoff = Backoff::new(FIRST, LONGEST, seed);
            let mut step = FIRST;
            for _ in 0..20 {
                let wait = backoff.wait();
                prop_assert!(step / 2 <= wait && wait <= step);
                step = (step * 2).min(LONGEST);
            }
        }
    }

    #[test]
    fn progress_starts_over() {
        let mut backoff = Backoff::new(FIRST, LONGEST, 1);
        for _ in 0..9 {
            backoff.wait();
        }
        assert_eq!(backoff.attempt(), 9);

        backoff.reset();

        assert!(backoff.wait() <= FIRST);
        assert_eq!(backoff.attempt(), 1);
    }
}
