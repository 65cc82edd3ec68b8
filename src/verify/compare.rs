//! Two streams of rows in the same order, held against each other.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::pin::pin;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use serde::Serialize;
use tokio::task::consume_budget;
use tokio_postgres::Error as PgError;

use crate::verify::shape::{Shape, fields};

/// What the comparison of a table has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Rows that history makes.
    pub rows: u64,
    /// Keys that differ.
    pub count: u64,
    /// Rows that are in the table and differ in a column.
    pub changed: u64,
    /// Rows that history makes and the table has not.
    pub missing: u64,
    /// Rows that the table has and history does not make.
    pub extra: u64,
    /// The first of them, in the key's order.
    pub first: Vec<Difference>,
}

/// A key whose row is not what history makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Changed, missing or extra.
    pub kind: Kind,
    /// The key's columns, as text.
    pub key: Vec<(String, Option<String>)>,
    /// Where the row is there on both sides: each column that differs.
    pub columns: Vec<Cell>,
}

/// A column that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Its name.
    pub column: String,
    /// What the table holds, as text; `None` is null.
    pub stored: Option<String>,
    /// What history makes.
    pub history: Option<String>,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A column has another value.
    Changed,
    /// The table lacks the row.
    Missing,
    /// History does not make the row.
    Extra,
}

/// Keys that are left out, as the text of their columns.
pub(super) type Parked = BTreeSet<Vec<Option<String>>>;

/// Compares rows as `COPY` sends them. `limit` differences are kept, all are counted; `tell` hears how
/// many rows are done.
pub(super) async fn compare(
    shape: &Shape,
    stored: impl Stream<Item = Result<Bytes, PgError>>,
    history: impl Stream<Item = Result<Bytes, PgError>>,
    parked: &Parked,
    limit: usize,
    mut tell: impl FnMut(u64),
) -> Result<Differences, PgError> {
    let (mut stored, mut history) = (pin!(stored), pin!(history));
    let mut found = Differences::default();
    let mut a = stored.try_next().await?;
    let mut b = history.try_next().await?;
    loop {
        // rows may come so fast that nothing here ever waits: others of the task have their turn too
        consume_budget().await;
        let order = match (&a, &b) {
            (None, None) => return Ok(found),
            (Some(a), Some(b)) if a == b => Ordering::Equal,
            (None, Some(b)) => {
                found.add(shape, parked, limit, (None, Some(&fields(b))));
                Ordering::Greater
            }
            (Some(a), None) => {
                found.add(shape, parked, limit, (Some(&fields(a)), None));
                Ordering::Less
            }
            (Some(a), Some(b)) => {
                let (a, b) = (fields(a), fields(b));
                let order = shape.order(&a, &b);
                found.add(
                    shape,
                    parked,
                    limit,
                    match order {
                        Ordering::Less => (Some(&a), None),
                        Ordering::Greater => (None, Some(&b)),
                        Ordering::Equal => (Some(&a), Some(&b)),
                    },
                );
                order
            }
        };
        if order != Ordering::Greater {
            a = stored.try_next().await?;
        }
        if order != Ordering::Less {
            b = history.try_next().await?;
            found.rows += 1;
            tell(found.rows);
        }
    }
}

type Fields<'a> = Option<&'a Vec<Option<String>>>;

impl Differences {
    fn add(
        &mut self,
        shape: &Shape,
        parked: &Parked,
        limit: usize,
        (stored, history): (Fields<'_>, Fields<'_>),
    ) {
        let Some(either) = stored.or(history) else { return };
        let key = shape.key(either);
        if parked.contains(&key) {
            return;
        }
        let mut columns = Vec::new();
        let kind = match (stored, history) {
            (Some(stored), Some(history)) => {
                let value = |row: &[Option<String>], at| row.get(at).cloned().flatten();
                columns.extend(shape.differing(stored, history).map(|(name, at)| Cell {
                    column: name.to_owned(),
                    stored: value(stored, at),
                    history: value(history, at),
                }));
                if columns.is_empty() {
                    return;
                }
                self.changed += 1;
                Kind::Changed
            }
            (None, _) => {
                self.missing += 1;
                Kind::Missing
            }
            (Some(_), None) => {
                self.extra += 1;
                Kind::Extra
            }
        };
        self.count += 1;
        if self.first.len() < limit {
            let key = shape.key_names().map(str::to_owned).zip(key).collect();
            self.first.push(Difference { kind, key, columns });
        }
    }
}
