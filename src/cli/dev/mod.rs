//! `projector dev`: everything here and now, on a Postgres of its own.
//!
//! ```text
//! home ─▶ postgres: obtain, create, start ─▶ migrate ─▶ sidecar + workload ─▶ live line
//!                                                            │ Ctrl-C
//!                  Postgres stops ◀─ sidecar drains ◀─ workload stops
//! ```
//!
//! * `home`: the folder, and that it is ours · `keys`: who may watch · `postgres`: the server, kept alive
//! * `pace`, `workload`: events at a steady rate · `counts`: how the runs fare
//! * `steps`: what is shown until everything runs · `banner`, `live`: what is shown then

mod home;
mod keys;
mod steps;
mod postgres;
mod pace;
mod workload;
mod counts;
mod banner;
mod live;

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join, maybe_done};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cli::dev::banner::Banner;
use crate::cli::dev::home::Home;
use crate::cli::dev::live::Live;
use crate::cli::dev::postgres::Postgres;
use crate::cli::dev::steps::Steps;
use crate::cli::dev::workload::Workload;
use crate::cli::reload::on_edit;
use crate::cli::sidecar::{Sidecar, all_definitions, listen, shutdown_on_signals};
use crate::cli::{Context, DevArgs, Exit, Failure};
use crate::config::Origin;

/// How long the workload and the sidecar may take to end before Postgres is stopped under them.
const STOP_LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn run(args: DevArgs, context: &Context) -> anyhow::Result<Exit> {
    refuse_another_database(context)?;
    let Some(definitions) = all_definitions(context)? else { return Ok(Exit::USAGE) };
    let shutdown = shutdown_on_signals()?;
    let mut home = Home::open(args.data.as_deref())?;
    let context = &keys::complete(context, &home)?;
    let listener = listen(context).await?;

    let steps = Steps::new(&context.out);
    let started = tokio::select! {
        // Dropping it ends the server if it is there, and leaves nothing half made.
        started = Postgres::start(&mut home, args.fresh, context, &steps) => started,
        () = shutdown.cancelled() => return Ok(Exit::DONE),
    };
    let mut postgres = match started {
        // Ctrl-C goes to the programs that we were waiting for as well.
        Err(_) if shutdown.is_cancelled() => return Ok(Exit::DONE),
        started => started?,
    };
    let settings = postgres.settings()?;
    let sidecar = Sidecar::new(context, settings.clone(), definitions, listener)?;
    let banner = Banner::new(&sidecar, &home, &postgres, keys::samples(context.config())?)?;
    let edits = on_edit(sidecar.reload(), context.config().projections.clone());
    let edits = tokio::spawn(edits);
    let live = Live::new(context, sidecar.status(), settings.clone());
    steps.done();

    let (sidecar_end, workload_end) = (CancellationToken::new(), CancellationToken::new());
    let workload = Workload::new(context, settings, args.rate);
    let workload = tokio::spawn(workload.run(workload_end.clone()));
    let mut sidecar = pin!(maybe_done(sidecar.run(sidecar_end.clone())));
    let why: anyhow::Result<()> = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = &mut sidecar => Ok(()),
        error = postgres.keep() => Err(error.into()),
        // Only when nobody reads standard output any more.
        error = async { banner.show(&context.out)?; live.show().await } => error.map_err(Into::into),
    };
    context.out.note("stopping…");
    edits.abort();
    let in_order = async {
        workload_end.cancel();
        // A worker that broke has been heard of on standard error.
        drop(workload.await);
        // Only now, so that the read models end with all that was appended.
        sidecar_end.cancel();
    };
    if timeout(STOP_LIMIT, join(in_order, &mut sidecar)).await.is_err() {
        tracing::warn!("the sidecar does not end; the next start goes on where it is");
    }
    postgres.stop().await?;
    why?;
    sidecar.take_output().unwrap_or(Ok(()))?;
    banner.farewell(&context.out)?;
    Ok(Exit::DONE)
}

/// `DATABASE_URL` may be there for other programs; an option is meant for this one.
fn refuse_another_database(context: &Context) -> Result<(), Failure> {
    let mut shown = context.loaded.shown.iter();
    if shown.any(|it| it.key == "database_url" && matches!(it.origin, Origin::Flag(_))) {
        return Err(Failure::new("`projector dev` runs on a Postgres of its own")
            .hint("without --database-url; on another database: `projector run`".to_owned())
            .exit(Exit::USAGE));
    }
    Ok(())
}
