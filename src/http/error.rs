//! What a client is told when a request fails: what, where, what to do. Never what the database said.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio_postgres::error::SqlState;

use super::database::DatabaseError;

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
        Self::new(status, "method_not_allowed", "this address answers to GET only")
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

    pub(super) fn closed() -> Self {
        let message = "/api is closed: no admin token is set, and others can reach this address";
        Self::new(StatusCode::FORBIDDEN, "closed", message)
            .hint("set PROJECTOR_HTTP_ADMIN_TOKEN, or listen on 127.0.0.1")
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
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Self::new(status, "database_unavailable", "the database cannot be reached")
                .hint("/readyz and projector's log say why");
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
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the database refused the query")
            .hint("projector's log has the cause")
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
