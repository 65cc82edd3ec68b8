//! The report: what the database knows, and what the sidecar adds.

use serde::Serialize;
use tokio_postgres::{Client, Row};

use crate::cli::progress::Progress;
use crate::engine::status::{BroadcastStatus, State, Status};
use crate::lsn::Lsn;

/// What `projector status` shows; its JSON form is these fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// End of the server's log.
    pub head: Lsn,
    /// Every projection the database knows, by name.
    pub projections: Vec<Projection>,
    /// Rebuilds that were asked for or are under way.
    pub rebuilds: Vec<Progress>,
    /// The replication slot; `None` when there is none by that name.
    pub slot: Option<Slot>,
    /// Its configured name.
    pub slot_name: String,
    /// What is told to viewers, from the sidecar; `None` when broadcasts are off or it did not answer.
    pub broadcasts: Option<BroadcastStatus>,
    /// Whether the sidecar is ready; `None` when it did not answer.
    pub ready: Option<bool>,
    /// Why it is not.
    pub reasons: Vec<String>,
}

/// A projection in the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Projection {
    /// The name of its definition.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Up to where its rows are complete; `None` before the first build.
    pub checkpoint: Option<Lsn>,
    /// Log between the head and what it has applied. From the database, an upper bound: an idle
    /// projection's checkpoint stands still while others write.
    pub lag_bytes: Option<u64>,
    /// Age of the oldest commit that is not applied, from the sidecar.
    pub lag_seconds: Option<f64>,
    /// Events applied a second, from the sidecar.
    pub events_per_second: Option<f64>,
    /// Events applied over its life.
    pub events_total: u64,
    /// How far a build is, from 0 to 1.
    pub progress: Option<f64>,
    /// Events set aside.
    pub dead_letters: u64,
    /// Rows that take no event until that is settled.
    pub parked_keys: u64,
    /// How long the first of these events has waited.
    pub oldest_parked_seconds: f64,
    /// Why it failed.
    pub error: Option<String>,
}

/// The slot in the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Slot {
    /// Whether somebody reads from it.
    pub active: bool,
    /// Up to where the server may forget the log.
    pub acknowledged: Option<Lsn>,
    /// Log that the server keeps on its disk for it.
    pub retained_bytes: u64,
    /// The lesser of `max_slot_wal_keep_size` and `limits.max_slot_lag`.
    pub limit_bytes: u64,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
}

// who is to be paused is so as soon as a sidecar runs
const PROJECTIONS: &str = "
    select p.name,
           case when p.paused_at is not null and p.state in ('live', 'catching_up') then 'paused' else p.state end,
           c.lsn, coalesce(c.events, 0), p.last_error, d.letters,
           (select r.events_done::float8 / nullif(r.events_total, 0)
              from projector.rebuilds r
             where r.projection = p.name and r.finished_at is null
             order by r.id desc
             limit 1),
           d.keys, d.oldest_seconds
      from projector.projections p
      left join projector.checkpoints c on c.projection = p.name
     cross join lateral (
           select count(*) as letters, count(distinct row_key) as keys,
                  coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float8
                    as oldest_seconds
             from projector.dead_letters
            where projection = p.name) d
     order by p.name";

// A standby has no current write position; what it has replayed is its head.
const SLOT: &str = "
    with head as (
        select case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                    else pg_current_wal_lsn() end as lsn
    )
    select head.lsn, s.active, s.confirmed_flush_lsn,
           greatest(pg_wal_lsn_diff(head.lsn, s.restart_lsn), 0)::bigint, s.wal_status,
           (select nullif(setting, '-1')::bigint * 1048576
              from pg_settings
             where name = 'max_slot_wal_keep_size')
      from head
      left join pg_replication_slots s on s.slot_name = $1";

impl Report {
    /// Asks the database. `limit_bytes` is how much log projector itself lets the slot keep.
    ///
    /// # Errors
    /// When it does not answer, or has not been migrated.
    pub(super) async fn gather(
        client: &Client,
        slot: &str,
        limit_bytes: u64,
    ) -> Result<Self, tokio_postgres::Error> {
        // Checkpoints before the head: a lag is then never less than it was.
        let projections = client.query(PROJECTIONS, &[]).await?;
        let rebuilds = Progress::unfinished(client).await?;
        let row = client.query_one(SLOT, &[&slot]).await?;
        let head: Option<Lsn> = row.try_get(0)?;
        let head = head.unwrap_or_default();
        let active: Option<bool> = row.try_get(1)?;
        let slot_name = slot.to_owned();
        let projections = projections.iter().map(|row| projection(row, head));
        Ok(Self {
            head,
            projections: projections.collect::<Result<_, _>>()?,
            rebuilds,
            slot: active.map(|it| self::slot(&row, it, limit_bytes)).transpose()?,
            slot_name,
            broadcasts: None,
            ready: None,
            reasons: Vec::new(),
        })
    }

