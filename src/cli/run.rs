//! `projector run`: the sidecar.

use crate::cli::sidecar::{Sidecar, definitions, shutdown_on_signals};
use crate::cli::{Context, Exit, RunArgs};

pub(super) async fn run(args: &RunArgs, context: &Context) -> anyhow::Result<Exit> {
    let Some(definitions) = definitions(context)? else { return Ok(Exit::USAGE) };
    let settings = context.settings()?;
    let shutdown = shutdown_on_signals()?;
    let listen = args.listen.as_deref();
    let sidecar = Sidecar::prepare(context, settings, definitions, listen).await?;
    sidecar.run(shutdown).await?;
    Ok(Exit::DONE)
}
