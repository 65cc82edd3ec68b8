//! `projector tail`: the log of runs in a terminal.
//!
//! Lines are read from the read model `run_log`, a few times a second. A connection that breaks is
//! made again, and the log goes on where it was.

mod cursor;
mod line;
mod source;

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::cli::context::{cannot_connect, statement_failed};
use crate::cli::tail::line::LogLine;
use crate::cli::tail::source::{Source, Tables};
use crate::cli::{Context, Exit, TailArgs};
use crate::ident::Ident;
use crate::pg::{self, Class, Settings};

/// How often is looked for new lines: seldom enough for the database, often enough for eyes.
const EVERY: Duration = Duration::from_millis(250);

/// Between two attempts to connect again.
const RETRY: Duration = Duration::from_secs(1);

/// The read model that is read.
const RUN_LOG: &str = "run_log";

pub(super) async fn run(args: TailArgs, context: &Context) -> anyhow::Result<Exit> {
    tokio::select! {
        // Nothing is under way that could be left half done.
        exit = follow(&args, context) => exit,
        end = tokio::signal::ctrl_c() => Ok(end.map(|()| Exit::DONE)?),
    }
}

async fn follow(args: &TailArgs, context: &Context) -> anyhow::Result<Exit> {
    let settings = context.settings()?;
    let tables = Tables::new(context.config(), Ident::new(RUN_LOG)?);
    let mut client = context.connect("tail").await?;
    let cannot_read = |error| statement_failed("cannot read the log of runs", error);
    let mut source = match args.run {
        Some(run_id) => Source::run(run_id),
        None => {
            Source::runs(&client, &tables, args.project, args.since).await.map_err(cannot_read)?
        }
    };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match source.poll(&client, &tables).await {
            Ok(lines) => show(&lines, args, context)?,
            Err(error) if is_broken(&client, &error) => {
                context.out.note("lost the connection; connecting again");
                client = reconnect(&settings).await?;
                continue;
            }
            Err(error) => return Err(cannot_read(error).into()),
        }
        if args.no_follow {
            return Ok(Exit::DONE);
        }
    }
}

fn show(lines: &[LogLine], args: &TailArgs, context: &Context) -> anyhow::Result<()> {
    for line in lines {
        if context.out.is_json() {
            context.out.json(line)?;
        } else {
            context.out.line(line.text(args.run.is_none()))?;
        }
    }
    Ok(())
}

fn is_broken(client: &Client, error: &tokio_postgres::Error) -> bool {
    client.is_closed() || matches!(pg::class(error), Class::Transient)
}

/// Tries until it works, or until trying is no use.
async fn reconnect(settings: &Settings) -> anyhow::Result<Client> {
    loop {
        match pg::connect(settings, "projector tail").await {
            Ok(client) => return Ok(client),
            Err(error) if error.class() == Class::Config => {
                return Err(cannot_connect(error).into());
            }
            Err(error) => tracing::debug!(error = %error, "cannot connect yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
