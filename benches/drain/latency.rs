//! How long after its commit an event is visible in `run_log`, under a steady load.
//!
//! Both times are the server's own, of the transactions that wrote the event and its row
//! (`track_commit_timestamp`), so no client's clock or poll is in them. A transaction takes its time
//! before its commit record is flushed: the writer's wait for the disk counts as latency. The
//! read model's transaction takes its time some microseconds before others see its rows.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::args::{Args, Load};
use crate::cluster::{Scratch, connect, until, url};
use crate::load;
use crate::process;
use crate::rebuild::rebuild;
use crate::report::Latency;
use crate::sidecar::{Sidecar, migrate};

/// What does not count: caches fill, connections open.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long the last rows may take.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Events of a run.
const RUN: i32 = 20;

/// Appends `rate` events a second, each in a transaction of its own, to a projector with all
/// projections.
pub(crate) async fn measure(
    args: &Args,
    scratch: &Scratch,
    rate: u32,
) -> anyhow::Result<Vec<Latency>> {
    eprintln!("latency: {rate} events/s for {} s", args.seconds);
    let server = scratch.start("live").await?;
    migrate(&server.socket_url())?;
    let projections = scratch.projections("all")?;
    if let Some(events) = args.beside_rebuild {
        eprintln!("loading {events} events");
        load::history(&connect(&server).await?, args, events).await?;
    }
    let mut sidecar = Sidecar::start(&url(&server, args.transport), &projections.folder, false)?;
    sidecar.ready().await?;

    let client = connect(&server).await?;
    let began: String =
        client.query_one("select clock_timestamp()::text", &[]).await?.try_get(0)?;
    let first = Instant::now() + Duration::from_millis(100);
    let period = Duration::from_secs(1) * args.writers / rate;
    // with rebuilds, as long again
    let halves = if args.beside_rebuild.is_some() { 2 } else { 1 };
    let seconds = u64::from(args.seconds * halves) + WARM_UP.as_secs();
    let appends = u64::from(rate) * seconds / u64::from(args.writers);
    let load = args.load;
    let mut writers = JoinSet::new();
    for number in 0..args.writers {
        let client = connect(&server).await?;
        // Evenly spread: never all of them at the same moment.
        let first = first + period * number / args.writers;
        writers.spawn(async move { write(client, first, period, appends, load).await });
    }
    let half = Duration::from_secs(args.seconds.into());
    let rebuilds = match args.beside_rebuild {
        Some(_) => rebuilds(&client, first + WARM_UP + half, half).await?,
        None => 0,
    };
    let mut waits = Vec::new();
    while let Some(ended) = writers.join_next().await {
        waits.extend(ended.context("a writer panicked")??);
    }
    let seconds = first.elapsed().as_secs_f64();

    until("the last row", CATCH_UP, async || {
        sidecar.check()?;
        let sql = "select (select count(*) from events) = (select count(*) from run_log)";
        Ok(client.query_one(sql, &[]).await?.try_get(0)?)
    })
    .await?;
    let whole = Latency {
        wanted_rate: rate,
        rate: appends as f64 * f64::from(args.writers) / seconds,
        cpu_share: process::cpu_seconds(sidecar.pid())? / seconds,
        peak_mib: process::peak_mib(sidecar.pid())?,
        append_p50_ms: percentile(&mut waits, 50),
        append_p99_ms: percentile(&mut waits, 99),
        ..Latency::default()
    };
    let mut latencies = Vec::new();
    for beside in 0..halves {
        let from = WARM_UP + half * beside;
        let mut part = percentiles(&client, &began, (from, from + half), &whole).await?;
        part.rebuilds = rebuilds * beside;
        latencies.push(part);
    }
    sidecar.stop()?;
    server.stop().await?;
    scratch.remove("live")?;
    Ok(latencies)
}

/// One worker: run after run, an event each `period`. Returns how long each took, in milliseconds.
async fn write(
    client: Client,
    first: Instant,
    period: Duration,
    appends: u64,
    load: Load,
) -> anyhow::Result<Vec<f64>> {
    // Planned once: the load is to cost little beside what is measured.
    client.batch_execute("set plan_cache_mode = force_generic_plan").await?;
    let append = client
        .prepare(match load {
            Load::Insert => {
                "insert into events (project_id, run_id, version, type, payload, metadata) \
                 values ($1, $2, $3, $4, $5::text::jsonb, '{}')"
            }
            Load::AppendEvents => {
                "select version from append_events($1, $2, $3 - 1, jsonb_build_array( \
                 jsonb_build_object('type', $4::text, 'payload', $5::text::jsonb)))"
            }
        })
        .await?;
    let project = Uuid::from_u128(0x7d1f_8b52_4c0e_4a36_9b1d_2f6c_35a1_e801);
    let mut run = Uuid::now_v7();
    let mut version: i32 = 0;
    let mut ticks = interval_at(first, period);
    // A late writer catches up: the load is what was asked for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut waits = Vec::new();
    for _ in 0..appends {
        ticks.tick().await;
        version += 1;
        let (kind, payload) = event(version);
        let sent = Instant::now();
        client.execute(&append, &[&project, &run, &version, &kind, &payload]).await?;
        waits.push(1000.0 * sent.elapsed().as_secs_f64());
        if version == RUN {
            (run, version) = (Uuid::now_v7(), 0);
        }
    }
    Ok(waits)
}

/// An event of a run's story; the payloads are about as large as the backlog's.
fn event(version: i32) -> (&'static str, &'static str) {
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

/// The least value that so many of a hundred do not exceed.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// Rebuilds `run_status` again and again for so long, from a moment on. Returns how often.
async fn rebuilds(client: &Client, from: Instant, length: Duration) -> anyhow::Result<u32> {
    sleep_until(from).await;
    let mut count = 0;
    while from.elapsed() < length {
        rebuild(client, &["run_status".to_owned()]).await?;
        count += 1;
    }
    Ok(count)
}

/// Of all events recorded in a part of the time, in milliseconds.
async fn percentiles(
    client: &Client,
    began: &str,
    (from, until): (Duration, Duration),
    whole: &Latency,
) -> anyhow::Result<Latency> {
    let sql = format!(
        "select count(*), \
           coalesce(percentile_disc(array[0.5, 0.9, 0.99]) within group (order by ms), '{{}}'), \
           coalesce(max(ms), 0) \
         from ( \
           select 1000 * extract(epoch from \
             pg_xact_commit_timestamp(l.xmin) - pg_xact_commit_timestamp(e.xmin))::float8 as ms \
           from events as e join run_log as l using (run_id, version) \
           where e.recorded_at >= timestamptz '{began}' + interval '{} s' \
             and e.recorded_at < timestamptz '{began}' + interval '{} s') as waits",
        from.as_secs(),
        until.as_secs(),
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
        ..whole.clone()
    })
}
