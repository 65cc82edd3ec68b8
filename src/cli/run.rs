//! `projector run`: the sidecar.

use crate::cli::sidecar::{Sidecar, all_definitions, listen, shutdown_on_signals};
use crate::cli::{Context, Exit};

pub(super) async fn run(context: &Context) -> anyhow::Result<Exit> {
    let Some(definitions) = all_definitions(context)? else { return Ok(Exit::USAGE) };
    let settings = context.settings()?;
    let shutdown = shutdown_on_signals()?;
    let listener = listen(context).await?;
    let sidecar = Sidecar::new(context, settings, definitions, listener)?;
    sidecar.run(shutdown).await?;
    Ok(Exit::DONE)
}
