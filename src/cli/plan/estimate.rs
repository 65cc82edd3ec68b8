//! How many events a build reads, and how fast the last builds read.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_postgres::{Client, Error as PgError};

use crate::cli::figure::float;
use crate::ident::{Ident, QualifiedName};

/// Where nothing has been measured: a slow machine.
const ASSUMED: f64 = 50_000.0;

/// What is known of history and of earlier builds.
#[derive(Debug)]
pub(super) struct Estimate {
    pub(super) events: u64,
    /// Events a second of each projection's last rebuild.
    rates: BTreeMap<String, f64>,
}

/// How many events a second are reckoned with.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Rate {
    pub(super) events_per_second: f64,
    /// Whether an earlier build was as fast; it is assumed otherwise.
    pub(super) measured: bool,
}

impl Estimate {
    /// How long a build of this projection may take.
    pub(super) fn seconds(&self, name: &str) -> f64 {
        let rate = self.rates.get(name).copied().unwrap_or(self.rate().events_per_second);
        float(self.events) / rate
    }

    /// The slowest that was measured.
    pub(super) fn rate(&self) -> Rate {
        let slowest = self.rates.values().copied().min_by(f64::total_cmp);
        Rate { events_per_second: slowest.unwrap_or(ASSUMED), measured: slowest.is_some() }
    }
}

/// The planner's idea of the table's size, for counting would take as long as building; of a table
/// that it has not looked at, how far positions go.
pub(super) async fn read(
    client: &Client,
    events: &QualifiedName,
    position: &Ident,
) -> Result<Estimate, PgError> {
    let sql = "select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
         from pg_partition_tree($1::text::regclass) t join pg_class c on c.oid = t.relid
         where t.isleaf";
    let mut count: i64 = client.query_one(sql, &[&events.to_string()]).await?.try_get(0)?;
    if count == 0 {
        let sql =
            format!("select coalesce(max({position}) - min({position}) + 1, 0) from {events}");
        count = client.query_one(&sql, &[]).await?.try_get(0)?;
    }
    // what took less than a second says more of the start than of the rate
    let sql = "select distinct on (projection) projection,
               events_done / extract(epoch from finished_at - started_at)::float8
         from projector.rebuilds
         where phase = 'done' and 0 < events_done and interval '1 s' < finished_at - started_at
         order by projection, id desc";
    let rows = client.query(sql, &[]).await?;
    let rates = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let rates = rates.collect::<Result<_, PgError>>()?;
    Ok(Estimate { events: u64::try_from(count).unwrap_or(0), rates })
}
