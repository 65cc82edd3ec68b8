//! How far a rebuild is, in words.

use serde::Serialize;
use tokio_postgres::{Client, Error as PgError, Row};

use crate::cli::figure::{duration, float, thousands};

/// A row of `projector.rebuilds`; its JSON form is these fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Progress {
    pub(super) rebuild: i64,
    pub(super) projection: String,
    pub(super) phase: String,
    pub(super) events_done: u64,
    pub(super) events_total: Option<u64>,
    /// Since work on it began.
    pub(super) seconds: f64,
    pub(super) waiting_for: Option<String>,
    pub(super) error: Option<String>,
    #[serde(skip)]
    pub(super) is_finished: bool,
}

const SELECT: &str = "select id, projection, phase, events_done, events_total,
       extract(epoch from coalesce(finished_at, clock_timestamp()) - started_at)::float8,
       waiting_for, error, finished_at is not null
     from projector.rebuilds";

impl Progress {
    /// Those with the given numbers. One that is not there any more is left out.
    pub(super) async fn read(client: &Client, ids: &[i64]) -> Result<Vec<Self>, PgError> {
        let sql = format!("{SELECT} where id = any ($1) order by id");
        client.query(&sql, &[&ids]).await?.iter().map(Self::of).collect()
    }

    /// Those that have not ended.
    pub(super) async fn unfinished(client: &Client) -> Result<Vec<Self>, PgError> {
        let sql = format!("{SELECT} where finished_at is null order by id");
        client.query(&sql, &[]).await?.iter().map(Self::of).collect()
    }

    fn of(row: &Row) -> Result<Self, PgError> {
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        Ok(Self {
            rebuild: row.try_get(0)?,
            projection: row.try_get(1)?,
            phase: row.try_get(2)?,
            events_done: count(row.try_get(3)?),
            events_total: row.try_get::<_, Option<i64>>(4)?.map(count),
            seconds: row.try_get(5)?,
            waiting_for: row.try_get(6)?,
            error: row.try_get(7)?,
            is_finished: row.try_get(8)?,
        })
    }

    /// From 0 to 1. The total is an estimate, so it may be passed before the end.
    pub(super) fn ratio(&self) -> f64 {
        let total = self.events_total.filter(|it| 0 < *it);
        total.map_or(0.0, |total| (float(self.events_done) / float(total)).min(1.0))
    }

    /// `61 %  1.2 M/2.0 M events  48 k/s  17 s left`, or what it waits for.
    pub(super) fn text(&self) -> String {
        match (self.phase.as_str(), &self.waiting_for) {
            (_, Some(what)) => return format!("waits for {what}"),
            ("requested", None) => return "waits for its turn".to_owned(),
            ("snapshot", None) => return "waits for open transactions to end".to_owned(),
            ("catch_up", None) => return "catches up with the log".to_owned(),
            ("swap", None) => return "takes its place".to_owned(),
            _ => {}
        }
        let done = thousands(float(self.events_done));
        let rate = float(self.events_done) / self.seconds.max(0.001);
        let mut text = match self.events_total {
            Some(total) => {
                let total = thousands(float(total));
                format!("{:.0} %  {done}/{total} events", self.ratio() * 100.0)
            }
            None => format!("{done} events"),
        };
        if 1.0 <= self.seconds && 0 < self.events_done {
            text += &format!("  {}/s", thousands(rate));
            if let Some(left) = self.events_total.map(|it| it.saturating_sub(self.events_done)) {
                text += &format!("  {} left", duration(float(left) / rate));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_how_far_how_fast_and_how_long_yet() {
        let folding = Progress {
            rebuild: 7,
            projection: "run_status".to_owned(),
            phase: "fold".to_owned(),
            events_done: 1_220_000,
            events_total: Some(2_000_000),
            seconds: 25.4,
            waiting_for: None,
            error: None,
            is_finished: false,
        };
        let locked = Progress {
            phase: "swap".to_owned(),
            waiting_for: Some("a lock on public.run_status".to_owned()),
            ..folding.clone()
        };
        let unknown = Progress { events_total: None, seconds: 0.5, ..folding.clone() };

        assert_eq!(folding.text(), "61 %  1.2 M/2.0 M events  48 k/s  16 s left");
        assert_eq!(locked.text(), "waits for a lock on public.run_status");
        assert_eq!(unknown.text(), "1.2 M events");
    }
}
