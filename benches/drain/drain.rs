//! A backlog: how fast projector works it off, and how fast `pg_recvlogical` reads it.
//!
//! The loaded data directory is kept and copied for each pair of measurements, so that both
//! programs begin from the same slot position, with the same table, in a server that has just
//! started.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use projector::embedded::Server;
use tokio_postgres::Client;

use crate::args::{Args, Transaction};
use crate::cluster::{Projections, Scratch, connect, until, url};
use crate::load;
use crate::process;
use crate::report::{Drain, ProjectorRun, ReferenceRun};
use crate::sidecar::{Sidecar, migrate};

/// What is bound to end by itself.
const LIMIT: Duration = Duration::from_secs(900);

/// What every measurement starts from.
pub(crate) const LOADED: &str = "loaded";

/// Loads the backlog in such transactions and measures each set of projections.
pub(crate) async fn measure(
    args: &Args,
    scratch: &Scratch,
    transaction: Transaction,
) -> anyhow::Result<Vec<Drain>> {
    let (end, row_bytes) = prepare(args, scratch, transaction).await?;
    let mut drains = Vec::new();
    for set in &args.projections {
        let mut drain = Drain::new(set, transaction, args.events, row_bytes);
        for run in 1..=args.runs {
            eprintln!("draining: transactions of {transaction}, {set}, run {run}/{}", args.runs);
            scratch.copy(LOADED, "run")?;
            let (reference, projector) = pair(args, scratch, set, &end).await?;
            drain.reference.push(reference);
            drain.projector.push(projector);
            scratch.remove("run")?;
        }
        drains.push(drain);
    }
    scratch.remove(LOADED)?;
    Ok(drains)
}

/// Makes the data directory: slots first, then the events. Returns where they end in the log.
pub(crate) async fn prepare(
    args: &Args,
    scratch: &Scratch,
    transaction: Transaction,
) -> anyhow::Result<(String, f64)> {
    eprintln!("loading {} events in transactions of {transaction}", args.events);
    let server = scratch.start(LOADED).await?;
    migrate(&server.socket_url())?;
    // Its slot is made, and so are the empty read models. Broadcasts begin before the first event.
    let projections = scratch.projections("all")?;
    let mut sidecar = Sidecar::start(&server.socket_url(), &projections.folder, true)?;
    sidecar.ready().await?;
    sidecar.stop()?;
    let client = connect(&server).await?;
    let slot = "select pg_create_logical_replication_slot('bench_ref', 'pgoutput')";
    client.execute(slot, &[]).await?;
    let end = load::load(&client, args, args.events, transaction.size(args.events)).await?;
    let row_bytes = load::row_bytes(&client).await?;
    server.stop().await?;
    Ok((end, row_bytes))
}

async fn pair(
    args: &Args,
    scratch: &Scratch,
    set: &str,
    end: &str,
) -> anyhow::Result<(ReferenceRun, ProjectorRun)> {
    let server = scratch.start("run").await?;
    let client = connect(&server).await?;
    let reference = read(args, scratch, &server, &client, end).await?;
    let projections = scratch.projections(set)?;
    let projector = drain(args, &server, &client, &projections, false).await?;
    load::verify(&client, args, &projections.names).await?;
    server.stop().await?;
    Ok((reference, projector))
}

/// `pg_recvlogical` from its slot to `/dev/null`.
async fn read(
    args: &Args,
    scratch: &Scratch,
    server: &Server,
    client: &Client,
    end: &str,
) -> anyhow::Result<ReferenceRun> {
    let started = Instant::now();
    let mut child = Command::new(scratch.program("pg_recvlogical")?)
        .args(["--start", "--slot", "bench_ref", "--no-loop", "--file", "/dev/null"])
        .args(["--option", "proto_version=1", "--option", "publication_names=projector"])
        .args(["--endpos", end, "--dbname", &url(server, args.transport)])
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start pg_recvlogical")?;
    let walsender_seconds = follow_walsender(client, &child).await?;
    let cpu_seconds = process::wait(&mut child)?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(ReferenceRun { seconds, cpu_seconds, walsender_seconds })
}

/// Looks at the walsender until its reader ends; it ends with it, and its times are gone then.
async fn follow_walsender(client: &Client, child: &Child) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    let mut pid = None;
    until("pg_recvlogical", LIMIT, async || {
        if pid.is_none() {
            pid = backends(client, "walsender").await?.first().copied();
        }
        // Gone together with its reader.
        if let Some(now) = pid.and_then(|it| process::cpu_seconds(it).ok()) {
            seconds = now;
        }
        process::has_ended(child)
    })
    .await?;
    Ok(seconds)
}

/// `projector run` until its checkpoints have counted every event.
pub(crate) async fn drain(
    args: &Args,
    server: &Server,
    client: &Client,
    projections: &Projections,
    broadcasts: bool,
) -> anyhow::Result<ProjectorRun> {
    let done = "select count(*) = 0 from projector.checkpoints \
                where projection = any($1) and events < $2";
    let done = client.prepare(done).await?;
    let mut sidecar =
        Sidecar::start(&url(server, args.transport), &projections.folder, broadcasts)?;
    let ready = sidecar.ready().await?;
    until("projector", LIMIT, async || {
        sidecar.check()?;
        let events = i64::from(args.events);
        Ok(client.query_one(&done, &[&projections.names, &events]).await?.try_get(0)?)
    })
    .await?;
    let ended = Instant::now();
    let run = ProjectorRun {
        seconds: (ended - sidecar.started).as_secs_f64(),
        seconds_from_ready: (ended - ready).as_secs_f64(),
        cpu_seconds: process::cpu_seconds(sidecar.pid())?,
        peak_mib: process::peak_mib(sidecar.pid())?,
        walsender_seconds: cpu_of(client, "walsender").await?,
        backends_seconds: cpu_of(client, "client backend").await?,
        told: if broadcasts { Some(sidecar.told().await?) } else { None },
    };
    sidecar.stop()?;
    Ok(run)
}

/// The processor time of the server's processes of a kind that work for projector or its like.
async fn cpu_of(client: &Client, kind: &str) -> anyhow::Result<f64> {
    let pids = backends(client, kind).await?;
    pids.into_iter().map(process::cpu_seconds).sum()
}

async fn backends(client: &Client, kind: &str) -> anyhow::Result<Vec<i32>> {
    let sql = "select pid from pg_stat_activity \
               where backend_type = $1 and pid <> pg_backend_pid()";
    let rows = client.query(sql, &[&kind]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
