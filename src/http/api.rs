//! `/api`: the engine's status from memory, a run and its log from the read models.
//!
//! Rows go from Postgres to the client as the JSON text Postgres made of them; nothing parses them on
//! the way, so a column added to a definition shows up by itself.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::AppState;
use super::error::ApiError;
use super::health::latest;
use super::parameters::{LogQuery, uuid};

/// The whole status.
pub(super) async fn projections(State(state): State<AppState>) -> impl IntoResponse {
    Json(latest(&state))
}

/// One projection of it.
pub(super) async fn projection(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let status = latest(&state);
    match status.projections.iter().find(|it| it.name == name) {
        Some(projection) => Ok(Json(projection.clone())),
        None => {
            let known: Vec<_> = status.projections.iter().map(|it| it.name.as_str()).collect();
            Err(ApiError::unknown_projection(&name, &known))
        }
    }
}

/// A run's row, with its steps.
pub(super) async fn run(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let id = uuid("id", &id)?;
    let sql = format!(
        "select (to_jsonb(r) || jsonb_build_object('steps', coalesce(( \
         select jsonb_agg(to_jsonb(s) order by coalesce(s.started_at, s.due_at), s.step_id) \
         from {schema}.step_status s where s.run_id = r.run_id), '[]')))::text \
         from {schema}.run_status r where r.run_id = $1",
        schema = state.schema,
    );

    let rows = state.database.query(&sql, &[(&id, Type::UUID)]).await?;

    let row = rows.first().ok_or_else(|| ApiError::unknown_run(id))?;
    Ok(json(row.get(0)))
}

/// A page of a run's log, in the order of versions.
pub(super) async fn log(
    State(state): State<AppState>,
    Path(id): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let id = uuid("id", &id)?;
    let (after, limit) = LogQuery::read(query)?;
    let schema = &state.schema;
    let sql = format!(
        "select to_jsonb(l)::text, l.version from {schema}.run_log l \
         where l.run_id = $1 and $2 < l.version order by l.version limit $3"
    );

    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&id, Type::UUID), (&after, Type::INT4), (&limit, Type::INT8)];
    let rows = state.database.query(&sql, &parameters).await?;

    if rows.is_empty() {
        let sql = format!("select from {schema}.run_log where run_id = $1 limit 1");
        if state.database.query(&sql, &[(&id, Type::UUID)]).await?.is_empty() {
            return Err(ApiError::unknown_run(id));
        }
    }
    let last = rows.last().filter(|_row| is_full(&rows, limit));
    let next = last.map_or("null".to_owned(), |row| row.get::<_, i32>(1).to_string());
    Ok(json(format!(r#"{{"lines":{},"next":{next}}}"#, array(&rows))))
}

/// Whether there may be more than these: a page that is not full is the last.
pub(super) fn is_full(rows: &[Row], limit: i64) -> bool {
    usize::try_from(limit).is_ok_and(|limit| limit <= rows.len())
}

/// The rows' first column, JSON text, as a JSON array.
pub(super) fn array(rows: &[Row]) -> String {
    let rows: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    format!("[{}]", rows.join(","))
}

pub(super) fn json(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text)
}
