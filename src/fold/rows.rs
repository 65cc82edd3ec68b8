//! The pending rows of one projection: one change a row, ready to be written.

use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::definition::Value;
use crate::event::{Batch, Event};
use crate::fold::blocks::Blocks;
use crate::fold::cell::{Cell, Kind, Texts, equals};
use crate::fold::letters::Letter;
use crate::lsn::Lsn;

/// What a batch of events does to the rows of one projection.
///
/// A row's columns lie one after the other, in eight bytes each: of which kind they are is the same
/// for all rows. For each column two bits say how its cell is
/// meant: *set* (the cell is the column's new value), *delta* (the cell is to be combined with the
/// stored value by the column's operation), or neither (the column stays as it is).
#[derive(Debug, Default)]
pub struct Changes {
    /// How many cells a row has.
    pub stride: usize,
    /// The kind of each column's cells.
    kinds: Arc<[Kind]>,
    /// All rows' cells.
    cells: Blocks<u64>,
    /// One position a cell, where the order of events is `position`; empty otherwise.
    pub positions: Blocks<i64>,
    /// What is true of a row as a whole.
    pub rows: Blocks<Row>,
    /// The texts that the cells point to.
    pub texts: Texts,
    /// How many passes the rows need; see [`Row::pass`].
    pub passes: u32,
    /// How many events were folded.
    pub events: u64,
    /// Events that were set aside, in the order in which they came.
    pub letters: Vec<Letter>,
    /// Events that a statement makes rows of.
    pub gathered: Batch,
    /// How many rows there were, and how many of them to be deleted, where they are gone already.
    counted: Option<(usize, usize)>,
}

/// What is true of a pending row as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Bit *n*: column *n* is set to its cell.
    pub set: u64,
    /// Bit *n*: column *n* is combined with its cell.
    pub delta: u64,
    /// Bit *n*: the cell of column *n* is not null.
    filled: u64,
    /// The highest order (version or position) among the events that touched the row.
    pub order: i64,
    /// The epoch that the changes belong to, where the definition has epochs and an event named one.
    pub epoch: Option<i32>,
    /// Rows of a later pass are written after those of an earlier one: two changes to one row that
    /// cannot be put together without knowing what is stored stand in two passes.
    pub pass: u32,
    /// The change to the same row in the next pass.
    pub later: Option<u32>,
    /// The stored row, if any, goes before the changes apply.
    pub replaced: bool,
    /// The row does not exist afterwards.
    pub deleted: bool,
}

impl Row {
    /// A row of which only the key is known.
    pub fn new(order: i64, epoch: Option<i32>, pass: u32) -> Self {
        Self { order, epoch, pass, ..Self::default() }
    }
}

impl Changes {
    /// No rows, of columns of these kinds.
    pub fn new(kinds: Arc<[Kind]>) -> Self {
        Self { stride: kinds.len(), kinds, ..Self::default() }
    }

    /// No rows, of the same columns, in new memory.
    pub fn emptied(&self) -> Self {
        Self::new(Arc::clone(&self.kinds))
    }

