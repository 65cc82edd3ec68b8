//! Which reader reads which runs: ranges of run ids with about as many events each.
//!
//! A run stays in one range. The ranges are taken from a sample of the table's pages, so that they are
//! as even for ids that carry the time as for random ones.

use std::ops::Bound;

use tokio_postgres::{Client, Error as PgError};
use uuid::Uuid;

use crate::history::source::Source;
use crate::ident::Ident;

/// Runs from one id to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Bound<Uuid>,
    pub(super) below: Bound<Uuid>,
}

/// How many pages are looked at.
const SAMPLED_PAGES: f64 = 300.0;
/// A table of fewer pages is read as a whole.
const FEW_PAGES: i64 = 1000;
/// More ranges than readers, so that one that is slower reads fewer.
const RANGES_A_READER: usize = 4;
/// Of so many each, the sample still has some.
const RANGES_MOST: usize = 500;
/// About as many events the server sorts in its memory.
const RANGE_EVENTS: u64 = 125_000;

impl Range {
    /// A condition on the column with the run's id, as SQL that follows `where`.
    pub(super) fn condition(self, column: &Ident) -> String {
        let from = match self.from {
            Bound::Included(id) | Bound::Excluded(id) => Some(format!("'{id}' <= {column}")),
            Bound::Unbounded => None,
        };
        let below = match self.below {
            Bound::Included(id) | Bound::Excluded(id) => Some(format!("{column} < '{id}'")),
            Bound::Unbounded => None,
        };
        let both: Vec<_> = from.into_iter().chain(below).collect();
        if both.is_empty() { "true".to_owned() } else { both.join(" and ") }
    }
}

/// The ranges for so many readers and about so many events, in order.
pub(super) async fn ranges(
    client: &Client,
    source: &Source,
    readers: usize,
    events: u64,
) -> Result<Vec<Range>, PgError> {
    let count = usize::try_from(events / RANGE_EVENTS).unwrap_or(usize::MAX);
    let count = count.max(readers * RANGES_A_READER).min(RANGES_MOST);
    let events = source.events.to_string();
    let pages = "select (coalesce(sum(pg_relation_size(relid)), 0) / 8192)::bigint
         from pg_partition_tree($1::text::regclass) where isleaf";
    let pages: i64 = client.query_one(pages, &[&events]).await?.try_get(0)?;
    if pages < FEW_PAGES || readers < 2 {
        return Ok(vec![Range { from: Bound::Unbounded, below: Bound::Unbounded }]);
    }
    #[expect(clippy::cast_precision_loss, reason = "a part of a sample")]
    let percent = (100.0 * SAMPLED_PAGES / pages as f64).min(100.0);
    let column = &source.columns.run_id;
    let sample =
        format!("select {column} from {events} tablesample system ({percent}) order by {column}");
    let rows = client.query(&sample, &[]).await?;
    let sample = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Uuid>, _>>()?;
    Ok(cut(&sample, count))
}

/// About `count` ranges with as many of the sample's ids each.
fn cut(sample: &[Uuid], count: usize) -> Vec<Range> {
    let mut bounds: Vec<_> =
        (1..count).filter_map(|it| sample.get(it * sample.len() / count)).copied().collect();
    bounds.dedup();
    let from =
        std::iter::once(Bound::Unbounded).chain(bounds.iter().map(|it| Bound::Included(*it)));
    let below = bounds.iter().map(|it| Bound::Excluded(*it)).chain([Bound::Unbounded]);
    from.zip(below).map(|(from, below)| Range { from, below }).collect()
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use super::*;

    #[test]
    fn every_run_is_in_exactly_one_range() {
        let sample: Vec<_> = (0..50).map(|it| Uuid::from_u128(it / 20 * 1000)).collect();

        for sample in [&sample[..], &[], &sample[..1]] {
            let ranges = cut(sample, 8);
            for id in [0, 1, 999, 1000, 1001, 2000, u128::MAX].map(Uuid::from_u128) {
                let inside = ranges.iter().filter(|it| (it.from, it.below).contains(&id));
                assert_eq!(inside.count(), 1, "{id} in {ranges:?}");
            }
        }
    }
}
