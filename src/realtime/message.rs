//! What is sent to the viewers of a topic.

use std::sync::Arc;

use uuid::Uuid;

/// One broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The bare topic, `run:<uuid>`: without the `realtime:` that clients put before it. At most 246
    /// bytes, since binary frames have one byte for the length of `realtime:` and this.
    pub topic: Arc<str>,
    /// The event's name, by which clients subscribe. At most 255 bytes.
    pub event: Arc<str>,
    /// Whether only those receive it who joined the topic as a private channel.
    pub private: bool,
    /// Identifies the message, the same each time it is sent; clients find it in `meta.id`.
    pub id: Uuid,
    /// A JSON object.
    pub payload: Arc<str>,
}

impl Message {
    /// One that is surely in order, to a topic that nobody joins.
    pub(super) fn canary(private: bool) -> Self {
        Self {
            topic: "projector:canary".into(),
            event: "canary".into(),
            private,
            id: Uuid::nil(),
            payload: "{}".into(),
        }
    }
}
