//! What requests may ask for, read from their addresses.

use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use serde::Deserialize;
use uuid::Uuid;

use super::error::ApiError;
use crate::config::Period;
use crate::definition::parse_time;
use crate::lsn::Lsn;
use crate::replay::run::Until;

/// How long a request waits for a projection that does not say; and how long it may.
const WAIT: Duration = Duration::from_secs(5);
const WAIT_LONGEST: Duration = Duration::from_secs(9);

/// The largest page.
const MOST: i64 = 1_000;

/// The query of `/api/runs`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    status: Option<String>,
    workflow: Option<String>,
    project: Option<String>,
    q: Option<String>,
    before: Option<String>,
    limit: Option<String>,
}

/// Which runs are asked for.
#[derive(Debug, PartialEq)]
pub(super) struct RunsFilter {
    pub(super) status: Option<String>,
    pub(super) workflow: Option<String>,
    pub(super) project: Option<Uuid>,
    pub(super) search: Option<Search>,
    pub(super) before: Option<Cursor>,
    pub(super) limit: i64,
}

/// What runs are searched for.
#[derive(Debug, PartialEq)]
pub(super) struct Search {
    /// The first and the last id that begin with it, where it can be the beginning of one.
    pub(super) ids: Option<(Uuid, Uuid)>,
    /// In the workflow's name or the error, in small letters; not where it can only be an id.
    pub(super) text: Option<String>,
}

/// As many hexadecimal digits are an id, and no word.
const SURELY_AN_ID: usize = 8;

impl Search {
    fn read(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|it| *it != '-').collect();
        let is_hex = !digits.is_empty() && digits.chars().all(|it| it.is_ascii_hexdigit());
        let end = |filling: char| {
            let filled: String =
                digits.chars().chain(std::iter::repeat(filling)).take(32).collect();
            Uuid::try_parse(&filled).ok()
        };
        let ids = if is_hex && digits.len() <= 32 { end('0').zip(end('f')) } else { None };
        let is_id = ids.is_some() && SURELY_AN_ID <= digits.len();
        let text = (!is_id && !text.is_empty()).then(|| text.to_lowercase());
        (ids.is_some() || text.is_some()).then_some(Self { ids, text })
    }
}

/// The query of `/api/runs/counts`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CountsQuery {
    project: Option<String>,
}

impl CountsQuery {
    pub(super) fn read(
        query: Result<Query<Self>, QueryRejection>,
    ) -> Result<Option<Uuid>, ApiError> {
        let Query(query) = query.map_err(|it| ApiError::bad_query(it.body_text(), "project"))?;
        query.project.filter(|it| !it.is_empty()).map(|it| uuid("project", &it)).transpose()
    }
}

/// The query of `/api/live`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LiveQuery {
    topic: Option<String>,
}

/// What somebody listens to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Topics {
    pub(super) run: Option<Uuid>,
    pub(super) runs: bool,
    pub(super) status: bool,
}

impl LiveQuery {
    pub(super) fn read(query: Result<Query<Self>, QueryRejection>) -> Result<Topics, ApiError> {
        let Query(query) = query.map_err(|it| ApiError::bad_query(it.body_text(), "topic"))?;
        let text = query.topic.unwrap_or_default();
        let mut topics = Topics::default();
        for topic in text.split(',') {
            match (topic, topic.strip_prefix("run:")) {
                ("runs", _) => topics.runs = true,
                ("status", _) => topics.status = true,
                (_, Some(id)) if topics.run.is_none() => topics.run = Some(uuid("topic", id)?),
                _ => {
                    let expected = "`runs`, `status`, one `run:{id}`, or several with commas";
                    return Err(ApiError::bad_parameter("topic", topic, expected));
                }
            }
        }
        Ok(topics)
    }
}

/// The version that a client has got, which it tells when it comes back.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<i32>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    version("Last-Event-ID", &text).map(Some)
}

/// The query of `/api/runs/{id}/log`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    after: Option<String>,
    limit: Option<String>,
}

/// The query of `/api/runs/{id}/state`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateQuery {
    version: Option<String>,
    until: Option<String>,
    projection: Option<String>,
    project: Option<String>,
    diff: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

/// Which moment of a run is asked for, and how much of it.
#[derive(Debug)]
pub(super) struct StateFilter {
    pub(super) until: Until,
    pub(super) projection: Option<String>,
    pub(super) project: Option<Uuid>,
    /// Step by step, after this version.
    pub(super) diff: Option<i32>,
    /// The most steps, or the most rows of a projection.
    pub(super) limit: i64,
}

