//! What waits for one receiver: a queue that never blocks who puts something in, and never grows
//! beyond its limit. A receiver that is too slow loses what waited, and is told.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Counted for each thing that waits, besides its content: many small ones take memory too.
const OVERHEAD: usize = 64;

/// A bounded queue with one receiver.
#[derive(Debug)]
pub(super) struct Queue<T> {
    limit: usize,
    state: Mutex<State<T>>,
    arrival: Notify,
    overflow: Notify,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    bytes: usize,
    has_overflowed: bool,
}

/// Something did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// What is made of something that is put into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It waits.
    Waits,
    /// It was too much: with all that waited it is gone.
    Overflowed,
    /// It is gone: the receiver has not yet noticed that there was too much.
    Lost,
}

impl<T> Queue<T> {
    /// One that holds `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        let state = State { waiting: VecDeque::new(), bytes: 0, has_overflowed: false };
        Self { limit, state: Mutex::new(state), arrival: Notify::new(), overflow: Notify::new() }
    }

    /// Puts in what has `bytes` of content. Something that is alone may be larger than the limit.
    pub(super) fn put(&self, item: T, bytes: usize) -> Put {
        let mut state = self.state();
        if state.has_overflowed {
            return Put::Lost;
        }
        let bytes = state.bytes.saturating_add(bytes).saturating_add(OVERHEAD);
        if self.limit < bytes && !state.waiting.is_empty() {
            state.waiting = VecDeque::new();
            state.bytes = 0;
            state.has_overflowed = true;
            drop(state);
            self.overflow.notify_one();
            self.arrival.notify_one();
            return Put::Overflowed;
        }
        state.waiting.push_back(item);
        state.bytes = bytes;
        drop(state);
        self.arrival.notify_one();
        Put::Waits
    }

    /// All that waits, in order.
    ///
    /// # Errors
    /// When something was lost since the last time; the queue works again after that.
    pub(super) fn take(&self) -> Result<VecDeque<T>, Overflow> {
        let mut state = self.state();
        state.bytes = 0;
        if std::mem::take(&mut state.has_overflowed) {
            return Err(Overflow);
        }
        Ok(std::mem::take(&mut state.waiting))
    }

    /// Waits until there is something to take. May be cancelled.
    pub(super) async fn ready(&self) {
        loop {
            {
                let state = self.state();
                if !state.waiting.is_empty() || state.has_overflowed {
                    return;
                }
            }
            self.arrival.notified().await;
        }
    }

    /// Waits until too much has come. May be cancelled.
    pub(super) async fn overflowed(&self) {
        loop {
            if self.state().has_overflowed {
                return;
            }
            self.overflow.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_taken_in_order() {
        let queue = Queue::new(1_000);
        for item in 1..=3 {
            assert_eq!(queue.put(item, 100), Put::Waits);
        }

        queue.ready().await;

        assert_eq!(queue.take().unwrap(), [1, 2, 3]);
        assert!(queue.take().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_slow_receiver_is_told_once_and_goes_on() {
        let queue = Queue::new(300);
        let puts: Vec<_> = (1..=4).map(|item| queue.put(item, 100)).collect();
        assert_eq!(puts, [Put::Waits, Put::Overflowed, Put::Lost, Put::Lost]);

        queue.overflowed().await;
        queue.ready().await;

        assert_eq!(queue.take(), Err(Overflow));
        assert_eq!(queue.put(5, 100), Put::Waits);
        assert_eq!(queue.take().unwrap(), [5]);
    }

    #[test]
    fn something_large_passes_alone() {
        let queue = Queue::new(10);

        assert_eq!(queue.put("large", 1_000), Put::Waits);
        assert_eq!(queue.put("small", 1), Put::Overflowed);
    }
}
