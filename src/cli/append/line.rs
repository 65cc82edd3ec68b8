//! A line of NDJSON: what it says, or what is wrong with it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The largest payload or metadata that the database takes, in bytes.
const LARGEST_VALUE: usize = 1 << 20;

/// A good line: the run it belongs to, and the event as an element for `append_events`.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) project_id: Uuid,
    pub(super) run_id: Uuid,
    pub(super) expected_version: Option<i32>,
    pub(super) element: String,
}

/// What lines that do not say so belong to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Defaults {
    pub(super) project_id: Option<Uuid>,
    pub(super) run_id: Option<Uuid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    project_id: Option<Uuid>,
    run_id: Option<Uuid>,
    expected_version: Option<i32>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    event_id: Option<Uuid>,
    #[serde(borrow)]
    recorded_at: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Element<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_at: Option<&'a str>,
}

impl Line {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(super) fn parse(number: u64, text: &[u8], defaults: Defaults) -> Result<Self, String> {
        let text = std::str::from_utf8(text)
            .map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
        let fields: Fields<'_> =
            serde_json::from_str(text).map_err(|error| not_an_event(&error))?;
        let project_id =
            fields.project_id.or(defaults.project_id).ok_or("`project_id` is missing")?;
        let run_id = fields.run_id.or(defaults.run_id).ok_or("`run_id` is missing")?;
        let kind = fields.kind.ok_or("`type` is missing")?;
        if kind.is_empty() {
            return Err("`type` must not be empty".to_owned());
        }
        check_object("payload", fields.payload)?;
        check_object("metadata", fields.metadata)?;
        if fields.expected_version.is_some_and(|it| it < 0) {
            return Err("`expected_version` must be 0 or more".to_owned());
        }
        let element = Element {
            kind: &kind,
            payload: fields.payload,
            metadata: fields.metadata,
            event_id: fields.event_id,
            recorded_at: fields.recorded_at.as_deref(),
        };
        let element = serde_json::to_string(&element).map_err(|error| error.to_string())?;
        let expected_version = fields.expected_version;
        Ok(Self { number, project_id, run_id, expected_version, element })
    }
}

fn check_object(field: &str, value: Option<&RawValue>) -> Result<(), String> {
    let Some(value) = value.map(RawValue::get) else { return Ok(()) };
    if !value.starts_with('{') {
        return Err(format!("`{field}` must be an object"));
    }
    // The server measures the value without its white space, so only what is far too long is sure
    // to be refused; the server judges the rest.
    if 8 * LARGEST_VALUE < value.len() {
        return Err(format!("`{field}` is larger than 1 MiB"));
    }
    Ok(())
}

/// serde says `… at line 1 column 7`, but the line is known better here.
fn not_an_event(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let what = said.split(" at line ").next().unwrap_or(&said);
    let kind = if error.is_data() { "not an event" } else { "not JSON" };
    format!("{kind}: {what}, at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10";

    fn defaults() -> Defaults {
        let id = Some(RUN.parse().unwrap());
        Defaults { project_id: id, run_id: id }
    }

    #[test]
    fn a_line_keeps_its_payload_as_it_is_written() {
        let text = br#"{"type": "log", "payload": {"n": 1.0000000000000000001, "a": "\u00e4"}}"#;

        let line = Line::parse(1, text, defaults()).unwrap();

        let element = r#"{"type":"log","payload":{"n": 1.0000000000000000001, "a": "\u00e4"}}"#;
        assert_eq!(line.element, element);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        let said = |text: &[u8]| Line::parse(1, text, defaults()).unwrap_err();

        assert_eq!(said(b"{\"type\": "), "not JSON: EOF while parsing a value, at column 9");
        assert_eq!(said(b"{}"), "`type` is missing");
        assert_eq!(said(br#"{"type": ""}"#), "`type` must not be empty");
        assert_eq!(said(br#"{"type": "a", "payload": 1}"#), "`payload` must be an object");
        assert!(said(br#"{"typ": "a"}"#).starts_with("not an event: unknown field `typ`"));
        assert!(said(b"\xff").starts_with("not UTF-8"));
        let alone = Line::parse(1, br#"{"type": "a"}"#, Defaults::default());
        assert_eq!(alone.unwrap_err(), "`project_id` is missing");
    }
}
