//! The backlog: its making, and whether read models agree with it.

use anyhow::{Context as _, ensure};
use tokio_postgres::Client;

use crate::args::Args;

/// Events of a run.
const RUN: u32 = 20;

/// Events a transaction of the history, whose log nobody reads.
const CHUNK: u32 = 50_000;

/// Appends the backlog in transactions of `size` events. Returns where its last commit ends.
pub(crate) async fn load(
    client: &Client,
    args: &Args,
    events: u32,
    size: u32,
) -> anyhow::Result<String> {
    call(client, args, events, &format!("bench.load({size})")).await
}

/// Appends the backlog as fast as it goes, for those who do not read the log of it.
pub(crate) async fn history(client: &Client, args: &Args, events: u32) -> anyhow::Result<()> {
    call(client, args, events, &format!("bench.load_history({CHUNK})")).await.map(drop)
}

async fn call(
    client: &Client,
    args: &Args,
    events: u32,
    procedure: &str,
) -> anyhow::Result<String> {
    let runs = events / RUN;
    ensure!(
        0 < runs && events.is_multiple_of(RUN),
        "the events must be a multiple of {RUN}, not {events}"
    );
    let runs_at_once = args.window.unwrap_or(runs).clamp(1, runs);
    client.batch_execute(include_str!("load.sql")).await?;
    let began = "date_trunc('second', now() at time zone 'UTC') at time zone 'UTC'";
    let filled = format!("insert into bench.size values ({events}, {runs_at_once}, {began})");
    client.batch_execute(&filled).await?;
    client.batch_execute(&format!("call {procedure}")).await?;
    let end = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?;
    // So that nothing of this is done while something is measured.
    client.batch_execute("vacuum analyze public.events").await?;
    client.batch_execute("checkpoint").await?;
    Ok(end.try_get(0)?)
}

/// The mean size of an event as the log's reader gets it, in bytes.
pub(crate) async fn row_bytes(client: &Client) -> anyhow::Result<f64> {
    // Five bytes a column and eight a row are pgoutput's own.
    let sql =
        "select 8 + 9 * 5 + avg(octet_length(position::text) + octet_length(version::text) + 3 * 36
            + octet_length(type) + octet_length(payload::text) + octet_length(metadata::text)
            + octet_length(recorded_at::text))::float8
        from (select * from public.events limit 100000) as sample";
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}

/// Makes sure that what was measured is right: every event is in each read model that is there.
pub(crate) async fn verify(client: &Client, args: &Args, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let (rows, wanted) = match name.as_str() {
            "run_status" => {
                ("select count(*) from run_status where version = 20", args.events / RUN)
            }
            "run_log" => ("select count(*) from run_log", args.events),
            "step_status" => ("select count(*) from step_status", args.events / RUN * 3),
            "dead_runs" => ("select count(*) from dead_runs", (args.events / RUN).div_ceil(20)),
            "workflow_stats" => {
                ("select sum(started)::int8 from workflow_stats", args.events / RUN)
            }
            _ => continue,
        };
        let found: i64 = client.query_one(rows, &[]).await?.try_get(0).context(rows)?;
        ensure!(found == i64::from(wanted), "{name} is wrong: {found}, not {wanted} ({rows})");
    }
    Ok(())
}
