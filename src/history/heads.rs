//! Which events come late: a run's version after a higher one of the same run.
//!
//! `append_events` cannot bring that about. Two plain inserts into one run can, when the one with the
//! higher version commits first. Rows of a run follow its versions, so such a run is folded again
//! from history.
//!
//! What was seen before this process started, or longer ago than the bound reaches, is not known:
//! a run that is not known is taken to be in order.

use std::collections::HashMap;

use uuid::Uuid;

/// The highest version seen of the runs that were touched last.
#[derive(Debug)]
pub struct Heads {
    /// Runs touched since the last turn.
    young: HashMap<Uuid, i32, foldhash::fast::FixedState>,
    /// Runs touched in the turn before.
    old: HashMap<Uuid, i32, foldhash::fast::FixedState>,
    /// How many runs make a turn.
    bound: usize,
}

impl Heads {
    /// Remembers between `bound` and twice as many runs.
    pub fn new(bound: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), bound }
    }

    /// Takes note of an event. Returns the run's head when the event comes after a higher version.
    pub fn see(&mut self, run: Uuid, version: i32) -> Option<i32> {
        if let Some(head) = self.young.get_mut(&run) {
            if version < *head {
                return Some(*head);
            }
            *head = version;
            return None;
        }
        let known = self.old.remove(&run);
        if self.bound <= self.young.len() {
            self.old = std::mem::take(&mut self.young);
        }
        let head = known.map_or(version, |it| it.max(version));
        self.young.insert(run, head);
        (version < head).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn a_version_after_a_higher_one_is_late() {
        let mut heads = Heads::new(10);

        assert_eq!(heads.see(run(1), 2), None);
        assert_eq!(heads.see(run(2), 1), None);
        assert_eq!(heads.see(run(1), 1), Some(2));
        assert_eq!(heads.see(run(1), 3), None);
    }

    #[test]
    fn runs_that_were_touched_lately_are_remembered_and_others_forgotten() {
        let mut heads = Heads::new(10);
        for number in 0..1000 {
            assert_eq!(heads.see(run(number), 5), None);
            assert_eq!(heads.see(run(number.saturating_sub(4)), 4), Some(5));
        }

        assert!(heads.young.len() + heads.old.len() <= 20);
        assert_eq!(heads.see(run(0), 1), None);
    }
}
