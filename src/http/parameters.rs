//! What requests may ask for, read from their addresses.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;
use uuid::Uuid;

use super::error::ApiError;

/// The largest page.
const MOST: i64 = 1_000;

/// The query of `/api/runs`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    status: Option<String>,
    workflow: Option<String>,
    project: Option<String>,
    before: Option<String>,
    limit: Option<String>,
}

/// Which runs are asked for.
#[derive(Debug, PartialEq)]
pub(super) struct RunsFilter {
    pub(super) status: Option<String>,
    pub(super) workflow: Option<String>,
    pub(super) project: Option<Uuid>,
    pub(super) before: Option<Cursor>,
    pub(super) limit: i64,
}

/// The query of `/api/runs/{id}/log`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    after: Option<String>,
    limit: Option<String>,
}

/// The last run of a page: where the next one goes on. Clients hand it back as they got it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cursor {
    /// Microseconds since 1970 of its last event.
    pub(super) micros: i64,
    pub(super) run_id: Uuid,
}

impl RunsFilter {
    pub(super) fn read(query: Result<Query<RunsQuery>, QueryRejection>) -> Result<Self, ApiError> {
        let known = "status, workflow, project, before, limit";
        let Query(query) = query.map_err(|it| ApiError::bad_query(it.body_text(), known))?;
        let project = query.project.filter(|it| !it.is_empty());
        let before = query.before.filter(|it| !it.is_empty());
        Ok(Self {
            status: query.status.filter(|it| !it.is_empty()),
            workflow: query.workflow.filter(|it| !it.is_empty()),
            project: project.map(|it| uuid("project", &it)).transpose()?,
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
        let after =
            match query.after.as_deref().unwrap_or_default() {
                "" => 0,
                text => text.parse().ok().filter(|it| 0 <= *it).ok_or_else(|| {
                    ApiError::bad_parameter("after", text, "a version, 0 or more")
                })?,
            };
        Ok((after, limit(query.limit.as_deref(), 200)?))
    }
}

impl Cursor {
    fn read(text: &str) -> Result<Self, ApiError> {
        let halves = text.split_once('_').and_then(|(micros, run_id)| {
            Some(Self { micros: micros.parse().ok()?, run_id: run_id.parse().ok()? })
        });
        halves.ok_or_else(|| {
            ApiError::bad_parameter("before", text, "the `next` of the page before, unchanged")
        })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}", self.micros, self.run_id)
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
        let cursor = Cursor { micros: 1_800_000_000_000_001, run_id: Uuid::from_u128(7) };

        assert_eq!(Cursor::read(&cursor.to_string()).unwrap(), cursor);
        assert!(Cursor::read("yesterday").is_err());
        assert!(Cursor::read("1_").is_err());
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
