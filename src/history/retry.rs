//! What somebody wants done about events that were set aside: tried again, or given up.
//!
//! Nothing else may write the projection meanwhile: its lane is held, or there is none.
//!
//! A row whose events have versions is folded again from its run's history, up to the last event that
//! was set aside; what comes later has not been seen yet, or does not touch the row. A row that gathers
//! events of many runs takes what was set aside, since there the order does not matter. Either way the
//! row is what it would be had nothing ever failed, and where something still fails it is parked again
//! at that place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use uuid::Uuid;

use crate::apply::careful::{self, Located};
use crate::apply::error::WriteError;
use crate::apply::letters::condition;
use crate::apply::writer::Writer;
use crate::config::Columns;
use crate::definition::{Definition, Order};
use crate::fold::Fold;
use crate::history::error::BuildError;
use crate::history::event::{queried, select_list};
use crate::history::source::Source;
use crate::ident::QualifiedName;
use crate::lsn::Lsn;
use crate::pg;

/// What became of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows, and events without one, that nothing is set aside of any more.
    pub freed: u64,
    /// Rows on which an event failed again.
    pub parked: u64,
    /// Whether there is more to do.
    pub has_more: bool,
}

/// After this long the rest is for another time: a lane is held.
const LONGEST: Duration = Duration::from_millis(500);
/// Letters of one row that are tried at once, where it need not be all.
const PART: i64 = 1000;
/// How long to wait for an event that was received but is not visible yet.
const PATIENCE: (u32, Duration) = (100, Duration::from_millis(20));

/// Does what is requested for a projection whose rows are in `table`, if its checkpoint is where the
/// caller knows it to be; otherwise nothing.
///
/// # Errors
/// See [`BuildError`]; what was not done yet remains requested.
pub async fn carry_out(
    source: &Source,
    definition: &Arc<Definition>,
    table: &QualifiedName,
    expected: Lsn,
) -> Result<Outcome, BuildError> {
    let client = pg::connect(&source.settings, "projector dead letters").await?;
    let targets = [(Arc::clone(definition), table.clone())];
    let mut writer = Writer::prepare(client, &targets, (&source.events, &source.columns)).await?;
    writer.client().batch_execute("set synchronous_commit = on").await?;
    let mut outcome = Outcome::default();
    let started = Instant::now();
    loop {
        writer.begin().await?;
        let fence = "select lsn = $2 from projector.checkpoints where projection = $1 for update";
        let row = writer.client().query_opt(fence, &[&definition.name, &expected]).await?;
        if !row.map(|it| it.try_get::<_, bool>(0)).transpose()?.unwrap_or(false) {
            writer.rollback().await?;
            return Ok(outcome);
        }
        outcome.freed += discard(&writer, definition).await?;
        let next = "select row_key::text from projector.dead_letters
             where projection = $1 and request = 'retry' and row_key is not null
             order by requested_at, id limit 1";
        let key = writer.client().query_opt(next, &[&definition.name]).await?;
        let Some(key) = key.map(|it| it.try_get::<_, String>(0)).transpose()? else {
            writer.write(&[], &[]).await?;
            return Ok(outcome);
        };
        let is_free = match definition.order {
            Order::Version => again(&mut writer, source, definition, &key).await?,
            Order::Position | Order::Unordered => {
                further(&mut writer, source, definition, &key).await?
            }
        };
        if is_free {
            outcome.freed += 1;
        } else {
            outcome.parked += 1;
        }
        writer.write(&[], &[]).await?;
        if LONGEST <= started.elapsed() {
            outcome.has_more = true;
            return Ok(outcome);
        }
    }
}

/// Drops what is to be given up, with what has come for the same rows since.
async fn discard(writer: &Writer, definition: &Definition) -> Result<u64, BuildError> {
    let sql = "with asked as (
             select id, row_key from projector.dead_letters
             where projection = $1 and request = 'discard'
           ), gone as (
             delete from projector.dead_letters d
             where d.projection = $1
               and (d.id in (select id from asked) or d.row_key in (select row_key from asked))
             returning d.row_key
           )
         select count(distinct row_key) + count(*) filter (where row_key is null) from gone";
    let row = writer.client().query_one(sql, &[&definition.name]).await?;
    Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
}

/// Folds a row of one run again, from its first event on.
async fn again(
    writer: &mut Writer,
    source: &Source,
    definition: &Arc<Definition>,
    key: &str,
) -> Result<bool, BuildError> {
    let sql =
        "delete from projector.dead_letters where projection = $1 and row_key = $2::text::jsonb
         returning run_id, version, lsn, created_at::text, attempts";
    let gone = writer.client().query(sql, &[&definition.name, &key]).await?;
    let old = gone.iter().map(Old::read).collect::<Result<Vec<_>, _>>()?;
    let Some(run) = old.first().map(|it| it.run_id) else { return Ok(true) };
    let head = old.iter().map(|it| it.version).max().unwrap_or_default();
    let rows = events_of(writer, source, run, (1, head), &old).await?;
    // a key of another definition belongs to no row
    let Ok(row) = condition(definition, key) else { return Ok(true) };
    writer.delete_row(0, &row).await?;
    apply(writer, source, definition, key, (&rows, &old)).await
}