impl StateFilter {
    pub(super) fn read(query: Result<Query<StateQuery>, QueryRejection>) -> Result<Self, ApiError> {
        let known = "version, until, projection, project, diff, after, limit";
        let Query(query) = query.map_err(|it| ApiError::bad_query(it.body_text(), known))?;
        let given = |it: Option<String>| it.filter(|it| !it.is_empty());
        let until = match (given(query.version), given(query.until)) {
            (None, None) => Until::End,
            (Some(text), None) => Until::Version(version("version", &text)?),
            (None, Some(text)) => Until::Time(parse_time(&text).ok_or_else(|| {
                ApiError::bad_parameter("until", &text, "a time like 2026-11-23T09:00:00Z")
            })?),
            (Some(_), Some(text)) => {
                return Err(ApiError::bad_parameter("until", &text, "nothing beside `version`"));
            }
        };
        let after = given(query.after).map_or(Ok(0), |it| version("after", &it))?;
        let diff = match query.diff.as_deref() {
            None | Some("" | "0" | "false") => None,
            Some("1" | "true") => Some(after),
            Some(text) => return Err(ApiError::bad_parameter("diff", text, "1, or nothing")),
        };
        Ok(Self {
            until,
            projection: given(query.projection),
            project: given(query.project).map(|it| uuid("project", &it)).transpose()?,
            diff,
            limit: limit(query.limit.as_deref(), if diff.is_some() { 200 } else { MOST })?,
        })
    }
}

/// The query of `/api/tables/{table}/explain`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    key: Option<String>,
    project: Option<String>,
    limit: Option<String>,
}

/// Which row is asked for.
#[derive(Debug)]
pub(super) struct ExplainFilter {
    pub(super) key: String,
    pub(super) project: Option<Uuid>,
    pub(super) limit: i64,
}

impl ExplainFilter {
    pub(super) fn read(
        query: Result<Query<ExplainQuery>, QueryRejection>,
    ) -> Result<Self, ApiError> {
        let Query(query) =
            query.map_err(|it| ApiError::bad_query(it.body_text(), "key, project, limit"))?;
        let project = query.project.filter(|it| !it.is_empty());
        Ok(Self {
            key: query.key.unwrap_or_default(),
            project: project.map(|it| uuid("project", &it)).transpose()?,
            limit: limit(query.limit.as_deref(), 50)?,
        })
    }
}

fn version(name: &str, text: &str) -> Result<i32, ApiError> {
    let version = text.parse().ok().filter(|it| 0 <= *it);
    version.ok_or_else(|| ApiError::bad_parameter(name, text, "a version, 0 or more"))
}

/// The query of `/api/projections/{name}/wait`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    lsn: Option<String>,
    timeout: Option<String>,
}

/// The query of `…/dead-letters/retry` and `…/discard`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyQuery {
    key: Option<String>,
}

/// The last run of a page: where the next one goes on. Clients hand it back as they got it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cursor {
    /// Microseconds since 1970 of its start, where that is known.
    pub(super) micros: Option<i64>,
    pub(super) run_id: Uuid,
}

/// Stands in a cursor where a run's start is not known.
const UNKNOWN: &str = "unknown";

impl RunsFilter {
    pub(super) fn read(query: Result<Query<RunsQuery>, QueryRejection>) -> Result<Self, ApiError> {
        let known = "status, workflow, project, q, before, limit";
        let Query(query) = query.map_err(|it| ApiError::bad_query(it.body_text(), known))?;
        let project = query.project.filter(|it| !it.is_empty());
        let before = query.before.filter(|it| !it.is_empty());
        Ok(Self {
            status: query.status.filter(|it| !it.is_empty()),
            workflow: query.workflow.filter(|it| !it.is_empty()),
            project: project.map(|it| uuid("project", &it)).transpose()?,
            search: query.q.as_deref().map(str::trim).and_then(Search::read),
            before: before.map(|it| Cursor::read(&it)).transpose()?,
            limit: limit(query.limit.as_deref(), 50)?,
        })
    }
}

impl LogQuery {
    /// The version after which lines are asked for, and how many.
    pub(super) fn read(query: Result<Query<Self>, QueryRejection>) -> Result<(i32, i64), ApiError> {
        let Query(query) =
            query.map_err(|it| ApiError::bad_query(it.body_text(), "after, limit"))?;
        let after = match query.after.as_deref().unwrap_or_default() {
            "" => 0,
            text => version("after", text)?,
        };
        Ok((after, limit(query.limit.as_deref(), 200)?))
    }
}

impl KeyQuery {
    /// The row's key as a JSON object; none for all rows.
    pub(super) fn read(
        query: Result<Query<Self>, QueryRejection>,
    ) -> Result<Option<String>, ApiError> {
        let Query(query) = query.map_err(|it| ApiError::bad_query(it.body_text(), "key"))?;
        let Some(key) = query.key.filter(|it| !it.is_empty()) else { return Ok(None) };
        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&key) {
            Ok(_) => Ok(Some(key)),
            Err(_) => Err(ApiError::bad_parameter("key", &key, "the row's key as a JSON object")),
        }
    }
}

