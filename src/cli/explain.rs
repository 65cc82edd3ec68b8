//! `projector explain`: which events made a row what it is.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::cli::context::statement_failed;
use crate::cli::out::{BAD, BOLD, DIM, GOOD, WARN, WIDTH, cut, styled};
use crate::cli::replay::text::{aside, column, plain, sign};
use crate::cli::replay::{archive, known};
use crate::cli::{Context, Exit, ExplainArgs, Failure};
use crate::definition::{Definition, Value};
use crate::history::event::queried;
use crate::replay::change::Kind;
use crate::replay::explain::{Explain, Explanation, LiveRow, Touch, Verdict};
use crate::replay::{Archive, key};

pub(super) async fn run(args: &ExplainArgs, context: &Context) -> anyhow::Result<Exit> {
    let Some(archive) = archive(context)? else { return Ok(Exit::USAGE) };
    known(&archive, &args.table)?;
    let Some(definition) = archive.definition(&args.table) else { return Ok(Exit::USAGE) };
    if definition.sql.is_some() {
        let message = format!("the rows of `{}` are made by a statement, not by rules", args.table);
        let hint = "`projector verify` compares them with history".to_owned();
        return Err(Failure::new(message).hint(hint).exit(Exit::USAGE).into());
    }
    let key = key::parse(definition, &args.key).map_err(|error| {
        let hint = error.hint.clone();
        Failure::new(error.to_string()).hint(hint).exit(Exit::USAGE)
    })?;
    let client = context.connect("explain").await?;
    // before history, so that the row is never ahead of it
    let live = live_row(&archive, definition, &key, &client).await?;

    let failed = |error| statement_failed("cannot read history", error);
    let scan = archive.scan(definition, &key);
    let none: Option<i64> = None;
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
        scan.texts.iter().map(|it| (it as &(dyn ToSql + Sync), Type::TEXT)).collect();
    parameters.push((&i64::MIN, Type::INT8));
    parameters.push((&none, Type::INT8));
    let events = client.query_typed_raw(&scan.sql, parameters).await.map_err(failed)?;
    let mut events = pin!(events);
    let redactor = Arc::clone(&archive.redactor);
    let mut explain = Explain::new(definition, key, live, redactor, args.limit);
    let counter = context.out.counter("events read");
    while let Some(row) = events.try_next().await.map_err(failed)? {
        explain.event(queried(&row).map_err(failed)?);
        counter.inc(1);
        if explain.is_stopped() {
            break;
        }
    }
    counter.finish_and_clear();
    let explanation = explain.finish(true);
    if context.out.is_json() {
        context.out.json(&explanation)?;
    } else {
        context.out.write(text(&explanation, definition))?;
    }
    Ok(Exit::DONE)
}

