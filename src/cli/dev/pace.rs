//! How many events are due.

use std::time::Duration;

/// Events at a steady rate. What an outage kept back is not made up for: it would come as a flood.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    /// Events that are due; below 0 after an append that had more of them.
    due: f64,
}

/// The most that is made up for.
const MEMORY: Duration = Duration::from_millis(500);

impl Pace {
    /// Nothing is due yet.
    pub(super) fn new(per_second: f64) -> Self {
        Self { per_second, due: 0.0 }
    }

    /// Time has gone by.
    pub(super) fn elapsed(&mut self, time: Duration) {
        let most = (self.per_second * MEMORY.as_secs_f64()).max(1.0);
        self.due = (self.due + self.per_second * time.as_secs_f64()).min(most);
    }

    /// Whether an event is due.
    pub(super) fn is_due(&self) -> bool {
        1.0 <= self.due
    }

    /// So many events are on their way.
    pub(super) fn spend(&mut self, events: u32) {
        self.due -= f64::from(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent within `seconds`, looked at 50 times a second, three events at once.
    fn sent(pace: &mut Pace, seconds: u32) -> u32 {
        let mut sent = 0;
        for _ in 0..50 * seconds {
            pace.elapsed(Duration::from_millis(20));
            while pace.is_due() {
                pace.spend(3);
                sent += 3;
            }
        }
        sent
    }

    #[test]
    fn the_rate_is_kept_over_time_whatever_the_size_of_an_append() {
        assert!((598..=603).contains(&sent(&mut Pace::new(20.0), 30)));
        assert!((14_990..=15_003).contains(&sent(&mut Pace::new(500.0), 30)));
        assert!((57..=63).contains(&sent(&mut Pace::new(1.0), 60)));
    }

    #[test]
    fn an_outage_is_not_made_up_for() {
        let mut pace = Pace::new(20.0);

        pace.elapsed(Duration::from_secs(3600));

        assert!(sent(&mut pace, 1) <= 33);
    }
}
