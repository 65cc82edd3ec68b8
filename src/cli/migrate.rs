//! `projector migrate`: the schema brought up to date, and told.

use serde_json::json;

use crate::cli::out::{BOLD, GOOD, WARN, styled};
use crate::cli::{Context, Exit, Failure, MigrateArgs};
use crate::migrate::{self, MigrateError};
use crate::pg::Remarks;

pub(super) async fn run(args: &MigrateArgs, context: &Context) -> anyhow::Result<Exit> {
    let schema = context.config().events_schema();
    if args.print {
        context.out.write(migrate::print(schema).map_err(explain)?)?;
        return Ok(Exit::DONE);
    }
    let remarks = Remarks::default();
    let mut client = context.connect_listening("migrate", &remarks).await?;
    if args.dry_run {
        let pending = migrate::plan(&client).await.map_err(explain)?;
        let names: Vec<_> =
            pending.iter().map(|it| format!("{}_{}", it.version, it.name)).collect();
        if context.out.is_json() {
            context.out.json(&json!({ "pending": names }))?;
        } else if names.is_empty() {
            context.out.line("up to date")?;
        }
        for name in names.iter().filter(|_| !context.out.is_json()) {
            context.out.line(format_args!("would apply {name}"))?;
        }
        return Ok(Exit::DONE);
    }
    let mut report = migrate::apply(&mut client, schema).await.map_err(explain)?;
    // what a superuser must run is told by itself
    let is_advice = |it: &String| report.advice.iter().any(|advice| it.contains(advice));
    report.warnings = remarks.take().into_iter().filter(|it| !is_advice(it)).collect();
    if context.out.is_json() {
        context.out.json(&report)?;
        return Ok(Exit::DONE);
    }
    for it in &report.applied {
        context.out.line(format_args!("{} {}_{}", styled(GOOD, "applied"), it.version, it.name))?;
    }
    if 0 < report.partitions {
        context.out.line(format_args!("made {} monthly partitions ahead", report.partitions))?;
    }
    if report.applied.is_empty() && report.partitions == 0 {
        context.out.line("up to date")?;
    }
    for it in &report.warnings {
        context.out.note(format_args!("{} {it}", styled(WARN, "warning:")));
    }
    if !report.advice.is_empty() {
        context.out.note(styled(BOLD, "a superuser must still run, before `projector run`:"));
        for statement in &report.advice {
            context.out.note(format_args!("  {statement}"));
        }
    }
    Ok(Exit::DONE)
}

pub(super) fn explain(error: MigrateError) -> Failure {
    let exit = match error {
        MigrateError::SchemaName(_) | MigrateError::OtherSchema(_) => Exit::USAGE,
        _ => Exit::FAILED,
    };
    let hint = error.hint().map(str::to_owned);
    Failure::new("cannot migrate").hint(hint).exit(exit).caused_by(error)
}