async fn live_row(
    archive: &Archive,
    definition: &Definition,
    key: &[Value<'_>],
    client: &Client,
) -> anyhow::Result<LiveRow> {
    let (sql, texts) = archive.live_row(definition, key);
    let parameters: Vec<_> =
        texts.iter().map(|it| (it as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let rows = match client.query_typed(&sql, &parameters).await {
        Ok(rows) => rows,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            return Ok(LiveRow::Unknown);
        }
        Err(error) => return Err(statement_failed("cannot read the row", error).into()),
    };
    let Some(row) = rows.first() else { return Ok(LiveRow::Missing) };
    Ok(LiveRow::Row(serde_json::from_str(row.try_get(0)?)?))
}

fn text(it: &Explanation, definition: &Definition) -> String {
    let key: Vec<_> =
        it.key.iter().map(|(name, it)| format!("{name}={}", plain(Some(it)))).collect();
    let head = cut(&format!("{}  {}", it.table, key.join(" ")), WIDTH);
    let mut text = format!("{}\n", styled(BOLD, head));
    let hidden = it.touched - it.events.len();
    if 0 < hidden {
        let note = format!("the last {} of {} events", it.events.len(), it.touched);
        text.push_str(&format!("{}\n", styled(DIM, note)));
    }
    let one_run = definition.belongs_to_runs();
    for touch in &it.events {
        text.push_str(&event(touch, one_run));
    }
    if let Some(fault) = &it.fault {
        let fault = fault.replace(|it: char| it.is_control(), " ");
        text.push_str(&format!("{} {fault}\n", styled(BAD, "stopped:")));
    }
    text.push('\n');
    text.push_str(&match (&it.row, it.touched) {
        (_, 0) => format!("no event touched this row ({} read)\n", it.read),
        (None, _) => "the row is gone: the last event above removed it\n".to_owned(),
        (Some(_), 1) => "1 event made this row\n".to_owned(),
        (Some(_), touched) => format!("{touched} events made this row\n"),
    });
    text.push_str(&verdict(it));
    text
}

/// `12  step_failed  time`, and a column a line with what wrote it.
fn event(touch: &Touch, one_run: bool) -> String {
    let (sign, style) = sign(touch.change);
    let place = match one_run {
        true => format!("{:>5}", touch.version),
        false => format!("{} {}", touch.position, touch.run_id),
    };
    let head = format!("{place}  {}", cut(&touch.kind, 24));
    let mut text = format!("{} {}", styled(style, sign), styled(BOLD, head));
    if one_run {
        text.push_str(&format!("  {}", styled(DIM, &touch.recorded_at)));
    }
    text.push('\n');
    if touch.change == Kind::Removed {
        let mut by: Vec<_> = touch.columns.iter().flat_map(|it| &it.by).collect();
        by.dedup();
        if let Some(by) = by.first() {
            text.push_str(&format!("    row removed  {}\n", styled(DIM, by)));
        }
        return text;
    }
    for it in touch.columns.iter().filter(|it| it.by.first().is_none_or(|it| it != "key")) {
        let line = column(it, touch.change == Kind::Added, 4);
        text.push_str(&with_place(&line, &it.by));
    }
    if let Some(error) = &touch.error {
        text.push_str(&aside(error, 4));
    } else if touch.columns.is_empty() {
        text.push_str(&format!("    {}\n", styled(DIM, "nothing changed")));
    }
    text
}

/// A line with what wrote the column at its right end, or below it where there is no room.
fn with_place(line: &str, by: &[String]) -> String {
    // the folder is the same for all
    let short = |it: &String| it.rsplit('/').next().unwrap_or_default().to_owned();
    let by: Vec<_> = by.iter().map(short).collect();
    let by = cut(&by.join(" "), WIDTH - 26);
    let line = line.trim_end();
    let room = WIDTH.saturating_sub(line.chars().count() + 2);
    if room < by.chars().count() {
        return format!("{line}\n{}\n", styled(DIM, format_args!("{by:>WIDTH$}")));
    }
    format!("{line}  {}\n", styled(DIM, format_args!("{by:>room$}")))
}

fn verdict(it: &Explanation) -> String {
    match &it.live {
        Verdict::Agrees if it.row.is_none() => {
            format!("{}: the table has no such row\n", styled(GOOD, "agrees"))
        }
        Verdict::Agrees => format!("{}: the live row says the same\n", styled(GOOD, "agrees")),
        Verdict::Behind { events } => {
            let plural = if *events == 1 { "event" } else { "events" };
            format!(
                "{}: the live row is as it was {events} {plural} ago; is the projection behind? \
                 (projector status)\n",
                styled(WARN, "behind")
            )
        }
        Verdict::Extra => {
            format!("{}: the table has a row where history has none\n", styled(BAD, "differs"))
        }
        Verdict::Missing => format!(
            "{}: the table has no such row; is the projection behind? (projector status)\n",
            styled(BAD, "missing")
        ),
        Verdict::Differs { columns } => {
            let mut text = format!("{}: the live row is another\n", styled(BAD, "differs"));
            for it in columns {
                let (live, history) = (plain(Some(&it.live)), plain(Some(&it.history)));
                text.push_str(&format!(
                    "    {:<20}  live {}, history {}\n",
                    cut(&it.column, 20),
                    cut(&live, 20),
                    cut(&history, 20)
                ));
            }
            text
        }
        Verdict::Unknown => "not compared: there is no table\n".to_owned(),
    }
}
