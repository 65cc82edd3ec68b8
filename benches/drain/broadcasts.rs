//! A backlog with broadcasts and without: what telling viewers costs the read models.
//!
//! Both runs of a pair work off the same copied data directory, right after one another, and take turns
//! in being the first. Broadcasts go to the embedded Realtime, and are those that are shipped: each event
//! is a line of its run.

use projector::embedded::Server;

use crate::args::{Args, Transaction};
use crate::cluster::{Scratch, connect};
use crate::drain::{self, LOADED};
use crate::load;
use crate::report::{Broadcasts, ProjectorRun};

/// Loads the backlog in such transactions and measures.
pub(crate) async fn measure(
    args: &Args,
    scratch: &Scratch,
    transaction: Transaction,
) -> anyhow::Result<Broadcasts> {
    drain::prepare(args, scratch, transaction).await?;
    let mut measured = Broadcasts::new(transaction, args.events);
    for run in 1..=args.runs {
        for is_on in [run % 2 == 0, run % 2 != 0] {
            eprintln!(
                "draining: transactions of {transaction}, broadcasts {}, run {run}/{}",
                if is_on { "on" } else { "off" },
                args.runs
            );
            scratch.copy(LOADED, "run")?;
            let server = scratch.start("run").await?;
            let drained = drained(args, scratch, &server, is_on).await?;
            server.stop().await?;
            scratch.remove("run")?;
            if is_on { measured.on.push(drained) } else { measured.off.push(drained) }
        }
    }
    scratch.remove(LOADED)?;
    Ok(measured)
}

async fn drained(
    args: &Args,
    scratch: &Scratch,
    server: &Server,
    is_on: bool,
) -> anyhow::Result<ProjectorRun> {
    let client = connect(server).await?;
    let projections = scratch.projections("all")?;
    let drained = drain::drain(args, server, &client, &projections, is_on).await?;
    load::verify(&client, args, &projections.names).await?;
    Ok(drained)
}
