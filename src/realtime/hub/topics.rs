//! Who listens to what.
//!
//! Public and private listeners of a topic are apart, as if they were of two topics. The list of a
//! topic is shared with those who send to it and copied only when it changes meanwhile: the lock is
//! held for a look-up, not for a delivery.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Message as Outgoing;

use super::cast::Cast;
use super::queue::{Put, Queue};
use super::version::Version;
use crate::realtime::Message;

/// Parts with a lock each, so that topics seldom meet. A power of two.
const SHARDS: usize = 16;

/// All topics that somebody listens to.
#[derive(Debug)]
pub(super) struct Topics {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

type Shard = HashMap<Key, Arc<Vec<Listener>>>;

/// A topic, and whether its private side is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    topic: Arc<str>,
    private: bool,
}

/// Somebody who listens.
#[derive(Clone, Debug)]
pub(super) enum Listener {
    /// A channel of a socket.
    Channel(Channel),
    /// Somebody in this process.
    Watch(Arc<Queue<Message>>),
}

/// A channel of a socket, as those see it who send to it.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    /// What waits for the socket.
    pub(super) queue: Arc<Queue<Delivery>>,
    /// The socket's version.
    pub(super) version: Version,
    /// Which of the socket's channels.
    pub(super) number: u64,
}

/// A frame for a channel. It is sent only if that channel is still open by then.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) channel: u64,
    pub(super) frame: Outgoing,
}

/// What became of a broadcast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// For how many it waits now.
    pub(super) deliveries: u64,
    /// How many were too slow.
    pub(super) overflows: u64,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.overflows += other.overflows;
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: Default::default() }
    }
}

impl Topics {
    /// Adds somebody to a topic.
    pub(super) fn add(&self, topic: Arc<str>, private: bool, listener: Listener) {
        let key = Key { topic, private };
        Arc::make_mut(self.shard(&key).entry(key.clone()).or_default()).push(listener);
    }

    /// Takes somebody away.
    pub(super) fn remove(
        &self,
        topic: Arc<str>,
        private: bool,
        is_meant: impl Fn(&Listener) -> bool,
    ) {
        let key = Key { topic, private };
        let mut shard = self.shard(&key);
        let Some(listeners) = shard.get_mut(&key) else { return };
        let listeners = Arc::make_mut(listeners);
        listeners.retain(|it| !is_meant(it));
        if listeners.is_empty() {
            shard.remove(&key);
        }
    }

    /// Puts a broadcast into the queue of everybody who listens, but not into that of `sender`.
    pub(super) fn send(&self, cast: &Cast<'_>, sender: Option<&Arc<Queue<Delivery>>>) -> Sent {
        let key = Key { topic: Arc::from(cast.topic), private: cast.private };
        let found = self.shard(&key).get(&key).cloned();
        let mut sent = Sent::default();
        for listener in found.iter().flat_map(|it| it.iter()) {
            let put = match listener {
                Listener::Channel(it) => {
                    if sender.is_some_and(|sender| Arc::ptr_eq(sender, &it.queue)) {
                        continue;
                    }
                    let Some(frame) = cast.outgoing(it.version) else { continue };
                    let bytes = length(&frame);
                    it.queue.put(Delivery { channel: it.number, frame }, bytes)
                }
                Listener::Watch(queue) => {
                    let Some(message) = cast.original() else { continue };
                    queue.put(message.clone(), message.payload.len())
                }
            };
            match put {
                Put::Waits => sent.deliveries += 1,
                Put::Overflowed => sent.overflows += 1,
                Put::Lost => {}
            }
        }
        sent
    }

    /// How many topics somebody listens to.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|it| it.lock().unwrap().len()).sum()
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        #[expect(clippy::cast_possible_truncation, reason = "the rest of a division by few")]
        let index = (hash % SHARDS as u64) as usize;
        let shard = self.shards.get(index).expect("the rest is less than their number");
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn length(frame: &Outgoing) -> usize {
    match frame {
        Outgoing::Text(text) => text.len(),
        Outgoing::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::hub::frame::Payload;

    fn channel(version: Version, number: u64) -> Channel {
        Channel { queue: Arc::new(Queue::new(10_000)), version, number }
    }

    #[test]
    fn public_and_private_do_not_hear_each_other() {
        let topics = Topics::default();
        let (open, closed) = (channel(Version::Two, 1), channel(Version::Two, 2));
        topics.add("run:1".into(), false, Listener::Channel(open.clone()));
        topics.add("run:1".into(), true, Listener::Channel(closed.clone()));
        let payload = Payload::Json("{}".into());

        let sent = topics.send(&Cast::frame("run:1", "log", true, &payload), None);

        assert_eq!(sent, Sent { deliveries: 1, overflows: 0 });
        assert!(open.queue.take().unwrap().is_empty());
        assert_eq!(closed.queue.take().unwrap().len(), 1);
    }

    #[test]
    fn who_left_hears_nothing_and_leaves_nothing() {
        let topics = Topics::default();
        let it = channel(Version::One, 1);
        topics.add("run:1".into(), true, Listener::Channel(it.clone()));

        topics.remove("run:1".into(), true, |listener| {
            matches!(listener, Listener::Channel(other) if Arc::ptr_eq(&other.queue, &it.queue))
        });

        let payload = Payload::Json("{}".into());
        let sent = topics.send(&Cast::frame("run:1", "log", true, &payload), None);
        assert_eq!(sent, Sent::default());
        assert_eq!(topics.len(), 0);
    }

    #[test]
    fn a_sender_does_not_hear_itself() {
        let topics = Topics::default();
        let (one, other) = (channel(Version::Two, 1), channel(Version::One, 1));
        topics.add("chat".into(), false, Listener::Channel(one.clone()));
        topics.add("chat".into(), false, Listener::Channel(other.clone()));
        let payload = Payload::Json("{}".into());

        topics.send(&Cast::frame("chat", "say", false, &payload), Some(&one.queue));

        assert!(one.queue.take().unwrap().is_empty());
        assert_eq!(other.queue.take().unwrap().len(), 1);
    }
}
