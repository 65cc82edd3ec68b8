//! `projector wait`: until the rows of a projection include everything committed before a position.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::cli::context::statement_failed;
use crate::cli::control::refused;
use crate::cli::{Context, Exit, Failure, WaitArgs};
use crate::lsn::Lsn;

/// How long to sleep between two looks: at first, and at most.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_LONGEST: Duration = Duration::from_millis(50);

pub(super) async fn run(args: &WaitArgs, context: &Context) -> anyhow::Result<Exit> {
    let until = Instant::now() + args.timeout.duration();
    let client = context.connect("wait").await?;
    let lsn = ask(&client, args.lsn).await?;
    let mut pause = PAUSE;
    while !has_reached(&client, &args.name, lsn).await? {
        if until <= Instant::now() {
            let message =
                format!("projection `{}` has not reached {lsn} within {}", args.name, args.timeout);
            let hint = "`projector status` says how far it is, and whether anything runs";
            return Err(Failure::new(message).hint(hint.to_owned()).into());
        }
        sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 3 / 2).min(PAUSE_LONGEST);
    }
    if context.out.is_json() {
        context.out.json(&json!({ "projection": args.name, "lsn": lsn, "reached": true }))?;
    } else {
        context.out.line(format_args!("{} has reached {lsn}", args.name))?;
    }
    Ok(Exit::DONE)
}

async fn has_reached(client: &Client, name: &str, lsn: Lsn) -> Result<bool, Failure> {
    let sql = "select projector.has_reached($1, $2)";
    let row = client.query_one(sql, &[&name, &lsn]).await;
    Ok(row.map_err(|error| refused("wait for", name, error))?.get(0))
}

/// The position to wait for, once a message lies behind it in the log that lets checkpoints move up
/// to it.
async fn ask(client: &Client, lsn: Option<Lsn>) -> Result<Lsn, Failure> {
    let explain = |error| statement_failed("cannot ask for the end of the log", error);
    let sql = "select pg_current_wal_insert_lsn()";
    let end: Lsn = client.query_one(sql, &[]).await.map_err(explain)?.get(0);
    let lsn = lsn.unwrap_or(end);
    if end < lsn {
        let message = format!("position {lsn} is beyond the end of the log, {end}");
        let hint = "a position means something only on the server that gave it";
        return Err(Failure::new(message).hint(hint.to_owned()).exit(Exit::USAGE));
    }
    let sql = "select pg_logical_emit_message(true, 'projector', 'wait')";
    client.execute(sql, &[]).await.map_err(explain)?;
    Ok(lsn)
}
