//! Listening within the process, as the console does.

use std::collections::VecDeque;
use std::sync::Arc;

use super::queue::{Overflow, Queue};
use super::server::Hub;
use super::topics::Listener;
use crate::realtime::Message;

/// What somebody who watches receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The next message of the topic.
    Message(Message),
    /// Some were lost, since they were not taken in time. What the tables hold is not affected.
    Missed,
}

/// Listens to a topic until it is dropped.
#[derive(Debug)]
pub struct Watch {
    hub: Hub,
    topic: Arc<str>,
    private: bool,
    queue: Arc<Queue<Message>>,
    taken: VecDeque<Message>,
}

impl Watch {
    pub(super) fn new(hub: Hub, topic: &str, private: bool, limit: usize) -> Self {
        let (topic, queue) = (Arc::<str>::from(topic), Arc::new(Queue::new(limit)));
        hub.topics().add(Arc::clone(&topic), private, Listener::Watch(Arc::clone(&queue)));
        Self { hub, topic, private, queue, taken: VecDeque::new() }
    }

    /// Waits for the next. May be cancelled without a loss. Never ends while the process lives.
    pub async fn next(&mut self) -> Watched {
        loop {
            if let Some(message) = self.taken.pop_front() {
                return Watched::Message(message);
            }
            self.queue.ready().await;
            match self.queue.take() {
                Ok(taken) => self.taken = taken,
                Err(Overflow) => return Watched::Missed,
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hub.topics().remove(
            Arc::clone(&self.topic),
            self.private,
            |it| matches!(it, Listener::Watch(queue) if Arc::ptr_eq(queue, &self.queue)),
        );
    }
}
