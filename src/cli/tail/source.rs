//! Where lines come from: one run's log in order, or all runs' as it appears.

use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::cli::tail::cursor::Cursor;
use crate::cli::tail::line::{COLUMNS, LogLine};
use crate::config::{Config, Period};
use crate::ident::{Ident, QualifiedName};

/// Rows in one answer.
const PAGE: u16 = 1000;

/// How far below the newest position a transaction that is still open is looked for at the start.
const OVERLAP: i64 = 1000;

/// How many events `--since` looks back at most: `recorded_at` has no index.
const LOOK_BACK: i64 = 100_000;

/// What is followed, and how far it has been shown.
#[derive(Debug)]
pub(super) enum Source {
    /// One run, in the order of its versions, which has no holes.
    Run { run_id: Uuid, version: i32 },
    /// Several runs.
    Runs { project_id: Option<Uuid>, cursor: Cursor },
}

/// The tables' names.
#[derive(Debug)]
pub(super) struct Tables {
    log: QualifiedName,
    events: QualifiedName,
    position: Ident,
    run_id: Ident,
    version: Ident,
    project_id: Ident,
    recorded_at: Ident,
}

impl Tables {
    /// As they are configured.
    pub(super) fn new(config: &Config, run_log: Ident) -> Self {
        let source = &config.source;
        Self {
            log: QualifiedName { schema: config.schema.clone(), name: run_log },
            events: config.events_table(),
            position: source.columns.position.clone(),
            run_id: source.columns.run_id.clone(),
            version: source.columns.version.clone(),
            project_id: source.columns.project_id.clone(),
            recorded_at: source.columns.recorded_at.clone(),
        }
    }
}

impl Source {
    /// All lines of a run.
    pub(super) fn run(run_id: Uuid) -> Self {
        Self::Run { run_id, version: 0 }
    }

    /// All runs, or a project's: from now on, or from `since` ago.
    pub(super) async fn runs(
        client: &Client,
        tables: &Tables,
        project_id: Option<Uuid>,
        since: Option<Period>,
    ) -> Result<Self, Error> {
        let Tables { events, position, recorded_at, .. } = tables;
        let newest = format!("select coalesce(max({position}), 0) from {events}");
        let newest: i64 = client.query_one(&newest, &[]).await?.try_get(0)?;
        if let Some(since) = since {
            let sql = format!(
                "select coalesce(min(position) - 1, $3)
                from (
                  select {position} as position, {recorded_at} as recorded_at
                  from {events}
                  order by {position} desc
                  limit $2) as newest
                where clock_timestamp() - make_interval(secs => $1) <= recorded_at"
            );
            let seconds = since.duration().as_secs_f64();
            let row = client.query_one(&sql, &[&seconds, &LOOK_BACK, &newest]).await?;
            return Ok(Self::Runs { project_id, cursor: Cursor::after(row.try_get(0)?) });
        }
        let mut source = Self::Runs { project_id, cursor: Cursor::after(newest - OVERLAP) };
        // What is there already counts as shown.
        source.poll(client, tables).await?;
        Ok(source)
    }

    /// The lines that have appeared since the last poll.
    pub(super) async fn poll(
        &mut self,
        client: &Client,
        tables: &Tables,
    ) -> Result<Vec<LogLine>, Error> {
        match self {
            Self::Run { run_id, version } => poll_run(client, tables, *run_id, version).await,
            Self::Runs { project_id, cursor } => {
                poll_runs(client, tables, *project_id, cursor).await
            }
        }
    }
}

async fn poll_run(
    client: &Client,
    tables: &Tables,
    run_id: Uuid,
    shown: &mut i32,
) -> Result<Vec<LogLine>, Error> {
    let sql = format!(
        "select {COLUMNS}
        from {} as log
        where log.run_id = $1 and $2 < log.version
        order by log.version
        limit $3",
        tables.log
    );
    let mut lines = Vec::new();
    loop {
        let rows = client.query(&sql, &[&run_id, shown, &i64::from(PAGE)]).await?;
        for row in &rows {
            let line = LogLine::from_row(row)?;
            *shown = line.version;
            lines.push(line);
        }
        if rows.len() < usize::from(PAGE) {
            return Ok(lines);
        }
    }
}

async fn poll_runs(
    client: &Client,
    tables: &Tables,
    project_id: Option<Uuid>,
    cursor: &mut Cursor,
) -> Result<Vec<LogLine>, Error> {
    let (oldest_open, next) = snapshot(client).await?;
    cursor.begin(oldest_open, next);
    let Tables { log, events, position, run_id, version, project_id: project, .. } = tables;
    let sql = format!(
        "select event.{position} as position, log.run_id is not null as logged, {COLUMNS}
        from {events} as event
        left join {log} as log on log.run_id = event.{run_id} and log.version = event.{version}
        where $1 < event.{position} and ($2::uuid is null or event.{project} = $2)
        order by event.{position}
        limit $3"
    );
    let mut lines = Vec::new();
    let mut from = cursor.settled();
    loop {
        let rows = client.query(&sql, &[&from, &project_id, &i64::from(PAGE)]).await?;
        let mut behind = 0;
        for row in &rows {
            from = row.try_get("position")?;
            if !row.try_get("logged")? {
                behind += 1;
                cursor.hold(from);
            } else if cursor.show(from) {
                lines.push(LogLine::from_row(row)?);
            }
        }
        // Where the read model is a whole page behind, there is no use in looking further.
        if rows.len() < usize::from(PAGE) || behind == rows.len() {
            break;
        }
    }
    cursor.end();
    Ok(lines)
}

/// The oldest transaction that is open, and the id that the next one gets.
async fn snapshot(client: &Client) -> Result<(u64, u64), Error> {
    let sql = "select pg_snapshot_xmin(it)::text, pg_snapshot_xmax(it)::text
        from pg_current_snapshot() as it";
    let row = client.query_one(sql, &[]).await?;
    let id = |at| Ok(row.try_get::<_, &str>(at)?.parse().unwrap_or_default());
    Ok((id(0)?, id(1)?))
}
