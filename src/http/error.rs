//! What a client is told when a request fails: what, where, what to do. Never what the database said.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio_postgres::error::SqlState;

use super::database::DatabaseError;
use crate::engine::ReloadError;
use crate::lsn::Lsn;

/// An error as the client sees it.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    /// A word for programs; never changes.
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn no_such_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_such_route", "there is nothing at this address")
            .hint("`/` links to what there is")
    }

    pub(super) fn method_not_allowed() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "method_not_allowed", "this address does not answer to that method")
    }

    pub(super) fn timeout() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the answer took too long")
            .hint("ask for less with `limit`, or look at the database's load")
    }

    /// A part of the address or a query parameter that cannot be used.
    pub(super) fn bad_parameter(name: &str, found: &str, expected: &str) -> Self {
        // A URL may be long; the start of the value tells which one is meant.
        let found: String = found.chars().take(80).collect();
        let message = format!("`{name}` is `{found}`, expected {expected}");
        Self::new(StatusCode::BAD_REQUEST, "bad_parameter", message)
    }

    /// A query string that has an unknown parameter, or one twice.
    pub(super) fn bad_query(message: String, known: &str) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "bad_query", message);
        error.hint(format!("known parameters: {known}"))
    }

    pub(super) fn unknown_run(id: uuid::Uuid) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_run", format!("there is no run {id}"))
            .hint("a run appears once its first event has been applied")
    }

    pub(super) fn unknown_version(version: i32, last: i32) -> Self {
        let message = format!("the run has no version {version} yet");
        Self::new(StatusCode::NOT_FOUND, "unknown_version", message)
            .hint(format!("its last event is version {last}"))
    }

    pub(super) fn unknown_row(table: &str) -> Self {
        let message = format!("no event touched a row with this key in `{table}`");
        Self::new(StatusCode::NOT_FOUND, "unknown_row", message)
    }

    pub(super) fn no_rules(table: &str) -> Self {
        let message = format!("the rows of `{table}` are made by a statement, not by rules");
        Self::new(StatusCode::CONFLICT, "no_rules", message)
            .hint("`projector verify` compares them with history")
    }

    pub(super) fn bad_key(message: String, hint: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_key", message).hint(hint)
    }

    pub(super) fn unknown_projection(name: &str, known: &[&str]) -> Self {
        let name: String = name.chars().take(80).collect();
        let message = format!("there is no projection `{name}`");
        let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
        Self::new(StatusCode::NOT_FOUND, "unknown_projection", message)
            .hint(format!("there are: {known}"))
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the admin token is missing or wrong")
            .hint("send `Authorization: Bearer` with the value of `http.admin_token`")
    }

    /// A user's token that does not count.
    pub(super) fn bad_token(why: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "bad_token", format!("the token does not count: {why}"))
            .hint("send one as the embedded Realtime takes it, with `role` and `exp`")
    }

    /// A user asks for runs of all projects.
    pub(super) fn no_project() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "no_project", "with a user's token, name the project")
            .hint("/api/runs?project=UUID")
    }

    pub(super) fn not_a_member() -> Self {
        let message = "the token's user may not read this project";
        Self::new(StatusCode::FORBIDDEN, "not_a_member", message)
            .hint("`projector.can_read(project_id)` decides")
    }

    pub(super) fn database_unavailable() -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "database_unavailable", "the database cannot be reached")
            .hint("/readyz and projector's log say why")
    }

    pub(super) fn closed() -> Self {
        let message = "/api is closed: no admin token is set, and others can reach this address";
        Self::new(StatusCode::FORBIDDEN, "closed", message)
            .hint("set PROJECTOR_HTTP_ADMIN_TOKEN, or listen on 127.0.0.1")
    }

    /// A verb that changes something, where nobody can prove to be an operator.
    pub(super) fn no_admin_token() -> Self {
        let message = "this address needs an admin token, and none is configured";
        Self::new(StatusCode::FORBIDDEN, "no_admin_token", message).hint(
            "set PROJECTOR_HTTP_ADMIN_TOKEN; the command line and SQL can do the same without",
        )
    }

    pub(super) fn too_many_waits() -> Self {
        let message = "too many requests wait for projections already";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_waits", message)
            .hint("try again, or wait in SQL: select projector.wait_for(…)")
    }

    pub(super) fn too_many_streams() -> Self {
        let message = "too many live streams are open already";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", message)
            .hint("close a console that nobody looks at, or ask for pages instead")
    }

    pub(super) fn not_reached(name: &str, lsn: Lsn, timeout: Duration) -> Self {
        let message = format!("projection `{name}` has not reached {lsn} within {timeout:?}");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "not_reached", message)
            .hint(format!("ask again; /api/projections/{name} says how far it is"))
    }

    /// The definitions are as before; the message has all that is wrong with the new ones.
    pub(super) fn not_reloaded(error: &ReloadError) -> Self {
        let (status, code, hint) = match error {
            ReloadError::Refused(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "definitions_refused",
                "`projector check` shows each place",
            ),
            ReloadError::Ended => {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping", "the next start reads them anyway")
            }
        };
        Self::new(status, code, error.to_string()).hint(hint)
    }

    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the database refused the query")
            .hint("projector's log has the cause")
    }

    /// What one of the functions in schema `projector` refused: its own words are meant for whoever
    /// called it, and quote no data.
    pub(super) fn of_verb(error: DatabaseError) -> Self {
        let DatabaseError::Query(cause) = &error else { return error.into() };
        let Some(told) = cause.as_db_error() else { return error.into() };
        let (status, code) = match told.code().code() {
            "22023" => (StatusCode::NOT_FOUND, "unknown_projection"),
            "55000" => (StatusCode::CONFLICT, "wrong_state"),
            "55006" => (StatusCode::CONFLICT, "rebuild_running"),
            _ => return error.into(),
        };
        Self { status, code, message: told.message().into(), hint: told.hint().map(str::to_owned) }
    }

    pub(super) fn foreign_host() -> Self {
        let message = "/api without an admin token answers only to requests for this machine";
        Self::new(StatusCode::FORBIDDEN, "foreign_host", message)
            .hint("use http://localhost or http://127.0.0.1, or set PROJECTOR_HTTP_ADMIN_TOKEN")
    }
}

impl From<DatabaseError> for ApiError {
    /// Logs what happened and says no more of it than is the client's business.
    fn from(error: DatabaseError) -> Self {
        let DatabaseError::Query(cause) = &error else {
            tracing::warn!(error = %error.chain(), "an API request found no database");
            return Self::database_unavailable();
        };
        if cause.code() == Some(&SqlState::UNDEFINED_TABLE) {
            return Self::new(
                StatusCode::NOT_FOUND,
                "no_read_model",
                "the read model behind this address does not exist",
            )
            .hint("/api/projections lists what is deployed; this needs run_status, step_status and run_log");
        }
        tracing::warn!(error = %error.chain(), "an API request failed in the database");
        if cause.code() == Some(&SqlState::QUERY_CANCELED) {
            return Self::timeout();
        }
        Self::internal()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, hint } = self;
        let body = json!({ "error": { "code": code, "message": message, "hint": hint } });
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (status, json, body.to_string()).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
