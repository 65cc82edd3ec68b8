//! Dead letters, row by row, and those of one row.

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::cli::context::statement_failed;
use crate::cli::dead_letters::row_key;
use crate::cli::figure::duration;
use crate::cli::out::{BOLD, WIDTH, cut, styled};
use crate::cli::{Context, Exit};

/// Letters of one row that are shown.
const SHOWN: i64 = 50;

/// One entry a parked row, and one an event without a row: the oldest first.
pub(super) async fn list(
    client: &Client,
    name: Option<&str>,
    limit: u32,
    context: &Context,
) -> anyhow::Result<Exit> {
    let sql = "with letters as (
             select d.*, coalesce(row_key::text, id::text) as place from projector.dead_letters d
             where exists (select from projector.projections p where p.name = d.projection)
               and ($1::text is null or d.projection = $1)
           ), places as (
             select projection, place, min(id) as id, count(*) as events, min(created_at) as since
             from letters group by projection, place order by min(id) limit $2
           )
         select p.projection, l.row_key::text, p.events,
           extract(epoch from clock_timestamp() - p.since)::float8,
           l.run_id::text, l.version, l.type, l.rule, l.error, l.attempts, l.request
         from places p join letters l on l.id = p.id order by p.id";
    let rows = client.query(sql, &[&name, &i64::from(limit)]).await;
    let rows = rows.map_err(|error| statement_failed("cannot read the dead letters", error))?;
    let out = &context.out;
    let mut list = Vec::with_capacity(rows.len());
    for row in &rows {
        let (projection, key): (String, Option<String>) = (row.get(0), row.get(1));
        let (events, seconds): (i64, f64) = (row.get(2), row.get(3));
        let (run, version, kind): (String, i32, String) = (row.get(4), row.get(5), row.get(6));
        let (rule, error): (Option<String>, String) = (row.get(7), row.get(8));
        if out.is_json() {
            list.push(json!({
                "projection": projection, "row_key": parsed(key.as_deref()), "events": events,
                "oldest_seconds": seconds, "run_id": run, "version": version, "type": kind,
                "rule": rule, "error": error, "attempts": row.get::<_, i32>(9),
                "request": row.get::<_, Option<String>>(10),
            }));
            continue;
        }
        let key = key.unwrap_or_else(|| "no row".to_owned());
        let more = if events == 1 { "1 event".to_owned() } else { format!("{events} events") };
        let head = format!("{projection}  {key}  {more}, {}", duration(seconds));
        out.line(styled(BOLD, cut(&head, WIDTH)))?;
        out.line(cut(&format!("  {kind}  {run}/{version}"), WIDTH))?;
        out.line(cut(&format!("  {error}"), WIDTH))?;
    }
    if out.is_json() {
        out.json(&json!({ "dead_letters": list }))?;
    } else if rows.is_empty() {
        out.line("nothing is set aside")?;
    }
    Ok(Exit::DONE)
}

/// The letters of one row with their payloads, secrets hidden.
pub(super) async fn show(
    client: &Client,
    name: &str,
    key: &str,
    context: &Context,
) -> anyhow::Result<Exit> {
    let key = row_key(client, name, key).await?;
    let sql = "select lsn::text, position, run_id::text, version, type, rule, error, payload::text,
           attempts, created_at::text
         from projector.dead_letters where projection = $1 and row_key = $2::text::jsonb
         order by id limit $3";
    let rows = client.query(sql, &[&name, &key, &SHOWN]).await;
    let rows = rows.map_err(|error| statement_failed("cannot read the dead letters", error))?;
    let redactor = context.redactor()?;
    let out = &context.out;
    let mut list = Vec::with_capacity(rows.len());
    for row in &rows {
        let payload: Option<String> = row.get(7);
        let payload = payload.map(|it| redactor.apply(&it).into_owned()).unwrap_or_default();
        let (rule, error): (Option<String>, String) = (row.get(5), row.get(6));
        if out.is_json() {
            list.push(json!({
                "lsn": row.get::<_, String>(0), "position": row.get::<_, i64>(1),
                "run_id": row.get::<_, String>(2), "version": row.get::<_, i32>(3),
                "type": row.get::<_, String>(4), "rule": rule, "error": error,
                "payload": parsed(Some(&payload)), "attempts": row.get::<_, i32>(8),
                "created_at": row.get::<_, String>(9),
            }));
            continue;
        }
        let (kind, run, version): (String, String, i32) = (row.get(4), row.get(2), row.get(3));
        out.line(styled(BOLD, format!("{kind}  {run}/{version}")))?;
        let position: i64 = row.get(1);
        out.line(format_args!("  position {position}, lsn {}", row.get::<_, String>(0)))?;
        if let Some(rule) = rule {
            out.line(format_args!("  rule     {rule}"))?;
        }
        out.line(format_args!("  error    {error}"))?;
        out.line(format_args!("  payload  {payload}"))?;
    }
    if out.is_json() {
        let row_key = parsed(Some(&key));
        out.json(&json!({ "projection": name, "row_key": row_key, "dead_letters": list }))?;
    }
    Ok(Exit::DONE)
}

fn parsed(json: Option<&str>) -> Value {
    json.and_then(|it| serde_json::from_str(it).ok()).unwrap_or_default()
}
