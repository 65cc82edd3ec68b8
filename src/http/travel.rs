//! `/api/runs/{id}/state` and `/api/tables/{table}/explain`: history, folded on request.
//!
//! What a request may cost is bounded: pages of events, each a statement with the database's time
//! limit, and no more than [`MOST_EVENTS`]; an answer that had to stop there says so.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::AppState;
use super::database::DatabaseError;
use super::error::ApiError;
use super::parameters::{ExplainFilter, ExplainQuery, StateFilter, StateQuery, uuid};
use crate::definition::{Definition, Value};
use crate::event::Event;
use crate::history::event::queried;
use crate::replay::archive::RUN_TYPES;
use crate::replay::explain::{Explain, Explanation, LiveRow};
use crate::replay::run::{Step, Until};
use crate::replay::{self, Archive, Replay, key};

/// Events in one statement's answer.
const PAGE: i64 = 500;

/// The most events that one request reads.
const MOST_EVENTS: usize = 20_000;

/// A run's state, and whether it is of an earlier version than was asked for.
#[derive(Serialize)]
struct StateAnswer {
    #[serde(flatten)]
    state: replay::run::State,
    truncated: bool,
}

/// A page of what a run's events changed.
#[derive(Serialize)]
struct DiffAnswer {
    run_id: Uuid,
    steps: Vec<Step>,
    left_out: Vec<String>,
    /// The version after which the next page begins; null at the end.
    next: Option<i32>,
    truncated: bool,
}

/// How reading a run ended.
enum End {
    /// At its last event, or the last that was asked for.
    Whole,
    /// There are more steps than the page takes.
    Page,
    /// At the limit of events.
    Limit,
}

/// What a run's read models said at a moment, or what each event changed.
pub(super) async fn state(
    State(state): State<AppState>,
    Path(id): Path<String>,
    query: Result<Query<StateQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let id = uuid("id", &id)?;
    let filter = StateFilter::read(query)?;
    let archive = state.archive();
    if let Some(name) = &filter.projection {
        definition(&archive, name)?;
    }
    reach(&state, &archive, id, &filter).await?;
    let limit = usize::try_from(filter.limit).unwrap_or_default();
    let mut replay = Replay::new(id, &archive, filter.projection.as_deref(), limit);
    let mut steps = Vec::new();

    let end = read(&state, &archive, id, filter.until, |event| match filter.diff {
        None => {
            replay.event(event);
            true
        }
        Some(_) if steps.len() == limit => false,
        Some(after) => {
            let step = replay.step(event);
            if after < step.version {
                steps.push(step);
            }
            true
        }
    });
    let end = end.await?;

    let truncated = matches!(end, End::Limit);
    if filter.diff.is_none() {
        let answer = StateAnswer { state: replay.state(), truncated };
        return Ok(fresh(Json(answer)).into_response());
    }
    let next = steps.last().map(|it| it.version).filter(|_| matches!(end, End::Page));
    let left_out = replay.state().left_out;
    Ok(fresh(Json(DiffAnswer { run_id: id, steps, left_out, next, truncated })).into_response())
}

/// Whether there is such a run, in such a project, and it has got as far as is asked for.
async fn reach(
    state: &AppState,
    archive: &Archive,
    id: Uuid,
    filter: &StateFilter,
) -> Result<(), ApiError> {
    let rows = state.database.query(&archive.last_sql(), &[(&id, Type::UUID)]).await?;
    let row = rows.first().ok_or_else(|| ApiError::unknown_run(id))?;
    let last: i32 = row.try_get(0).map_err(DatabaseError::Query)?;
    let project: Uuid = row.try_get(1).map_err(DatabaseError::Query)?;
    if filter.project.is_some_and(|it| it != project) {
        return Err(ApiError::unknown_run(id));
    }
    match filter.until {
        Until::Version(version) if last < version => Err(ApiError::unknown_version(version, last)),
        _ => Ok(()),
    }
}

/// Hands a run's events to `take`, until it says that it wants no more.
async fn read(
    state: &AppState,
    archive: &Archive,
    id: Uuid,
    until: Until,
    mut take: impl FnMut(Event<'_>) -> bool,
) -> Result<End, ApiError> {
    let sql = archive.run_sql();
    let [run, version, count] = RUN_TYPES;
    let (mut after, mut taken) = (0_i32, 0);
    loop {
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&id, run.clone()), (&after, version.clone()), (&PAGE, count.clone())];
        let rows = state.database.query(&sql, &parameters).await?;
        for row in &rows {
            let event = queried(row).map_err(DatabaseError::Query)?;
            if !until.includes(&event) {
                return Ok(End::Whole);
            }
            if taken == MOST_EVENTS {
                return Ok(End::Limit);
            }
            after = event.version;
            taken += 1;
            if !take(event) {
                return Ok(End::Page);
            }
        }
        if is_last(&rows) {
            return Ok(End::Whole);
        }
        // folding a page takes a while in which others want to be answered
        tokio::task::yield_now().await;
    }
}

