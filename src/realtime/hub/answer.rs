//! What the server says about a channel, in either version of the protocol.

use axum::extract::ws::Message as Outgoing;
use serde_json::{Value, json};

use super::frame::Reference;
use super::version::Version;

/// A frame of the server that is about a channel, or about the connection.
pub(super) struct Answer<'a> {
    pub(super) version: Version,
    /// `realtime:` and the bare topic, or `phoenix`.
    pub(super) topic: &'a str,
    pub(super) join_ref: &'a Reference,
}

impl Answer<'_> {
    /// That something was done.
    pub(super) fn ok(&self, reference: &Reference, response: &Value) -> Outgoing {
        self.frame(reference, "phx_reply", &json!({ "status": "ok", "response": response }))
    }

    /// That something was not done, and why.
    pub(super) fn error(&self, reference: &Reference, reason: &str) -> Outgoing {
        let payload = json!({ "status": "error", "response": { "reason": reason } });
        self.frame(reference, "phx_reply", &payload)
    }

    /// What a person should read. Clients do not act on it.
    pub(super) fn system(&self, extension: &str, message: &str) -> Outgoing {
        let channel = self.topic.split_once(':').map_or(self.topic, |(_, bare)| bare);
        let payload = json!({
            "extension": extension,
            "status": "error",
            "message": message,
            "channel": channel,
        });
        self.frame(&Reference::null(), "system", &payload)
    }

    /// That nobody is present: who is, is not told here.
    pub(super) fn nobody(&self) -> Outgoing {
        self.frame(&Reference::null(), "presence_state", &json!({}))
    }

    /// That the channel is closed. Clients do not join again by themselves.
    pub(super) fn close(&self) -> Outgoing {
        self.frame(self.join_ref, "phx_close", &json!({}))
    }

    fn frame(&self, reference: &Reference, event: &str, payload: &Value) -> Outgoing {
        let topic = Value::from(self.topic);
        let (join_ref, reference) = (self.join_ref.as_json(), reference.as_json());
        let text = match self.version {
            Version::One => format!(
                r#"{{"event":"{event}","payload":{payload},"ref":{reference},"topic":{topic}}}"#
            ),
            Version::Two => {
                format!(r#"[{join_ref},{reference},{topic},"{event}",{payload}]"#)
            }
        };
        Outgoing::text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::hub::frame::Frame;

    fn text(version: Version, make: impl Fn(&Answer<'_>, &Reference) -> Outgoing) -> String {
        let frame = r#"["8","9","realtime:run:1","phx_join",{}]"#;
        let frame = Frame::read_text(Version::Two, frame).unwrap();
        let answer = Answer { version, topic: &frame.topic, join_ref: &frame.join_ref };
        make(&answer, &frame.reference).into_text().unwrap().to_string()
    }

    #[test]
    fn answers_are_the_frames_that_clients_know() {
        let ok = |it: &Answer<'_>, reference: &Reference| {
            it.ok(reference, &json!({ "postgres_changes": [] }))
        };
        assert_eq!(
            text(Version::Two, ok),
            r#"["8","9","realtime:run:1","phx_reply",{"response":{"postgres_changes":[]},"status":"ok"}]"#
        );
        assert_eq!(
            text(Version::One, ok),
            r#"{"event":"phx_reply","payload":{"response":{"postgres_changes":[]},"status":"ok"},"ref":"9","topic":"realtime:run:1"}"#
        );
        assert_eq!(
            text(Version::Two, |it, _| it.close()),
            r#"["8","8","realtime:run:1","phx_close",{}]"#
        );
        assert_eq!(
            text(Version::Two, |it, _| it.system("system", "Too \"much\"")),
            r#"["8",null,"realtime:run:1","system",{"channel":"run:1","extension":"system","message":"Too \"much\"","status":"error"}]"#
        );
    }
}
