//! What clients send: the frames of Phoenix channels, version 1.0.0 and 2.0.0, and realtime-js' own
//! binary one.
//!
//! | version | text | binary |
//! |---|---|---|
//! | 1.0.0 | `{"topic", "event", "payload", "ref", "join_ref"}` | none |
//! | 2.0.0 | `[join_ref, ref, topic, event, payload]` | kind 3, a broadcast |
//!
//! Kind 3 is `03`, then one byte each for the lengths of `join_ref`, `ref`, topic, event and metadata,
//! a byte that says whether the payload is JSON (1) or not (0), then all of them and the payload.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::version::Version;

/// References are counters; a longer one is not worth keeping.
const LONGEST_REFERENCE: usize = 64;

/// The first byte of the only binary frame there is.
const PUSH: u8 = 3;

/// One frame of a client.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// The `ref` of the join that the channel was opened with.
    pub(super) join_ref: Reference,
    /// What an answer repeats.
    pub(super) reference: Reference,
    /// `realtime:` and the bare topic, or `phoenix`.
    pub(super) topic: String,
    /// What is asked for.
    pub(super) body: Body,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    /// An event of the protocol with its payload, a JSON text.
    Text { event: String, payload: Box<str> },
    /// A broadcast to the channel.
    Push { event: String, payload: Payload },
}

/// What a broadcast carries.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Payload {
    /// A JSON text.
    Json(Box<str>),
    /// Anything.
    Binary(Bytes),
}

/// A reference as the client wrote it, a JSON string, number or `null`, and as it is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference(Box<str>);

/// Why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame: {0}")]
pub(super) struct Malformed(&'static str);

impl Reference {
    /// No reference.
    pub(super) fn null() -> Self {
        Self("null".into())
    }

    /// In JSON.
    pub(super) fn as_json(&self) -> &str {
        &self.0
    }

    fn read(raw: Option<&RawValue>) -> Result<Self, Malformed> {
        let Some(raw) = raw else { return Ok(Self::null()) };
        let text = raw.get();
        let is_plain = !text.starts_with(['{', '[']);
        if is_plain && text.len() <= LONGEST_REFERENCE {
            Ok(Self(text.into()))
        } else {
            Err(Malformed("a reference is a short string or a number"))
        }
    }

    fn read_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(Self::null());
        }
        let text = serde_json::to_string(utf8(bytes)?).map_err(|_| Malformed("a reference"))?;
        if text.len() <= LONGEST_REFERENCE {
            Ok(Self(text.into()))
        } else {
            Err(Malformed("a reference is a short string or a number"))
        }
    }
}

#[derive(Deserialize)]
struct First<'a> {
    topic: String,
    event: String,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(rename = "ref", borrow, default)]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    join_ref: Option<&'a RawValue>,
}

impl Frame {
    /// Reads a text frame.
    pub(super) fn read_text(version: Version, text: &str) -> Result<Self, Malformed> {
        let refused = |_| Malformed("not what this version of the protocol has");
        let (join_ref, reference, topic, event, payload) = match version {
            Version::One => {
                let it: First<'_> = serde_json::from_str(text).map_err(refused)?;
                (it.join_ref, it.reference, it.topic, it.event, it.payload)
            }
            Version::Two => {
                type Second<'a> = (
                    Option<&'a RawValue>,
                    Option<&'a RawValue>,
                    String,
                    String,
                    Option<&'a RawValue>,
                );
                serde_json::from_str::<Second<'_>>(text).map_err(refused)?
            }
        };
        let payload = payload.map_or("{}", RawValue::get).into();
        Ok(Self {
            join_ref: Reference::read(join_ref)?,
            reference: Reference::read(reference)?,
            topic,
            body: Body::Text { event, payload },
        })
    }

    /// Reads a binary frame.
    pub(super) fn read_binary(version: Version, bytes: &Bytes) -> Result<Self, Malformed> {
        if version == Version::One {
            return Err(Malformed("version 1.0.0 has no binary frames"));
        }
        let Some((head, rest)) = bytes.split_first_chunk::<7>() else {
            return Err(Malformed("too short"));
        };
        let [kind, lengths @ .., encoding] = *head;
        if kind != PUSH {
            return Err(Malformed("unknown kind of binary frame"));
        }
        let mut rest = rest;
        let mut take = |length: u8| {
            let parts = rest.split_at_checked(usize::from(length));
            let (part, after) = parts.ok_or(Malformed("shorter than its lengths"))?;
            rest = after;
            Ok::<_, Malformed>(part)
        };
        let [join_ref, reference, topic, event, metadata] = lengths;
        let (join_ref, reference) = (take(join_ref)?, take(reference)?);
        let (topic, event, _metadata) = (take(topic)?, take(event)?, take(metadata)?);
        let payload = match encoding {
            0 => Payload::Binary(bytes.slice_ref(rest)),
            1 => Payload::Json(json(rest)?.get().into()),
            _ => return Err(Malformed("unknown encoding of a payload")),
        };
        Ok(Self {
            join_ref: Reference::read_bytes(join_ref)?,
            reference: Reference::read_bytes(reference)?,
            topic: utf8(topic)?.to_owned(),
            body: Body::Push { event: utf8(event)?.to_owned(), payload },
        })
    }
}

