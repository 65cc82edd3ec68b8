//! How many runs there are of each status, from the read model.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use crate::ident::Ident;
use crate::pg::{Settings, SharedClient};

/// Runs by status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Counts(BTreeMap<String, u64>);

/// The least time between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks take at most one part in so many of the time.
const SHARE: u32 = 20;

impl Counts {
    /// How many runs have `status`.
    pub(super) fn of(&self, status: &str) -> u64 {
        self.0.get(status).copied().unwrap_or(0)
    }

    /// Whether there is any run.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts once.
    async fn look(database: &SharedClient, sql: &str) -> anyhow::Result<Self> {
        let rows = database.get().await?.query(sql, &[]).await?;
        let count = |row: &tokio_postgres::Row| {
            (row.get(0), u64::try_from(row.get::<_, i64>(1)).unwrap_or_default())
        };
        Ok(Self(rows.iter().map(count).collect()))
    }
}

/// Counts again and again, for ever; where there is no `run_status`, nothing. May be cancelled.
pub(super) async fn watch(settings: Settings, schema: Ident, to: watch::Sender<Counts>) {
    let database = SharedClient::new(settings, "projector dev");
    let sql = format!("select status, count(*) from {schema}.run_status group by status");
    loop {
        let began = Instant::now();
        match Counts::look(&database, &sql).await {
            Ok(counts) => drop(to.send_replace(counts)),
            // The live line goes on with what it knows, and says what the sidecar says.
            Err(error) => tracing::debug!(error = format!("{error:#}"), "cannot count runs"),
        }
        tokio::time::sleep(PAUSE.max(began.elapsed() * SHARE)).await;
    }
}