/// Which events made a row what it is.
pub(super) async fn explain(
    State(state): State<AppState>,
    Path(table): Path<String>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let filter = ExplainFilter::read(query)?;
    let archive = state.archive();
    let definition = definition(&archive, &table)?;
    if definition.sql.is_some() {
        return Err(ApiError::no_rules(&table));
    }
    let key = key::parse(definition, &filter.key)
        .map_err(|error| ApiError::bad_key(error.to_string(), error.hint))?;
    // before history, so that the row is never ahead of it
    let live = live_row(&state, &archive, definition, &key).await?;
    let is_foreign = |row: &replay::change::RowValues| {
        let tenant = definition.tenant.and_then(|it| definition.columns.get(it));
        let tenant = tenant.and_then(|it| row.get(it.name.as_str())).and_then(|it| it.as_str());
        let project = filter.project.map(|it| it.to_string());
        tenant.is_some() && project.is_some() && tenant != project.as_deref()
    };
    if matches!(&live, LiveRow::Row(row) if is_foreign(row)) {
        return Err(ApiError::unknown_row(&table));
    }
    let is_live = matches!(live, LiveRow::Row(_));

    let explanation = follow(&state, &archive, (definition, key), live, &filter).await?;

    let is_nothing = explanation.touched == 0 && explanation.fault.is_none() && !is_live;
    let is_foreign = explanation.row.as_ref().is_some_and(is_foreign);
    if is_foreign || (is_nothing && !explanation.truncated) {
        return Err(ApiError::unknown_row(&table));
    }
    Ok(fresh(Json(explanation)))
}

async fn live_row(
    state: &AppState,
    archive: &Archive,
    definition: &Definition,
    key: &[Value<'_>],
) -> Result<LiveRow, ApiError> {
    let (sql, texts) = archive.live_row(definition, key);
    let parameters: Vec<_> =
        texts.iter().map(|it| (it as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let rows = match state.database.query(&sql, &parameters).await {
        Ok(rows) => rows,
        Err(DatabaseError::Query(error)) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            return Ok(LiveRow::Unknown);
        }
        Err(error) => return Err(error.into()),
    };
    let Some(row) = rows.first() else { return Ok(LiveRow::Missing) };
    let text: &str = row.try_get(0).map_err(DatabaseError::Query)?;
    // what Postgres prints as JSON is JSON
    Ok(serde_json::from_str(text).map_or(LiveRow::Unknown, LiveRow::Row))
}

async fn follow(
    state: &AppState,
    archive: &Archive,
    (definition, key): (&Arc<Definition>, Vec<Value<'static>>),
    live: LiveRow,
    filter: &ExplainFilter,
) -> Result<Explanation, ApiError> {
    let scan = archive.scan(definition, &key);
    let limit = usize::try_from(filter.limit).unwrap_or_default();
    let redactor = Arc::clone(&archive.redactor);
    let mut explain = Explain::new(definition, key, live, redactor, limit);
    let (mut after, mut taken) = (i64::MIN, 0);
    loop {
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            scan.texts.iter().map(|it| (it as &(dyn ToSql + Sync), Type::TEXT)).collect();
        parameters.push((&after, Type::INT8));
        parameters.push((&PAGE, Type::INT8));
        let rows = state.database.query(&scan.sql, &parameters).await?;
        let mut last = after;
        for row in &rows {
            let event = queried(row).map_err(DatabaseError::Query)?;
            if taken == MOST_EVENTS {
                return Ok(explain.finish(false));
            }
            taken += 1;
            last = scan.after(&event);
            if filter.project.is_none_or(|it| it == event.project_id) {
                explain.event(event);
            }
        }
        if is_last(&rows) || explain.is_stopped() {
            return Ok(explain.finish(true));
        }
        after = last;
        tokio::task::yield_now().await;
    }
}

/// The definition of a projection that a request names.
fn definition<'a>(archive: &'a Archive, name: &str) -> Result<&'a Arc<Definition>, ApiError> {
    archive.definition(name).ok_or_else(|| {
        let known: Vec<_> = archive.definitions.iter().map(|it| it.name.as_str()).collect();
        ApiError::unknown_projection(name, &known)
    })
}

/// A page that is not full is the last.
fn is_last(rows: &[Row]) -> bool {
    usize::try_from(PAGE).is_ok_and(|page| rows.len() < page)
}

fn fresh(answer: impl IntoResponse) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], answer)
}
