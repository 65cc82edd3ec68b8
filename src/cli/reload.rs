//! When the definitions are read again while projector runs: at SIGHUP, and in `dev` when a file of
//! them changes. What is wrong with them then is in the log and in the status; those before go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::engine::Reload;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Reads the definitions again whenever SIGHUP asks for it.
pub(super) async fn on_hangup(reload: Reload) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::warn!("SIGHUP cannot be caught: the definitions are read at the start only");
        return;
    };
    while hangup.recv().await.is_some() {
        tracing::info!("reading the definitions again");
        again(&reload).await;
    }
}

/// Reads the definitions again whenever a file of their folder has been written, made or removed.
pub(super) async fn on_edit(reload: Reload, folder: PathBuf) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = files(&folder);
    loop {
        tick.tick().await;
        let now = files(&folder);
        if now != seen {
            seen = now;
            again(&reload).await;
        }
    }
}

async fn again(reload: &Reload) {
    if let Err(error) = reload.ask().await {
        // told already, where everybody looks
        tracing::debug!(%error, "not reloaded");
    }
}

/// The files of a folder, each with its length and when it was written. A folder that cannot be read
/// has none: reading it for good will say why.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u64, Option<SystemTime>)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let definitions = entries.filter(|it| it.path().extension().is_some_and(|it| it == "toml"));
    let file = |it: std::fs::DirEntry| {
        let data = it.metadata().ok()?;
        Some((it.path(), (data.len(), data.modified().ok())))
    };
    definitions.filter_map(file).collect()
}
