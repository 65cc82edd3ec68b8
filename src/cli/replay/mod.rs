//! `projector replay`: a run's read models at an earlier moment.

pub(super) mod text;

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::cli::context::statement_failed;
use crate::cli::sidecar::definitions;
use crate::cli::{Context, Exit, Failure, ReplayArgs};
use crate::history::event::queried;
use crate::replay::archive::RUN_TYPES;
use crate::replay::run::Until;
use crate::replay::{Archive, Replay};

/// The most rows of a read model, for people and for machines.
const ROWS: (usize, usize) = (20, 1_000);

pub(super) async fn run(args: &ReplayArgs, context: &Context) -> anyhow::Result<Exit> {
    let Some(archive) = archive(context)? else { return Ok(Exit::USAGE) };
    if let Some(name) = &args.projection {
        known(&archive, name)?;
    }
    let client = context.connect("replay").await?;
    reach(args, &archive, &client).await?;
    let until = match (args.version, args.until) {
        (Some(version), _) => Until::Version(version),
        (None, Some(time)) => Until::Time(time),
        (None, None) => Until::End,
    };
    let most = if context.out.is_json() { ROWS.1 } else { ROWS.0 };
    let rows = if args.diff { 0 } else { args.rows.unwrap_or(most) };
    let mut replay = Replay::new(args.run, &archive, args.projection.as_deref(), rows);

    let none: Option<i64> = None;
    let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
        (&args.run, RUN_TYPES[0].clone()),
        (&0_i32, RUN_TYPES[1].clone()),
        (&none, RUN_TYPES[2].clone()),
    ];
    let failed = |error| statement_failed("cannot read the run's events", error);
    let sql = archive.run_sql();
    let events = client.query_typed_raw(&sql, parameters).await.map_err(failed)?;
    let mut events = pin!(events);
    while let Some(row) = events.try_next().await.map_err(failed)? {
        let event = queried(&row).map_err(failed)?;
        if !until.includes(&event) {
            break;
        }
        if !args.diff {
            replay.event(event);
            continue;
        }
        let step = replay.step(event);
        if context.out.is_json() {
            context.out.json(&step)?;
        } else {
            context.out.write(text::step(&step))?;
        }
    }
    let state = replay.state();
    if !args.diff && context.out.is_json() {
        context.out.json(&state)?;
    } else if !args.diff {
        let definitions: Vec<_> = replay.definitions().map(Arc::as_ref).collect();
        context.out.write(text::state(&state, &definitions))?;
    } else {
        text::left_out(&state.left_out).inspect(|it| context.out.note(it));
    }
    Ok(Exit::DONE)
}

/// Whether the run has got as far as is asked for.
async fn reach(args: &ReplayArgs, archive: &Archive, client: &Client) -> Result<(), Failure> {
    let failed = |error| statement_failed("cannot read the run's events", error);
    let found = client
        .query_typed(&archive.last_sql(), &[(&args.run, Type::UUID)])
        .await
        .map_err(failed)?;
    let Some(row) = found.first() else {
        let message = format!("there is no run {} in {}", args.run, archive.events);
        let hint = "`projector tail` shows the ids of runs as they go on".to_owned();
        return Err(Failure::new(message).hint(hint));
    };
    let last: i32 = row.try_get(0).map_err(failed)?;
    match args.version {
        Some(version) if last < version => {
            let message = format!("run {} has no version {version} yet", args.run);
            Err(Failure::new(message).hint(format!("its last event is version {last}")))
        }
        _ => Ok(()),
    }
}

/// Where history is, and what projections mean; `None` after the problems in their files were told.
pub(super) fn archive(context: &Context) -> anyhow::Result<Option<Archive>> {
    let Some(definitions) = definitions(context)? else { return Ok(None) };
    let config = context.config();
    Ok(Some(Archive {
        schema: config.schema.clone(),
        events: config.events_table(),
        columns: config.source.columns.clone(),
        redactor: Arc::new(context.redactor()?),
        definitions: definitions.into_iter().map(Arc::new).collect(),
    }))
}

/// A name that nothing is called by is a mistake.
pub(super) fn known(archive: &Archive, name: &str) -> Result<(), Failure> {
    if archive.definition(name).is_some() {
        return Ok(());
    }
    let names: Vec<_> = archive.definitions.iter().map(|it| it.name.as_str()).collect();
    let hint = match names.as_slice() {
        [] => "there are no definitions; see --projections".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    };
    Err(Failure::new(format!("there is no projection `{name}`")).hint(hint).exit(Exit::USAGE))
}
