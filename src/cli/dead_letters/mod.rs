//! `projector dead-letters`: what was set aside, and what to do about it.
//!
//! Trying again and giving up are requests, which the sidecar carries out between two transactions of
//! the projection's lane: only it knows when the row stands still.

mod show;

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::cli::context::statement_failed;
use crate::cli::control::{is_followed, refused};
use crate::cli::{Context, DeadLettersArgs, DeadLettersCommand, Exit, Failure};

/// How often it is looked whether a request has been carried out …
const PERIOD: Duration = Duration::from_millis(100);
/// … and for how long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(args: DeadLettersArgs, context: &Context) -> anyhow::Result<Exit> {
    let client = context.connect("dead-letters").await?;
    match args.command {
        DeadLettersCommand::List { name, limit } => {
            show::list(&client, name.as_deref(), limit, context).await
        }
        DeadLettersCommand::Show { name, key } => show::show(&client, &name, &key, context).await,
        DeadLettersCommand::Retry { name, key, all: _ } => {
            request(&client, "retry", &name, key.as_deref(), context).await
        }
        DeadLettersCommand::Discard { name, key, all: _ } => {
            request(&client, "discard", &name, key.as_deref(), context).await
        }
    }
}

/// The row key that somebody means: as JSON, as `column=value,…`, or the value alone where the key is
/// one column. Values are told apart by their text, for no definition is at hand.
async fn row_key(client: &Client, name: &str, key: &str) -> Result<String, Failure> {
    let key = key.trim();
    if key.starts_with('{')
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(key)
    {
        let failure = Failure::new(format!("the key is not JSON: {error}")).exit(Exit::USAGE);
        return Err(failure.hint(format!("`projector dead-letters list {name}` shows the keys")));
    }
    let sql = "select row_key::text
         from (select distinct row_key from projector.dead_letters
               where projection = $1 and row_key is not null) d,
           lateral (select count(*) as columns, max(it.value) as value,
                      string_agg(it.key || '=' || it.value, ',' order by it.key) as pairs
                    from jsonb_each_text(row_key) it) k
         where case when left($2, 1) = '{' then row_key = $2::jsonb
             else columns = 1 and value = $2
               or pairs = (select string_agg(trim(part), ',' order by trim(split_part(part, '=', 1)))
                           from string_to_table($2, ',') part) end";
    let rows = client.query(sql, &[&name, &key]).await;
    let rows = rows.map_err(|error| statement_failed("cannot look the row up", error))?;
    match rows.as_slice() {
        [row] => Ok(row.get(0)),
        _ => Err(Failure::new(format!("`{name}` has no dead letters for the row {key}"))
            .hint(format!("`projector dead-letters list {name}` tells which there are"))
            .exit(Exit::USAGE)),
    }
}

async fn request(
    client: &Client,
    verb: &str,
    name: &str,
    key: Option<&str>,
    context: &Context,
) -> anyhow::Result<Exit> {
    let key = match key {
        Some(key) => Some(row_key(client, name, key).await?),
        None => None,
    };
    let sql = format!("select projector.{verb}_dead_letters($1, $2::text::jsonb)");
    let asked = client.query_one(&sql, &[&name, &key]).await;
    let rows: i64 = asked.map_err(|error| refused(verb, name, error))?.get(0);
    let done = if is_followed(client, context.config().source.slot.as_str()).await? {
        carried_out(client, name).await?
    } else {
        context.out.note("no sidecar runs here now; the next one carries it out");
        false
    };
    let left = "select count(distinct row_key) from projector.dead_letters
         where projection = $1 and ($2::text is null or row_key = $2::text::jsonb)";
    let left = client.query_one(left, &[&name, &key]).await;
    let left: i64 = left.map_err(|it| statement_failed("cannot count what is left", it))?.get(0);
    if context.out.is_json() {
        let answer = json!({
            "projection": name, "request": verb, "rows": rows, "done": done, "parked_keys": left,
        });
        context.out.json(&answer)?;
    } else if !done {
        context.out.line(format_args!("{name}: asked to {verb} {rows}"))?;
    } else if verb == "discard" {
        context.out.line(format_args!("{name}: {rows} given up; the rows stay as they are"))?;
        context.out.note("verify will find them different from history; a rebuild makes them anew");
    } else {
        context.out.line(format_args!("{name}: {rows} tried again, {left} still parked"))?;
    }
    Ok(if done && verb == "retry" && 0 < left { Exit::FAILED } else { Exit::DONE })
}

/// Waits until nothing is requested any more of a projection.
async fn carried_out(client: &Client, name: &str) -> Result<bool, Failure> {
    let sql = "select not exists (select from projector.dead_letters
         where projection = $1 and request is not null)";
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let row = client.query_one(sql, &[&name]).await;
        if row.map_err(|it| statement_failed("cannot see how far it is", it))?.get(0) {
            return Ok(true);
        }
        tokio::time::sleep(PERIOD).await;
    }
    Ok(false)
}