/// Goes on with a row, from the first event that was set aside.
async fn further(
    writer: &mut Writer,
    source: &Source,
    definition: &Arc<Definition>,
    key: &str,
) -> Result<bool, BuildError> {
    loop {
        let sql = "delete from projector.dead_letters where id in (
               select id from projector.dead_letters
               where projection = $1 and row_key = $2::text::jsonb order by id limit $3)
             returning run_id, version, lsn, created_at::text, attempts, id";
        let gone = writer.client().query(sql, &[&definition.name, &key, &PART]).await?;
        let mut old = gone.iter().map(Old::read).collect::<Result<Vec<_>, _>>()?;
        if old.is_empty() {
            return Ok(true);
        }
        old.sort_by_key(|it| it.id);
        let mut rows = Vec::with_capacity(old.len());
        for it in &old {
            let only = std::slice::from_ref(it);
            let version = (it.version, it.version);
            rows.extend(events_of(writer, source, it.run_id, version, only).await?);
        }
        if !apply(writer, source, definition, key, (&rows, &old)).await? {
            let rest = "update projector.dead_letters set request = null
                 where projection = $1 and row_key = $2::text::jsonb";
            writer.client().execute(rest, &[&definition.name, &key]).await?;
            return Ok(false);
        }
    }
}

/// Folds events for one row only, and writes it; what is set aside again keeps its age.
async fn apply(
    writer: &mut Writer,
    source: &Source,
    definition: &Arc<Definition>,
    key: &str,
    (rows, old): (&[Row], &[Old]),
) -> Result<bool, BuildError> {
    let ends: HashMap<_, _> = old.iter().map(|it| ((it.run_id, it.version), it.lsn)).collect();
    let mut located: Vec<Located<'_>> = Vec::with_capacity(rows.len());
    for row in rows {
        let event = queried(row)?;
        let lsn = ends.get(&(event.run_id, event.version)).copied().unwrap_or_default();
        located.push((event, lsn));
    }
    let mut fold = Fold::new(Arc::clone(definition));
    if fold.only(key).is_err() {
        return Ok(true);
    }
    careful::write(writer, (0, &mut fold), &located, &source.redactor).await?;
    let runs: Vec<_> = old.iter().map(|it| it.run_id).collect();
    let versions: Vec<_> = old.iter().map(|it| it.version).collect();
    let ages: Vec<_> = old.iter().map(|it| it.created_at.as_str()).collect();
    let attempts: Vec<_> = old.iter().map(|it| it.attempts).collect();
    let remember = "update projector.dead_letters d
         set created_at = old.created_at::timestamptz, attempts = d.attempts + old.attempts
         from unnest($3::uuid[], $4::int4[], $5::text[], $6::int4[])
           as old (run_id, version, created_at, attempts)
         where d.projection = $1 and d.row_key = $2::text::jsonb
           and d.run_id = old.run_id and d.version = old.version";
    let parameters: [&(dyn postgres_types::ToSql + Sync); 6] =
        [&definition.name, &key, &runs, &versions, &ages, &attempts];
    writer.client().execute(remember, &parameters).await?;
    Ok(fold.parked() == 0)
}

/// A letter that was taken away to be tried again.
struct Old {
    run_id: Uuid,
    version: i32,
    lsn: Lsn,
    created_at: String,
    attempts: i32,
    id: i64,
}

impl Old {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            run_id: row.try_get(0)?,
            version: row.try_get(1)?,
            lsn: row.try_get(2)?,
            created_at: row.try_get(3)?,
            attempts: row.try_get(4)?,
            id: if row.len() == 6 { row.try_get(5)? } else { 0 },
        })
    }
}

/// The events of a run between two versions, in order, once those that must be there are visible.
async fn events_of(
    writer: &Writer,
    source: &Source,
    run: Uuid,
    (from, to): (i32, i32),
    needed: &[Old],
) -> Result<Vec<Row>, BuildError> {
    let Columns { run_id, version, .. } = &source.columns;
    let sql = format!(
        "select {} from {} where {run_id} = $1 and {version} between $2 and $3 order by {version}",
        select_list(&source.columns),
        source.events
    );
    let mut tries = 0;
    loop {
        let rows = writer.client().query(&sql, &[&run, &from, &to]).await?;
        let there: HashSet<i32> = rows.iter().filter_map(|row| row.try_get(3).ok()).collect();
        let missing = needed.iter().find(|it| !there.contains(&it.version));
        let Some(missing) = missing else { return Ok(rows) };
        tries += 1;
        if PATIENCE.0 < tries {
            return Err(WriteError::NotVisible { run, version: missing.version }.into());
        }
        tokio::time::sleep(PATIENCE.1).await;
    }
}
