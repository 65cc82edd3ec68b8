//! A broadcast on its way to many: written once for each version of the protocol, then shared.

use std::cell::OnceCell;

use axum::extract::ws::Message as Outgoing;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::frame::Payload;
use super::version::Version;
use crate::realtime::Message;

/// Before the bare topic, on the wire.
pub(super) const PREFIX: &str = "realtime:";

/// The first byte of a binary broadcast of the server.
const BROADCAST: u8 = 4;

/// What lengths in a binary frame can say.
pub(super) const LONGEST_NAME: usize = u8::MAX as usize;

/// A broadcast to everybody who joined a topic.
pub(super) struct Cast<'a> {
    /// The bare topic.
    pub(super) topic: &'a str,
    /// Whether it is for those who joined the topic as a private channel, or for the others.
    pub(super) private: bool,
    event: &'a str,
    content: Content<'a>,
    first: OnceCell<Option<Outgoing>>,
    second: OnceCell<Option<Outgoing>>,
}

enum Content<'a> {
    /// Text for both versions, as Supabase's batch endpoint sends.
    Text { payload: &'a str, id: Option<&'a str>, message: Option<&'a Message> },
    /// A binary frame for the second version, as its single endpoint and its clients send.
    Frame(&'a Payload),
}

impl<'a> Cast<'a> {
    /// One in text, with an id if it has one.
    pub(super) fn text(
        topic: &'a str,
        event: &'a str,
        private: bool,
        payload: &'a RawValue,
        id: Option<&'a str>,
    ) -> Self {
        let content = Content::Text { payload: payload.get(), id, message: None };
        Self::new(topic, event, private, content)
    }

    /// A message of projector; `id` is its id as text.
    pub(super) fn message(message: &'a Message, id: &'a str) -> Self {
        let content =
            Content::Text { payload: &message.payload, id: Some(id), message: Some(message) };
        Self::new(&message.topic, &message.event, message.private, content)
    }

    /// One in a binary frame. Topic (with its prefix) and event are no longer than a byte can say.
    pub(super) fn frame(
        topic: &'a str,
        event: &'a str,
        private: bool,
        payload: &'a Payload,
    ) -> Self {
        Self::new(topic, event, private, Content::Frame(payload))
    }

    fn new(topic: &'a str, event: &'a str, private: bool, content: Content<'a>) -> Self {
        let (first, second) = (OnceCell::new(), OnceCell::new());
        Self { topic, private, event, content, first, second }
    }

    /// What a client of this version is sent; nothing if that version cannot say it.
    pub(super) fn outgoing(&self, version: Version) -> Option<Outgoing> {
        let cell = match version {
            Version::One => &self.first,
            Version::Two => &self.second,
        };
        cell.get_or_init(|| self.write(version)).clone()
    }

    /// The same for those who watch within the process; nothing if it was not projector's.
    pub(super) fn original(&self) -> Option<&'a Message> {
        match self.content {
            Content::Text { message, .. } => message,
            Content::Frame(_) => None,
        }
    }

    fn write(&self, version: Version) -> Option<Outgoing> {
        match (&self.content, version) {
            (Content::Text { payload, id, .. }, _) => Some(self.write_text(version, payload, *id)),
            (Content::Frame(Payload::Json(json)), Version::One) => {
                Some(self.write_text(version, json, None))
            }
            (Content::Frame(Payload::Binary(_)), Version::One) => None,
            (Content::Frame(Payload::Json(json)), Version::Two) => {
                self.write_binary(1, json.as_bytes())
            }
            (Content::Frame(Payload::Binary(bytes)), Version::Two) => self.write_binary(0, bytes),
        }
    }

    fn write_text(&self, version: Version, payload: &str, id: Option<&str>) -> Outgoing {
        let topic = quoted(&format!("{PREFIX}{}", self.topic));
        let event = quoted(self.event);
        let meta = id.map_or_else(String::new, |id| format!(r#","meta":{{"id":{}}}"#, quoted(id)));
        let body = format!(r#"{{"event":{event},"payload":{payload},"type":"broadcast"{meta}}}"#);
        let text = match version {
            Version::One => {
                format!(r#"{{"event":"broadcast","payload":{body},"ref":null,"topic":{topic}}}"#)
            }
            Version::Two => format!(r#"[null,null,{topic},"broadcast",{body}]"#),
        };
        Outgoing::text(text)
    }

    fn write_binary(&self, encoding: u8, payload: &[u8]) -> Option<Outgoing> {
        let topic_length = u8::try_from(PREFIX.len() + self.topic.len()).ok()?;
        let event_length = u8::try_from(self.event.len()).ok()?;
        let names = usize::from(topic_length) + usize::from(event_length);
        let mut bytes = Vec::with_capacity(5 + names + payload.len());
        bytes.extend([BROADCAST, topic_length, event_length, 0, encoding]);
        bytes.extend_from_slice(PREFIX.as_bytes());
        bytes.extend_from_slice(self.topic.as_bytes());
        bytes.extend_from_slice(self.event.as_bytes());
        bytes.extend_from_slice(payload);
        Some(Outgoing::Binary(Bytes::from(bytes)))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_message_is_written_once_and_shared() {
        let message = Message {
            topic: Arc::from("run:1"),
            event: Arc::from("log"),
            private: true,
            id: Uuid::nil(),
            payload: Arc::from(r#"{"seq":1}"#),
        };
        let id = message.id.to_string();
        let cast = Cast::message(&message, &id);

        let text = |version| cast.outgoing(version).unwrap().into_text().unwrap();

        let (one, again) = (text(Version::Two), text(Version::Two));
        assert_eq!(one.as_str().as_ptr(), again.as_str().as_ptr());
        assert_eq!(
            one.as_str(),
            r#"[null,null,"realtime:run:1","broadcast",{"event":"log","payload":{"seq":1},"type":"broadcast","meta":{"id":"00000000-0000-0000-0000-000000000000"}}]"#
        );
        assert_eq!(
            text(Version::One).as_str(),
            r#"{"event":"broadcast","payload":{"event":"log","payload":{"seq":1},"type":"broadcast","meta":{"id":"00000000-0000-0000-0000-000000000000"}},"ref":null,"topic":"realtime:run:1"}"#
        );
    }

    #[test]
    fn bytes_go_to_the_second_version_only() {
        let payload = Payload::Binary(Bytes::from_static(&[0xca, 0xfe]));
        let cast = Cast::frame("run:1", "blob", false, &payload);

        assert_eq!(cast.outgoing(Version::One), None);
        let bytes = cast.outgoing(Version::Two).unwrap().into_data();
        assert_eq!(&bytes[..5], &[4, 14, 4, 0, 0]);
        assert_eq!(&bytes[5..], b"realtime:run:1blob\xca\xfe");
    }
}
