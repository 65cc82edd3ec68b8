//! `/api/runs`: which runs there are, by page, and how many of each status.
//!
//! The order is that of the read model's indexes, which a time that moves with every event could not be:
//! each event would write to the index. Runs whose start is known and the others are two ranges of it,
//! each read no further than the page needs.
//!
//! The indexes for a status or a workflow begin with the project. Where no project is asked for, each
//! project's part is read from its index and the parts are merged: that costs a look a project, where
//! an index more would cost every event something.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use tokio_postgres::types::{ToSql, Type};

use super::AppState;
use super::api::{array, is_full, json};
use super::error::ApiError;
use super::parameters::{CountsQuery, Cursor, RunsFilter, RunsQuery};
use crate::ident::Ident;

/// What is counted: the statuses of `run_status`.
const STATUSES: [&str; 5] = ["running", "paused", "succeeded", "failed", "canceled"];

/// Runs of a status are counted up to here.
const COUNTED: i64 = 10_000;

/// A page of runs, the one that started last first; those whose start is unknown come after all others.
pub(super) async fn runs(
    State(state): State<AppState>,
    query: Result<Query<RunsQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let filter = RunsFilter::read(query)?;
    let (sql, parameters) = page(&state.schema, &filter);

    let rows = state.database.query(&sql, &parameters).await?;

    let last = rows.last().filter(|_row| is_full(&rows, filter.limit));
    let next = last.map(|row| Cursor { micros: row.get(1), run_id: row.get(2) });
    let next = next.map_or("null".to_owned(), |it| format!("\"{it}\""));
    Ok(json(format!(r#"{{"runs":{},"next":{next}}}"#, array(&rows))))
}

/// How many runs of each status there are, counted up to a limit.
pub(super) async fn counts(
    State(state): State<AppState>,
    query: Result<Query<CountsQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let project = CountsQuery::read(query)?;
    let (schema, limit) = (&state.schema, COUNTED + 1);
    let (with, projects) = match project {
        Some(_) => (String::new(), "(select $2::uuid as id)"),
        None => (projects(schema), "project"),
    };
    let sql = format!(
        "{with} select jsonb_object_agg(status, runs)::text
         from unnest($1::text[]) as status
           cross join lateral (
             select count(*) as runs from (
               select from {projects} p
                 cross join lateral (
                   select from {schema}.run_status r
                   where r.project_id = p.id and r.status = status.status) r
               limit {limit}) of_status) counted"
    );
    let statuses = STATUSES.as_slice();
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&statuses, Type::TEXT_ARRAY)];
    if project.is_some() {
        parameters.push((&project, Type::UUID));
    }

    let rows = state.database.query(&sql, &parameters).await?;

    let counts: &str = rows.first().ok_or_else(ApiError::internal)?.get(0);
    Ok(json(format!(r#"{{"counts":{counts},"up_to":{COUNTED}}}"#)))
}

/// The statement for a page, with its parameters.
fn page<'a>(
    schema: &Ident,
    filter: &'a RunsFilter,
) -> (String, Vec<(&'a (dyn ToSql + Sync), Type)>) {
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&filter.limit, Type::INT8)];
    let conditions = conditions(filter, &mut parameters);
    let (mut started, mut unknown) = (Some(String::new()), String::new());
    if let Some(Cursor { micros, run_id }) = &filter.before {
        parameters.push((run_id, Type::UUID));
        let run_id = parameters.len();
        if micros.is_some() {
            parameters.push((micros, Type::INT8));
            let micros = parameters.len();
            started = Some(format!(
                " and (r.started_at, r.run_id) \
                 < (timestamptz 'epoch' + ${micros} * interval '1 microsecond', ${run_id})"
            ));
        } else {
            started = None;
            unknown = format!(" and r.run_id < ${run_id}");
        }
    }
    let by_project =
        filter.project.is_none() && (filter.status.is_some() || filter.workflow.is_some());
    let range = |rank: u8, of: &str, order: &str| {
        let rows = format!(
            "select {rank} as rank, r.started_at, r.run_id from {schema}.run_status r \
             where r.started_at is {of}{conditions}"
        );
        if !by_project {
            return format!("({rows} order by {order} limit $1)");
        }
        format!(
            "(select r.* from project p cross join lateral ( \
             {rows} and r.project_id = p.id order by {order} limit $1) r \
             order by {order} limit $1)"
        )
    };
    let unknown = range(1, &format!("null{unknown}"), "r.run_id desc");
    let ranges = match started {
        Some(before) => {
            let order = "r.started_at desc, r.run_id desc";
            format!("{} union all {unknown}", range(0, &format!("not null{before}"), order))
        }
        None => unknown,
    };
    let sql = format!(
        "{with} select to_jsonb(r)::text, \
         (extract(epoch from r.started_at) * 1000000)::bigint, r.run_id \
         from ({ranges}) page join {schema}.run_status r on r.run_id = page.run_id \
         order by page.rank, r.started_at desc, r.run_id desc limit $1",
        with = if by_project { projects(schema) } else { String::new() },
    );
    (sql, parameters)
}

/// Only the conditions that are asked for are in the statement, so that indexes can serve it.
fn conditions<'a>(
    filter: &'a RunsFilter,
    parameters: &mut Vec<(&'a (dyn ToSql + Sync), Type)>,
) -> String {
    let mut conditions = String::new();
    for (column, value) in [("status", &filter.status), ("workflow", &filter.workflow)] {
        if value.is_some() {
            parameters.push((value, Type::TEXT));
            conditions += &format!(" and r.{column} = ${}", parameters.len());
        }
    }
    if filter.project.is_some() {
        parameters.push((&filter.project, Type::UUID));
        conditions += &format!(" and r.project_id = ${}", parameters.len());
    }
    let Some(search) = &filter.search else { return conditions };
    let mut ways = Vec::new();
    if let Some((first, last)) = &search.ids {
        parameters.push((first, Type::UUID));
        parameters.push((last, Type::UUID));
        let last = parameters.len();
        ways.push(format!("r.run_id between ${} and ${last}", last - 1));
    }
    if let Some(text) = &search.text {
        parameters.push((text, Type::TEXT));
        let text = parameters.len();
        for column in ["workflow", "error"] {
            ways.push(format!("0 < strpos(lower(r.{column}), ${text})"));
        }
    }
    conditions + &format!(" and ({})", ways.join(" or "))
}

/// All projects that have runs, found by a look at the index each.
fn projects(schema: &Ident) -> String {
    format!(
        "with recursive project (id) as (
           (select project_id from {schema}.run_status order by project_id limit 1)
           union all
           select (select r.project_id from {schema}.run_status r where p.id < r.project_id
                   order by r.project_id limit 1)
           from project p where p.id is not null)"
    )
}