impl WaitQuery {
    /// The position to wait for, if one is given, and how long.
    pub(super) fn read(
        query: Result<Query<Self>, QueryRejection>,
    ) -> Result<(Option<Lsn>, Duration), ApiError> {
        let Query(query) =
            query.map_err(|it| ApiError::bad_query(it.body_text(), "lsn, timeout"))?;
        let lsn = query.lsn.filter(|it| !it.is_empty());
        let lsn = lsn.map(|it| {
            it.parse().map_err(|_why| {
                ApiError::bad_parameter(
                    "lsn",
                    &it,
                    "a position like 0/16B3748 (`/` as it is or %2F)",
                )
            })
        });
        let timeout = match query.timeout.as_deref().unwrap_or_default() {
            "" => WAIT,
            text => match text.parse::<u64>() {
                Ok(seconds) => Some(Duration::from_secs(seconds)),
                Err(_) => text.parse::<Period>().ok().map(Period::duration),
            }
            .filter(|it| *it <= WAIT_LONGEST)
            .ok_or_else(|| {
                ApiError::bad_parameter("timeout", text, "at most 9s, such as 2s, 500ms or 2")
            })?,
        };
        Ok((lsn.transpose()?, timeout))
    }
}

impl Cursor {
    fn read(text: &str) -> Result<Self, ApiError> {
        let halves = text.split_once('_').and_then(|(micros, run_id)| {
            let micros = match micros {
                UNKNOWN => None,
                known => Some(known.parse().ok()?),
            };
            Some(Self { micros, run_id: run_id.parse().ok()? })
        });
        halves.ok_or_else(|| {
            ApiError::bad_parameter("before", text, "the `next` of the page before, unchanged")
        })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.micros {
            Some(micros) => write!(f, "{micros}_{}", self.run_id),
            None => write!(f, "{UNKNOWN}_{}", self.run_id),
        }
    }
}

/// A UUID in the parameter `name`.
pub(super) fn uuid(name: &str, text: &str) -> Result<Uuid, ApiError> {
    let expected = "a UUID like 018f3c2e-7b5a-7cc1-9d44-3f1e2d4c5b6a";
    text.parse().map_err(|_why| ApiError::bad_parameter(name, text, expected))
}

fn limit(text: Option<&str>, default: i64) -> Result<i64, ApiError> {
    match text.unwrap_or_default() {
        "" => Ok(default),
        text => text
            .parse()
            .ok()
            .filter(|it| (1..=MOST).contains(it))
            .ok_or_else(|| ApiError::bad_parameter("limit", text, "a number from 1 to 1000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        for micros in [Some(1_800_000_000_000_001), None] {
            let cursor = Cursor { micros, run_id: Uuid::from_u128(7) };

            assert_eq!(Cursor::read(&cursor.to_string()).unwrap(), cursor);
        }
        assert!(Cursor::read("yesterday").is_err());
        assert!(Cursor::read("1_").is_err());
    }

    #[test]
    fn a_search_tells_ids_from_words() {
        let id = |it| Search::read(it).and_then(|it| it.ids).map(|(first, _)| first.to_string());
        let text = |it| Search::read(it).and_then(|it| it.text);

        assert_eq!(id("018F3c2e-7"), Some("018f3c2e-7000-0000-0000-000000000000".to_owned()));
        assert_eq!(text("018F3c2e-7"), None);
        assert_eq!((id("Fade").is_some(), text("Fade")), (true, Some("fade".to_owned())));
        assert_eq!((id("100%"), text("100%")), (None, Some("100%".to_owned())));
        assert_eq!(text("-"), Some("-".to_owned()));
        assert_eq!(Search::read(""), None);
    }

    #[test]
    fn topics_come_alone_or_together() {
        let read =
            |text: &str| LiveQuery::read(Ok(Query(LiveQuery { topic: Some(text.to_owned()) })));
        let run = Some(Uuid::from_u128(7));
        let text = "run:00000000-0000-0000-0000-000000000007,status";

        assert_eq!(read(text).unwrap(), Topics { run, runs: false, status: true });
        for text in ["", "run:7", "everything", "runs,", "run"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        assert_eq!(limit(None, 50).unwrap(), 50);
        assert_eq!(limit(Some("1000"), 50).unwrap(), 1000);
        for text in ["0", "1001", "-1", "ten", "1e3"] {
            assert!(limit(Some(text), 50).is_err(), "{text}");
        }
    }
}
