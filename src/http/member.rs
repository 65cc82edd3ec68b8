//! What a member of a project may read of `/api`: the runs of one project, or one run.
//!
//! Whoever sends a user's token, one that the embedded Realtime would take, reads what he might listen
//! to: `/runs?project=` as the topic of that project, `/runs/{id}` and what lies below it as the topic
//! of that run. The same SQL function decides, `projector.can_read_topic`. A run that he may not read
//! is answered as one that does not exist.

use std::collections::BTreeMap;

use axum::extract::{Query, RawPathParams, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use super::AppState;
use super::access::bearer;
use super::error::ApiError;
use super::parameters::uuid;
use crate::realtime::hub::{Hub, Refusal};

/// What is asked for.
enum Subject {
    Run(Uuid),
    Project(Uuid),
}

/// Lets an operator pass, and a member to what he may read.
pub(super) async fn guard(
    State(state): State<AppState>,
    path: RawPathParams,
    query: Query<BTreeMap<String, String>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let headers = request.headers();
    match (&state.hub, user_token(headers)) {
        (Some(hub), Some(token)) if !state.access.is_admin(headers) => {
            admit(hub, token, subject(&path, &query)?).await?;
        }
        _ => state.access.check(headers)?,
    }
    Ok(next.run(request).await)
}

async fn admit(hub: &Hub, token: &str, subject: Subject) -> Result<(), ApiError> {
    let topic = match subject {
        Subject::Run(id) => format!("run:{id}"),
        Subject::Project(id) => format!("project:{id}"),
    };
    hub.admits(token, &topic).await.map_err(|refusal| match (refusal, subject) {
        (Refusal::Token(error), _) => ApiError::bad_token(&error.to_string()),
        (Refusal::Forbidden(_), Subject::Run(id)) => ApiError::unknown_run(id),
        (Refusal::Forbidden(_), Subject::Project(_)) => ApiError::not_a_member(),
        (Refusal::Database, _) => ApiError::database_unavailable(),
    })
}

fn subject(path: &RawPathParams, query: &BTreeMap<String, String>) -> Result<Subject, ApiError> {
    if let Some((_, id)) = path.iter().find(|(name, _)| *name == "id") {
        return Ok(Subject::Run(uuid("id", id)?));
    }
    // one that is given twice is refused when the query is read
    let project = query.get("project").ok_or_else(ApiError::no_project)?;
    Ok(Subject::Project(uuid("project", project)?))
}

/// A JWT among the headers; an admin token has no such form, unless somebody has chosen it so.
fn user_token(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    bearer(given).filter(|it| it.split('.').count() == 3)
}
