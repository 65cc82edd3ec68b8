//! The definitions as they are now, and how they become others while the engine works.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use crate::definition::{Broadcast, Definition, Definitions, Problem};
use crate::engine::Board;

/// What to project and to broadcast now; names differ.
#[derive(Clone, Debug)]
pub struct Catalogue {
    sender: Arc<watch::Sender<Vec<Arc<Definition>>>>,
    broadcasts: Arc<watch::Sender<Vec<Arc<Broadcast>>>>,
}

/// Reads the definitions again, for whoever asks for it. Cheap to clone.
#[derive(Clone)]
pub struct Reload {
    catalogue: Catalogue,
    board: Arc<Board>,
    load: Arc<Load>,
}

/// Reads all definitions, or tells all that is wrong with them.
pub type Load = dyn Fn() -> Result<Definitions, Vec<Problem>> + Send + Sync;

/// What reading the definitions again has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Every projection that is defined or was.
    pub projections: Vec<ReloadedProjection>,
    /// Every broadcast, too.
    pub broadcasts: Vec<ReloadedProjection>,
}

/// A projection or a broadcast whose definition was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReloadedProjection {
    /// Its name.
    pub name: String,
    /// `unchanged`, `created`, `changed` or `removed`. A change of comments or blanks is none.
    pub change: &'static str,
}

/// Why the definitions are the ones before.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReloadError {
    /// They are wrong: all that is, one text each.
    #[error("the definitions are refused, and the ones before go on: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// The engine has ended.
    #[error("projector is stopping")]
    Ended,
}

impl Catalogue {
    /// One that starts with these.
    pub fn new(definitions: impl Into<Definitions>) -> Self {
        let Definitions { projections, broadcasts } = definitions.into();
        let (sender, _) = watch::channel(projections.into_iter().map(Arc::new).collect());
        let (told, _) = watch::channel(broadcasts.into_iter().map(Arc::new).collect());
        Self { sender: Arc::new(sender), broadcasts: Arc::new(told) }
    }

    /// The definitions.
    pub fn now(&self) -> Vec<Arc<Definition>> {
        self.sender.borrow().clone()
    }

    /// Tells of changes of what is broadcast from now on.
    pub(super) fn broadcasts(&self) -> watch::Receiver<Vec<Arc<Broadcast>>> {
        self.broadcasts.subscribe()
    }

    /// Tells of changes from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Vec<Arc<Definition>>> {
        self.sender.subscribe()
    }

    /// Other definitions from now on. Who follows them hears of it when there is a difference.
    pub fn replace(&self, definitions: impl Into<Definitions>) -> Reloaded {
        let Definitions { projections, broadcasts } = definitions.into();
        let meaning = |it: &Definition| (it.name.clone(), format!("{} {}", it.hash, it.lane));
        let changes = changes(
            self.now().iter().map(|it| meaning(it)).collect(),
            projections.iter().map(meaning).collect(),
        );
        let told = |it: &Broadcast| (it.name.clone(), it.hash.clone());
        let told = self::changes(
            self.broadcasts.borrow().iter().map(|it| told(it)).collect(),
            broadcasts.iter().map(told).collect(),
        );
        self.sender.send_replace(projections.into_iter().map(Arc::new).collect());
        self.broadcasts.send_replace(broadcasts.into_iter().map(Arc::new).collect());
        Reloaded { projections: changes, broadcasts: told }
    }
}

/// What became of each name, by what it meant.
fn changes(before: Vec<(String, String)>, now: Vec<(String, String)>) -> Vec<ReloadedProjection> {
    let mut before: BTreeMap<_, _> = before.into_iter().collect();
    let change = |(name, meaning)| {
        let change = match before.remove(&name) {
            None => "created",
            Some(it) if it != meaning => "changed",
            Some(_) => "unchanged",
        };
        ReloadedProjection { name, change }
    };
    let mut changes: Vec<_> = now.into_iter().map(change).collect();
    changes.extend(before.into_keys().map(|name| ReloadedProjection { name, change: "removed" }));
    changes
}

impl Reload {
    /// For an engine that works with `catalogue` and publishes to `board`.
    pub fn new(catalogue: Catalogue, board: Arc<Board>, load: Arc<Load>) -> Self {
        Self { catalogue, board, load }
    }

    /// Reads the definitions again. When anything is wrong with them nothing changes, and the status
    /// says so until they are right.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn ask(&self) -> Result<Reloaded, ReloadError> {
        let load = Arc::clone(&self.load);
        let loaded = tokio::task::spawn_blocking(move || load()).await;
        let definitions = match loaded.map_err(|_| ReloadError::Ended)? {
            Ok(definitions) => definitions,
            Err(problems) => {
                let error = ReloadError::Refused(problems.iter().map(line).collect());
                tracing::error!(%error, "definitions are not reloaded");
                self.board.refuse(Some(error.to_string()));
                return Err(error);
            }
        };
        let reloaded = self.catalogue.replace(definitions);
        self.board.refuse(None);
        for it in reloaded.projections.iter().filter(|it| it.change != "unchanged") {
            tracing::info!(projection = it.name, change = it.change, "definition read again");
        }
        for it in reloaded.broadcasts.iter().filter(|it| it.change != "unchanged") {
            tracing::info!(broadcast = it.name, change = it.change, "definition read again");
        }
        Ok(reloaded)
    }
}

/// A problem in a line.
fn line(it: &Problem) -> String {
    let Problem { file, line, column, message, hint, .. } = it;
    let hint = hint.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
    format!("{}:{line}:{column}: {message}{hint}", file.display())
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("catalogue", &self.catalogue).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;

    fn definition(name: &str, changes: &[(&str, &str)]) -> Definition {
        let mut text = format!(
            "table = \"{name}\"\nkey = {{ run_id = \"run_id\" }}\n[columns]\nrun_id = \"uuid\"\n\
             seen = \"int\"\n[[on]]\nevent = \"*\"\nset = {{ seen = \"version\" }}\n"
        );
        for (from, to) in changes {
            text = text.replace(from, to);
        }
        parse(format!("{name}.toml").as_ref(), &text).unwrap()
    }

    #[test]
    fn what_means_the_same_is_unchanged() {
        let catalogue = Catalogue::new(vec![
            definition("same", &[]),
            definition("other", &[]),
            definition("moved", &[]),
            definition("gone", &[]),
        ]);

        let reloaded = catalogue.replace(vec![
            definition("same", &[("[columns]", "# what there is\n[columns]")]),
            definition("other", &[("\"int\"", "\"bigint\"")]),
            definition("moved", &[("[columns]", "lane = \"aside\"\n[columns]")]),
            definition("new", &[]),
        ]);

        let changes: Vec<_> =
            reloaded.projections.iter().map(|it| (it.name.as_str(), it.change)).collect();
        let wanted = [
            ("same", "unchanged"),
            ("other", "changed"),
            ("moved", "changed"),
            ("new", "created"),
            ("gone", "removed"),
        ];
        assert_eq!(changes, wanted);
        assert_eq!(catalogue.now().len(), 4);
    }
}
