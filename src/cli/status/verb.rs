//! The verb itself: what is asked for, and where it is printed.

use std::io::{self, IsTerminal};

use crate::cli::out::{GOOD, styled};
use crate::cli::status::{Form, Sidecar, Sources, StatusArgs, show, watch};
use crate::cli::{Context, Exit};
use crate::config::Secret;
use crate::pg::SharedClient;

pub(in crate::cli) async fn run(args: StatusArgs, context: &Context) -> anyhow::Result<Exit> {
    let config = context.config();
    let token = config.http.admin_token.as_ref().map(Secret::expose);
    let sidecar = Sidecar::new(config.http.listen, token)?;
    if args.check {
        return check(&sidecar, context).await;
    }
    let sources = Sources {
        database: SharedClient::new(context.settings()?, "projector status"),
        slot: config.source.slot.clone(),
        limit_bytes: Some(config.limits.max_slot_lag.bytes()),
        sidecar,
    };
    let print = |text: String| Ok(context.out.write(text)?);
    let form = match (context.out.is_json(), args.watch && io::stdout().is_terminal()) {
        (true, _) => Form::Json,
        (false, true) => Form::Redrawn,
        (false, false) => Form::Text,
    };
    if !args.watch {
        show(&sources, form, print).await?;
        return Ok(Exit::DONE);
    }
    tokio::select! {
        // A report that is cut off is shown by nobody.
        shown = watch(&sources, form, print) => shown.map(|()| Exit::DONE),
        end = tokio::signal::ctrl_c() => Ok(end.map(|()| Exit::DONE)?),
    }
}

/// Asks the sidecar alone, so that a slow database does not make a container look sick.
async fn check(sidecar: &Sidecar, context: &Context) -> anyhow::Result<Exit> {
    let reasons = sidecar.reasons().await;
    if context.out.is_json() {
        let ready = reasons.is_empty();
        context.out.json(&serde_json::json!({ "ready": ready, "reasons": reasons }))?;
    } else if reasons.is_empty() {
        context.out.note(styled(GOOD, "ready"));
    }
    for reason in reasons.iter().filter(|_| !context.out.is_json()) {
        context.out.complain(format_args!("{reason}\n"));
    }
    Ok(if reasons.is_empty() { Exit::DONE } else { Exit::FAILED })
}