    /// Adds what the sidecar knows better. States and errors stay the database's: a sidecar in
    /// stand-by has old ones.
    pub(super) fn add(&mut self, status: &Status) {
        self.ready = Some(status.ready);
        self.reasons.clone_from(&status.reasons);
        self.broadcasts.clone_from(&status.broadcasts);
        for it in &mut self.projections {
            let Some(live) = status.projections.iter().find(|live| live.name == it.name) else {
                continue;
            };
            it.lag_bytes = Some(live.lag_bytes);
            it.lag_seconds = Some(live.lag_seconds);
            it.events_per_second = Some(live.events_per_second);
            it.progress = live.progress.or(it.progress);
        }
    }
}

fn projection(row: &Row, head: Lsn) -> Result<Projection, tokio_postgres::Error> {
    let state: String = row.try_get(1)?;
    let checkpoint: Option<Lsn> = row.try_get(2)?;
    // A check constraint holds the column to these; a newer version's state is at least not live.
    let state = State::parse(&state).unwrap_or(State::Detached);
    let dead_letters = count(row.try_get(5)?);
    let is_degraded = state == State::Live && 0 < dead_letters;
    Ok(Projection {
        name: row.try_get(0)?,
        state: if is_degraded { State::Degraded } else { state },
        checkpoint,
        // what nothing follows any more is not behind
        lag_bytes: checkpoint.filter(|_| state != State::Detached).map(|it| head.bytes_since(it)),
        lag_seconds: None,
        events_per_second: None,
        events_total: count(row.try_get(3)?),
        error: row.try_get(4)?,
        dead_letters,
        parked_keys: count(row.try_get(7)?),
        oldest_parked_seconds: row.try_get(8)?,
        progress: row.try_get(6)?,
    })
}

fn slot(row: &Row, active: bool, own_limit: u64) -> Result<Slot, tokio_postgres::Error> {
    let retained: Option<i64> = row.try_get(3)?;
    let limit: Option<i64> = row.try_get(5)?;
    Ok(Slot {
        active,
        acknowledged: row.try_get(2)?,
        retained_bytes: count(retained.unwrap_or(0)),
        wal_status: row.try_get(4)?,
        limit_bytes: limit.map_or(own_limit, |it| count(it).min(own_limit)),
    })
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::status::ProjectionStatus;
    use crate::event::Timestamp;

    #[test]
    fn the_sidecar_adds_rates_and_leaves_states_to_the_database() {
        let known = Projection {
            name: "run_status".to_owned(),
            state: State::Paused,
            checkpoint: Some(Lsn(16)),
            lag_bytes: Some(900),
            lag_seconds: None,
            events_per_second: None,
            events_total: 7,
            progress: None,
            dead_letters: 0,
            parked_keys: 0,
            oldest_parked_seconds: 0.0,
            error: None,
        };
        let mut report = Report {
            head: Lsn(916),
            projections: vec![known],
            rebuilds: Vec::new(),
            slot: None,
            slot_name: "projector".to_owned(),
            broadcasts: None,
            ready: None,
            reasons: Vec::new(),
        };
        let mut status = Status::starting("projector", Timestamp(0));
        status.projections.push(ProjectionStatus {
            name: "run_status".to_owned(),
            table: "run_status".to_owned(),
            lane: "default".to_owned(),
            state: State::Live,
            checkpoint: Some(Lsn(8)),
            lag_bytes: 0,
            lag_seconds: 0.5,
            events_total: 6,
            events_per_second: 12.0,
            error: None,
            progress: None,
            dead_letters: 0,
            parked_keys: 0,
            oldest_parked_seconds: 0.0,
            rebuild: None,
        });

        report.add(&status);

        let [it] = &report.projections[..] else { panic!("{report:?}") };
        assert_eq!((it.state, it.checkpoint, it.events_total), (State::Paused, Some(Lsn(16)), 7));
        assert_eq!((it.lag_bytes, it.lag_seconds), (Some(0), Some(0.5)));
        assert_eq!(it.events_per_second, Some(12.0));
        assert_eq!(
            (report.ready, &report.reasons[..]),
            (Some(false), &["starting".to_owned()][..])
        );
    }
}
