//! `projector rebuild`: asks for rebuilds, and shows how far they are.
//!
//! The requests are rows in the database. The sidecar that runs carries them out and goes on when this
//! command is ended. Where none runs this command does it, and its end is theirs.

mod watch;

use serde_json::json;
use tokio_postgres::Client;

use crate::cli::context::statement_failed;
use crate::cli::control::{call, is_followed};
use crate::cli::sidecar::{definitions, engine};
use crate::cli::{Context, Exit, Failure, RebuildArgs};

pub(super) async fn run(args: RebuildArgs, context: &Context) -> anyhow::Result<Exit> {
    let mut client = context.connect("rebuild").await?;
    let names = if args.all { all(&client, args.cancel).await? } else { args.names };
    if args.cancel {
        return cancel(&client, &names, context).await;
    }
    if names.is_empty() {
        context.out.note("no projections yet: `projector run` makes them from their definitions");
        return Ok(Exit::DONE);
    }
    let slot = context.config().source.slot.as_str();
    if args.detach {
        let requested = request(&mut client, &names).await?;
        return detached(&client, &names, &requested, slot, context).await;
    }
    if is_followed(&client, slot).await? {
        let requested = request(&mut client, &names).await?;
        return watch::run(&client, &requested, slot, context).await;
    }
    let Some(definitions) = definitions(context)? else {
        return Ok(Exit::USAGE);
    };
    let engine = engine(context, context.settings()?, definitions)?;
    let requested = request(&mut client, &names).await?;
    watch::carry_out(&engine, &client, (&names, &requested), slot, context).await
}

/// All that can be rebuilt; or, to cancel, all that are being.
async fn all(client: &Client, cancel: bool) -> Result<Vec<String>, Failure> {
    let sql = if cancel {
        "select projection from projector.rebuilds where finished_at is null order by projection"
    } else {
        "select name from projector.projections
         where state <> 'detached' and paused_at is null order by name"
    };
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(|error| statement_failed("cannot read the control tables", error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The numbers of the rebuilds: all of them are asked for or, where one is refused, none.
async fn request(client: &mut Client, names: &[String]) -> Result<Vec<i64>, Failure> {
    let explain = |error| statement_failed("cannot ask for a rebuild", error);
    let transaction = client.transaction().await.map_err(explain)?;
    let mut requested = Vec::with_capacity(names.len());
    for name in names {
        requested.push(call(&transaction, "rebuild", name).await?.get(0));
    }
    transaction.commit().await.map_err(explain)?;
    Ok(requested)
}

async fn detached(
    client: &Client,
    names: &[String],
    requested: &[i64],
    slot: &str,
    context: &Context,
) -> anyhow::Result<Exit> {
    if context.out.is_json() {
        let one = |(name, id)| json!({ "projection": name, "rebuild": id, "phase": "requested" });
        let list: Vec<_> = names.iter().zip(requested).map(one).collect();
        context.out.json(&json!({ "rebuilds": list }))?;
    }
    for name in names.iter().filter(|_| !context.out.is_json()) {
        context.out.line(format_args!("asked for a rebuild of {name}"))?;
    }
    if !is_followed(client, slot).await? {
        context.out.note("no sidecar runs here now; the next one carries it out");
    }
    Ok(Exit::DONE)
}

async fn cancel(client: &Client, names: &[String], context: &Context) -> anyhow::Result<Exit> {
    let mut list = Vec::with_capacity(names.len());
    for name in names {
        let canceled: bool = call(client, "cancel_rebuild", name).await?.get(0);
        list.push(json!({ "projection": name, "canceled": canceled }));
        if !context.out.is_json() {
            let text = if canceled { "canceled the rebuild of" } else { "nothing to cancel for" };
            context.out.line(format_args!("{text} {name}"))?;
        }
    }
    if context.out.is_json() {
        context.out.json(&json!({ "rebuilds": list }))?;
    }
    Ok(Exit::DONE)
}