fn json(bytes: &[u8]) -> Result<&RawValue, Malformed> {
    serde_json::from_slice(bytes).map_err(|_| Malformed("the payload is no JSON"))
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(parts: [&str; 5], encoding: u8, payload: &[u8]) -> Bytes {
        let mut bytes = vec![PUSH];
        bytes.extend(parts.map(|it| u8::try_from(it.len()).unwrap()));
        bytes.push(encoding);
        parts.iter().for_each(|it| bytes.extend(it.as_bytes()));
        bytes.extend(payload);
        bytes.into()
    }

    #[test]
    fn both_versions_say_the_same() {
        let one = r#"{"topic":"realtime:a","event":"phx_join","payload":{"x":1},"ref":"6","join_ref":"6"}"#;
        let two = r#"["6","6","realtime:a","phx_join",{"x":1}]"#;

        let one = Frame::read_text(Version::One, one).unwrap();

        assert_eq!(one, Frame::read_text(Version::Two, two).unwrap());
        assert_eq!(one.reference.as_json(), "\"6\"");
        let Body::Text { event, payload } = one.body else { panic!("a text") };
        assert_eq!((event.as_str(), &*payload), ("phx_join", r#"{"x":1}"#));
    }

    #[test]
    fn a_binary_broadcast_is_taken_apart() {
        let bytes = push(["8", "9", "realtime:a", "cursor", ""], 1, br#"{"x":1}"#);

        let frame = Frame::read_binary(Version::Two, &bytes).unwrap();

        assert_eq!((frame.join_ref.as_json(), frame.reference.as_json()), ("\"8\"", "\"9\""));
        assert_eq!(frame.topic, "realtime:a");
        let payload = Payload::Json(r#"{"x":1}"#.into());
        assert_eq!(frame.body, Body::Push { event: "cursor".into(), payload });
    }

    #[test]
    fn references_are_repeated_as_they_came_if_they_are_short() {
        let read =
            |it: &str| Frame::read_text(Version::Two, &format!("[null,{it},\"t\",\"e\",{{}}]"));

        for plain in ["null", "7", "\"7\"", "\"\\u0041\""] {
            assert_eq!(read(plain).unwrap().reference.as_json(), plain);
        }
        for odd in ["{}", "[1]", &format!("\"{}\"", "x".repeat(64))] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_frame_or_is_refused(text: String, version: bool) {
            let version = if version { Version::One } else { Version::Two };
            drop(Frame::read_text(version, &text));
        }

        #[test]
        fn anything_in_the_places_of_a_frame_is_read_or_refused(
            parts in proptest::collection::vec(".{0,20}", 0..8),
        ) {
            drop(Frame::read_text(Version::Two, &format!("[{}]", parts.join(","))));
            let text = serde_json::to_string(&parts).unwrap();
            drop(Frame::read_text(Version::Two, &text));
        }

        #[test]
        fn any_bytes_are_a_frame_or_are_refused(mut bytes: Vec<u8>, is_push: bool) {
            if is_push && let Some(first) = bytes.first_mut() {
                *first = PUSH;
            }
            drop(Frame::read_binary(Version::Two, &bytes.into()));
        }

        #[test]
        fn a_binary_broadcast_comes_back_as_it_was_made(
            topic in ".{0,20}", event in ".{0,20}", payload: Vec<u8>,
        ) {
            let bytes = push(["1", "2", &topic, &event, "{}"], 0, &payload);
            let frame = Frame::read_binary(Version::Two, &bytes).unwrap();
            prop_assert_eq!(frame.topic, topic);
            let payload = Payload::Binary(payload.into());
            prop_assert_eq!(frame.body, Body::Push { event, payload });
        }
    }
}
