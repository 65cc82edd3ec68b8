//! `projector pause` and `projector resume`: intents, which the sidecar finds within a second.

use serde_json::json;

use crate::cli::context::statement_failed;
use crate::cli::control::{call, is_followed};
use crate::cli::{Context, Exit, PauseArgs, ResumeArgs};

pub(super) async fn pause(args: &PauseArgs, context: &Context) -> anyhow::Result<Exit> {
    change(&args.names, "pause", "paused", context).await
}

pub(super) async fn resume(args: &ResumeArgs, context: &Context) -> anyhow::Result<Exit> {
    change(&args.names, "resume", "resumed", context).await
}

/// All of them or, where one is refused, none.
async fn change(
    names: &[String],
    verb: &str,
    done: &str,
    context: &Context,
) -> anyhow::Result<Exit> {
    let mut client = context.connect(verb).await?;
    let explain = |error| statement_failed(&format!("cannot {verb} projections"), error);
    let transaction = client.transaction().await.map_err(explain)?;
    let mut changes = Vec::with_capacity(names.len());
    for name in names {
        let changed: bool = call(&transaction, verb, name).await?.get(0);
        changes.push((name, changed));
    }
    transaction.commit().await.map_err(explain)?;
    if context.out.is_json() {
        let list: Vec<_> = changes
            .iter()
            .map(|(name, changed)| json!({ "name": name, "changed": changed }))
            .collect();
        context.out.json(&json!({ "projections": list }))?;
        return Ok(Exit::DONE);
    }
    for (name, changed) in &changes {
        let no = if *changed { "" } else { ": nothing to change" };
        context.out.line(format_args!("{done} {name}{no}"))?;
    }
    if !is_followed(&client, context.config().source.slot.as_str()).await? {
        context.out.note("no sidecar runs here now; the next one heeds it");
    }
    Ok(Exit::DONE)
}
