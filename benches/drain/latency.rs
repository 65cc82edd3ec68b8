//! How long after its commit an event is visible in `run_log`, under a steady load.
//!
//! Both times are the server's own, of the transactions that wrote the event and its row
//! (`track_commit_timestamp`), so no client's clock or poll is in them. A transaction takes its time
//! before its commit record is flushed: the writer's wait for the disk counts as latency. The
//! read model's transaction takes its time some microseconds before others see its rows.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::args::Args;
use crate::cluster::{Scratch, connect, until, url};
use crate::process;
use crate::report::Latency;
use crate::sidecar::{Sidecar, migrate};

/// What does not count: caches fill, connections open.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long the last rows may take.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Events of a run.
const RUN: u32 = 20;

/// Appends `rate` events a second, each in a transaction of its own, to a projector with all
/// projections.
pub(crate) async fn measure(args: &Args, scratch: &Scratch, rate: u32) -> anyhow::Result<Latency> {
    eprintln!("latency: {rate} events/s for {} s", args.seconds);
    let server = scratch.start("live").await?;
    migrate(&server.socket_url())?;
    let projections = scratch.projections("all")?;
    let mut sidecar = Sidecar::start(&url(&server, args.transport), &projections.folder)?;
    sidecar.ready().await?;

    let first = Instant::now() + Duration::from_millis(100);
    let period = Duration::from_secs(1) * args.writers / rate;
    let seconds = u64::from(args.seconds) + WARM_UP.as_secs();
    let appends = u64::from(rate) * seconds / u64::from(args.writers);
    let mut writers = JoinSet::new();
    for number in 0..args.writers {
        let client = connect(&server).await?;
        // Evenly spread: never all of them at the same moment.
        let first = first + period * number / args.writers;
        writers.spawn(async move { write(client, first, period, appends).await });
    }
    while let Some(ended) = writers.join_next().await {
        ended.context("a writer panicked")??;
    }
    let seconds = first.elapsed().as_secs_f64();

    let client = connect(&server).await?;
    until("the last row", CATCH_UP, async || {
        sidecar.check()?;
        let sql = "select (select count(*) from events) = (select count(*) from run_log)";
        Ok(client.query_one(sql, &[]).await?.try_get(0)?)
    })
    .await?;
    let latency = Latency {
        wanted_rate: rate,
        rate: appends as f64 * f64::from(args.writers) / seconds,
        cpu_share: process::cpu_seconds(sidecar.pid())? / seconds,
        peak_mib: process::peak_mib(sidecar.pid())?,
        ..percentiles(&client).await?
    };
    sidecar.stop()?;
    server.stop().await?;
    scratch.remove("live")?;
    Ok(latency)
}

/// One worker: run after run, an event each `period`.
async fn write(
    client: Client,
    first: Instant,
    period: Duration,
    appends: u64,
) -> anyhow::Result<()> {
    let sql = "select version from append_events($1, $2, null, jsonb_build_array( \
               jsonb_build_object('type', $3::text, 'payload', $4::text::jsonb)))";
    let append = client.prepare(sql).await?;
    let project = Uuid::from_u128(0x7d1f_8b52_4c0e_4a36_9b1d_2f6c_35a1_e801);
    let mut run = Uuid::now_v7();
    let mut version = 0;
    let mut ticks = interval_at(first, period);
    // A late writer catches up: the load is what was asked for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..appends {
        ticks.tick().await;
        version += 1;
        let (kind, payload) = event(version);
        client.query_one(&append, &[&project, &run, &kind, &payload]).await?;
        if version == RUN {
            (run, version) = (Uuid::now_v7(), 0);
        }
    }
    Ok(())
}

/// An event of a run's story; the payloads are about as large as the backlog's.
fn event(version: u32) -> (&'static str, &'static str) {
    let step = r#"{"step_id": "charge_card", "kind": "http", "attempt": 1, "name": "Charge the card of the customer", "queue": "default", "worker": "worker-3"}"#;
    match (version, version % 3) {
        (1, _) => (
            "run_started",
            r#"{"workflow": "order-fulfilment", "workflow_version": 3, "trigger": "webhook", "input": {"order": "ord_48213"}}"#,
        ),
        (RUN, _) => ("run_succeeded", r#"{"output": {"steps": 3}}"#),
        (_, 2) => ("step_started", step),
        (_, 0) => (
            "log",
            r#"{"level": "info", "message": "POST /charges", "step_id": "charge_card", "fields": {"host": "payments.example", "duration_ms": 212, "request_id": "9f86d081884c7d659a2feaa0c55ad015"}}"#,
        ),
        _ => (
            "step_succeeded",
            r#"{"step_id": "charge_card", "attempt": 1, "output": {"charge": "ch_48213", "receipt": "9f86d081884c7d659a2feaa0c55ad015", "captured": true}}"#,
        ),
    }
}

/// Of all events after the warm-up, in milliseconds.
async fn percentiles(client: &Client) -> anyhow::Result<Latency> {
    let sql = format!(
        "select count(*), \
           coalesce(percentile_disc(array[0.5, 0.9, 0.99]) within group (order by ms), '{{}}'), \
           coalesce(max(ms), 0) \
         from ( \
           select 1000 * extract(epoch from \
             pg_xact_commit_timestamp(l.xmin) - pg_xact_commit_timestamp(e.xmin))::float8 as ms \
           from events as e join run_log as l using (run_id, version) \
           where e.recorded_at >= (select min(recorded_at) from events) + interval '{} s') as waits",
        WARM_UP.as_secs()
    );
    let row = client.query_one(&sql, &[]).await?;
    let percentiles: Vec<f64> = row.try_get(1)?;
    let &[p50_ms, p90_ms, p99_ms] = percentiles.as_slice() else {
        bail!("nothing was written after the warm-up");
    };
    Ok(Latency {
        events: row.try_get(0)?,
        p50_ms,
        p90_ms,
        p99_ms,
        max_ms: row.try_get(2)?,
        ..Latency::default()
    })
}
