//! What an operator asks for: rebuild, cancel, pause, resume, reload; and the wait for a projection to
//! catch up.
//!
//! The verbs are functions of the database (see its migrations), which write down what is wanted and
//! who wanted it. The engine finds it there, so a request needs no way into the engine and is the
//! same whether it came by HTTP, SQL or the command line.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::AppState;
use super::error::ApiError;
use super::parameters::{KeyQuery, WaitQuery};
use crate::lsn::Lsn;

/// How long to sleep between two looks at a checkpoint: at first, and at most.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_LONGEST: Duration = Duration::from_millis(50);

/// Asks for an online rebuild. It has only been noted down when this answers.
pub(super) async fn rebuild(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let id: i64 = verb(&state, "rebuild", &name).await?.get(0);
    let body = json!({ "projection": name, "rebuild": id, "phase": "requested" });
    Ok((StatusCode::ACCEPTED, Json(body)))
}

/// Gives up the rebuild that was asked for or is under way.
pub(super) async fn cancel(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let canceled: bool = verb(&state, "cancel_rebuild", &name).await?.get(0);
    Ok(Json(json!({ "projection": name, "canceled": canceled })))
}

/// Stops a projection where it is.
pub(super) async fn pause(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let changed: bool = verb(&state, "pause", &name).await?.get(0);
    Ok(Json(json!({ "projection": name, "paused": true, "changed": changed })))
}

/// Lets it go on.
pub(super) async fn resume(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let changed: bool = verb(&state, "resume", &name).await?.get(0);
    Ok(Json(json!({ "projection": name, "paused": false, "changed": changed })))
}

/// Asks for dead letters to be tried again, of one row or of all.
pub(super) async fn retry(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Result<Query<KeyQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    letters(&state, "retry", &name, KeyQuery::read(query)?.as_deref()).await
}

/// Asks for dead letters to be given up, of one row or of all.
pub(super) async fn discard(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Result<Query<KeyQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    letters(&state, "discard", &name, KeyQuery::read(query)?.as_deref()).await
}

async fn letters(
    state: &AppState,
    verb: &str,
    name: &str,
    key: Option<&str>,
) -> Result<(StatusCode, Json<serde_json::Value>), ApiError> {
    let sql = format!("select projector.{verb}_dead_letters($1, $2::text::jsonb)");
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&name, Type::TEXT), (&key, Type::TEXT)];
    let rows = state.database.command(&sql, &parameters).await.map_err(ApiError::of_verb)?;
    let rows: i64 = rows.first().ok_or_else(ApiError::internal)?.get(0);
    let body = json!({ "projection": name, "request": verb, "rows": rows });
    Ok((StatusCode::ACCEPTED, Json(body)))
}

/// What is set aside of a projection: an entry a row, the oldest first. Payloads are left out.
pub(super) async fn dead_letters(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let sql = "with places as (
             select coalesce(row_key::text, id::text) as place, min(id) as id, count(*) as events
             from projector.dead_letters where projection = $1
             group by 1 order by min(id) limit 200
           )
         select coalesce(json_agg(json_build_object(
           'row_key', l.row_key, 'events', p.events, 'since', l.created_at, 'run_id', l.run_id,
           'version', l.version, 'position', l.position, 'type', l.type, 'rule', l.rule,
           'error', l.error, 'attempts', l.attempts, 'request', l.request) order by l.id), '[]')::text
         from places p join projector.dead_letters l on l.id = p.id";
    let rows = state.database.query(sql, &[(&name, Type::TEXT)]).await?;
    let list: String = rows.first().ok_or_else(ApiError::internal)?.get(0);
    let body = format!("{{\"projection\":{},\"dead_letters\":{list}}}", json!(name));
    Ok(([(header::CONTENT_TYPE, "application/json")], body))
}

async fn verb(state: &AppState, verb: &str, name: &str) -> Result<Row, ApiError> {
    let sql = format!("select projector.{verb}($1)");
    let rows = state.database.command(&sql, &[(&name, Type::TEXT)]).await;
    rows.map_err(ApiError::of_verb)?.pop().ok_or_else(ApiError::internal)
}

/// Reads the definitions again. What is wrong with them is told, and those before go on.
pub(super) async fn reload(State(state): State<AppState>) -> Result<impl IntoResponse, ApiError> {
    Ok(Json(state.reload.ask().await.map_err(|error| ApiError::not_reloaded(&error))?))
}

/// Answers once the rows of a projection include everything committed before a position: the given
/// one, or the end of the log as it is now.
pub(super) async fn wait(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let (lsn, timeout) = WaitQuery::read(query)?;
    let until = Instant::now() + timeout;
    let _place = state.database.waits.try_acquire().map_err(|_full| ApiError::too_many_waits())?;
    let lsn = match lsn {
        Some(lsn) => lsn,
        None => {
            let rows = state.database.query("select pg_current_wal_insert_lsn()", &[]).await?;
            rows.first().ok_or_else(ApiError::internal)?.get(0)
        }
    };
    let mut pause = PAUSE;
    let mut has_asked = false;
    while !has_reached(&state, &name, lsn).await? {
        if !has_asked {
            ask(&state, lsn).await?;
            has_asked = true;
        }
        if until <= Instant::now() {
            return Err(ApiError::not_reached(&name, lsn, timeout));
        }
        tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 3 / 2).min(PAUSE_LONGEST);
    }
    let body = Json(json!({ "projection": name, "lsn": lsn, "reached": true }));
    Ok(([(header::CACHE_CONTROL, "no-store")], body))
}

async fn has_reached(state: &AppState, name: &str, lsn: Lsn) -> Result<bool, ApiError> {
    let sql = "select projector.has_reached($1, $2)";
    let rows = state.database.query(sql, &[(&name, Type::TEXT), (&lsn, Type::PG_LSN)]).await;
    Ok(rows.map_err(ApiError::of_verb)?.first().ok_or_else(ApiError::internal)?.get(0))
}

/// Leaves a message in the log that lets checkpoints move up to it; its commit flushes the log.
async fn ask(state: &AppState, lsn: Lsn) -> Result<(), ApiError> {
    let sql = "select pg_logical_emit_message(true, 'projector', 'wait')
         where $1 <= pg_current_wal_insert_lsn()";
    if state.database.command(sql, &[(&lsn, Type::PG_LSN)]).await?.is_empty() {
        return Err(ApiError::bad_parameter(
            "lsn",
            &lsn.to_string(),
            "a position that this server's log has reached",
        ));
    }
    Ok(())
}