    /// Forgets all rows and keeps the memory that they took.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.positions.clear();
        self.rows.clear();
        self.texts.clear();
        self.passes = 0;
        self.events = 0;
        self.letters.clear();
        self.gathered = Batch::default();
        self.counted = None;
    }

    /// Gives up the memory of rows before this one, which have been sent.
    pub fn release(&mut self, before: usize) {
        self.counted = Some(self.counts());
        self.rows.release(before);
        self.cells.release(before * self.stride);
        self.positions.release(before * self.stride);
    }

    /// Forgets the rows, which have been sent, and nothing else.
    pub fn forget_rows(&mut self) {
        let counted = self.counts();
        self.rows.clear();
        self.cells.clear();
        self.positions.clear();
        self.texts.clear();
        self.passes = 0;
        self.counted = Some(counted);
    }

    /// How many rows there are, or were, and how many of them are to be deleted.
    pub fn counts(&self) -> (usize, usize) {
        self.counted
            .unwrap_or_else(|| (self.rows.len(), self.rows.iter().filter(|it| it.deleted).count()))
    }

    /// The cell of a column in a row.
    pub fn cell(&self, row: usize, column: usize) -> Cell {
        let filled = self.rows.get(row).is_some_and(|it| it.filled & bit(column) != 0);
        match (self.kinds.get(column), self.cells.get(row * self.stride + column)) {
            (Some(kind), Some(bits)) if filled => Cell::unpack(*kind, *bits),
            _ => Cell::Null,
        }
    }

    /// Changes a cell.
    pub fn put(&mut self, row: usize, column: usize, cell: Cell) {
        let (Some(facts), Some(at)) =
            (self.rows.get_mut(row), self.cells.get_mut(row * self.stride + column))
        else {
            return;
        };
        *at = cell.pack();
        match cell {
            Cell::Null => facts.filled &= !bit(column),
            _ => facts.filled |= bit(column),
        }
    }

    /// The rows of one pass, in the order in which they were first touched.
    pub fn pass(&self, pass: u32) -> impl Iterator<Item = usize> + Clone {
        self.rows.iter().enumerate().filter(move |(_, row)| row.pass == pass).map(|(at, _)| at)
    }

    /// Keeps an event for a statement.
    pub(super) fn gather(&mut self, event: Event<'_>) {
        if self.gathered.is_empty() {
            self.gathered.begin(Lsn::ZERO, event.recorded_at);
        }
        self.gathered.push(event);
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.letters.is_empty() && self.gathered.is_empty()
    }

    /// About how much memory the changes take, in bytes.
    pub fn bytes(&self) -> usize {
        self.cells.held() * size_of::<u64>()
            + self.positions.held() * size_of::<i64>()
            + self.rows.held() * size_of::<Row>()
            + self.texts.bytes()
            + self.letters.iter().map(Letter::bytes).sum::<usize>()
            + self.gathered.bytes()
    }

    /// The hash of a row's key, the same as [`hash_key`] gives for the key's values.
    pub fn hash_of(
        &self,
        hasher: &foldhash::fast::FixedState,
        row: usize,
        columns: &[usize],
    ) -> u64 {
        let key: SmallVec<[Value<'_>; 4]> =
            columns.iter().map(|&column| self.texts.value(self.cell(row, column))).collect();
        hash_key(hasher, &key)
    }

    /// Adds a row that has nothing but its key.
    pub fn open(&mut self, row: Row, with_positions: bool) -> usize {
        let at = self.rows.len();
        self.passes = self.passes.max(row.pass + 1);
        self.rows.push(row);
        self.cells.push_times(0, self.stride);
        if with_positions {
            self.positions.push_times(0, self.stride);
        }
        at
    }
}

/// The bit of a column. A definition has 64 columns at most.
pub fn bit(column: usize) -> u64 {
    1 << (column % 64)
}

/// Finds the newest pending row of a key, without keeping a copy of the key.
#[derive(Debug, Default)]
pub struct KeyIndex {
    table: HashTable<u32>,
}

/// The hash of a key's values.
pub fn hash_key(hasher: &foldhash::fast::FixedState, key: &[Value<'_>]) -> u64 {
    use std::hash::{BuildHasher, Hash, Hasher};
    let mut state = hasher.build_hasher();
    for value in key {
        match value {
            Value::Null => state.write_u8(0),
            Value::Bool(it) => it.hash(&mut state),
            Value::Int(it) => it.hash(&mut state),
            Value::Float(it) => it.to_bits().hash(&mut state),
            Value::Text(it) => it.as_bytes().hash(&mut state),
            Value::Uuid(it) => it.as_bytes().hash(&mut state),
            Value::Time(it) => it.hash(&mut state),
        }
    }
    state.finish()
}

impl KeyIndex {
    /// The newest row whose key columns hold `key`.
    pub fn find(
        &self,
        hash: u64,
        changes: &Changes,
        columns: &[usize],
        key: &[Value<'_>],
    ) -> Option<usize> {
        self.table
            .find(hash, |&row| Self::same(changes, row, columns, key))
            .map(|&row| row as usize)
    }

    /// Makes `row` the newest row of its key; `rehash` gives the hash of an earlier row.
    pub fn insert(&mut self, hash: u64, row: u32, rehash: impl Fn(u32) -> u64) {
        self.table.insert_unique(hash, row, |&it| rehash(it));
    }

    /// Makes `row` stand where `old` stood.
    pub fn replace(&mut self, hash: u64, old: u32, row: u32) {
        if let Some(at) = self.table.find_mut(hash, |&it| it == old) {
            *at = row;
        }
    }

    /// Forgets every row.
    pub fn clear(&mut self) {
        self.table.clear();
    }

    fn same(changes: &Changes, row: u32, columns: &[usize], key: &[Value<'_>]) -> bool {
        columns.iter().zip(key).all(|(&column, value)| {
            equals(&changes.texts, changes.cell(row as usize, column), value)
        })
    }
}
