//! Rebuilds from history beside a running stream, against one set-based statement a table.
//!
//! Both run in turns on the same server with the same history, so that what disturbs one disturbs the
//! other. A rebuild counts from the request until its rows serve: snapshot, fold, keys, indexes, swap.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio_postgres::Client;

use crate::args::Args;
use crate::cluster::{Scratch, connect, until, url};
use crate::load;
use crate::process;
use crate::report::Rebuild;
use crate::sidecar::{Sidecar, migrate};

/// What is bound to end by itself.
const LIMIT: Duration = Duration::from_secs(900);

/// Loads a backlog and rebuilds each set of projections, as often as was asked for.
pub(crate) async fn measure(args: &Args, scratch: &Scratch) -> anyhow::Result<Vec<Rebuild>> {
    let server = scratch.start("rebuild").await?;
    migrate(&server.socket_url())?;
    let client = connect(&server).await?;
    eprintln!("loading {} events", args.events);
    load::history(&client, args, args.events).await?;
    let shipped = scratch.projections("all")?;
    let mut sidecar = Sidecar::start(&url(&server, args.transport), &shipped.folder, false)?;
    sidecar.ready().await?;
    load::verify(&client, args, &shipped.names).await?;
    let mut list = Vec::new();
    for run in 1..=args.runs {
        for set in &args.projections {
            let names = scratch.projections(set)?.names;
            eprintln!("rebuilding: {set}, run {run}/{}", args.runs);
            let reference_seconds = reference(&client, &names).await?;
            let seconds = rebuild(&client, &names).await?;
            sidecar.check()?;
            let peak_mib = process::peak_mib(sidecar.pid())?;
            let projections = set.clone();
            list.push(Rebuild { projections, reference_seconds, seconds, peak_mib });
        }
    }
    load::verify(&client, args, &shipped.names).await?;
    sidecar.stop()?;
    server.stop().await?;
    Ok(list)
}

/// How long the statements of these read models take together.
async fn reference(client: &Client, names: &[String]) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for name in names {
        let heading = format!("-- {name}\n");
        let (_, rest) = include_str!("rebuild.sql")
            .split_once(&heading)
            .with_context(|| format!("no statement for {name}"))?;
        let statement = rest.split(';').next().unwrap_or_default();
        let began = Instant::now();
        client.batch_execute(statement).await?;
        seconds += began.elapsed().as_secs_f64();
        client.batch_execute(&format!("drop table bench.{name}")).await?;
    }
    Ok(seconds)
}

pub(crate) async fn rebuild(client: &Client, names: &[String]) -> anyhow::Result<f64> {
    let began = Instant::now();
    let request = "select projector.rebuild(name) from unnest($1::text[]) as name";
    client.execute(request, &[&names]).await?;
    until("the rebuilds", LIMIT, async || {
        let open = "select count(*) from projector.rebuilds where finished_at is null";
        Ok(client.query_one(open, &[]).await?.try_get::<_, i64>(0)? == 0)
    })
    .await?;
    let seconds = began.elapsed().as_secs_f64();
    let failed = "select string_agg(projection || ': ' || coalesce(error, phase), '; ')
         from projector.rebuilds where phase <> 'done'";
    let failed: Option<String> = client.query_one(failed, &[]).await?.try_get(0)?;
    ensure!(failed.is_none(), "{}", failed.unwrap_or_default());
    Ok(seconds)
}
