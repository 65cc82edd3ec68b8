//! One column of one pending row, and the texts that such columns hold.

use uuid::Uuid;

use crate::definition::{ColumnType, Value};
use crate::event::Timestamp;
use crate::fold::blocks::{Blocks, TextBlocks};

/// A column's pending value: plain data that is copied, with its texts kept aside in [`Texts`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// SQL null, or nothing yet.
    Null,
    /// `boolean`.
    Bool(bool),
    /// Every integer type.
    Int(i64),
    /// `real` and `double precision`.
    Float(f64),
    /// `uuid`: one of the ids of [`Texts`], to keep a cell small.
    Uuid(u32),
    /// `timestamptz`.
    Time(Timestamp),
    /// Everything else, in Postgres' text form.
    Text(Text),
    /// What `append` has gathered: one of the lists of [`Texts`].
    List(u32),
}

/// Of which kind the cells of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kinds of [`Cell`]")]
pub enum Kind {
    Bool,
    Int,
    Float,
    Uuid,
    Time,
    Text,
}

impl Kind {
    /// The kind of a column's cells.
    pub fn of(ty: &ColumnType) -> Self {
        match ty {
            ColumnType::Bool => Self::Bool,
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => Self::Int,
            ColumnType::Float4 | ColumnType::Float8 => Self::Float,
            ColumnType::Uuid => Self::Uuid,
            ColumnType::Timestamptz => Self::Time,
            _ => Self::Text,
        }
    }
}

impl Cell {
    /// The cell in eight bytes; null is told elsewhere.
    pub fn pack(self) -> u64 {
        match self {
            Self::Null => 0,
            Self::Bool(it) => u64::from(it),
            Self::Int(it) | Self::Time(Timestamp(it)) => u64::from_ne_bytes(it.to_ne_bytes()),
            Self::Float(it) => it.to_bits(),
            Self::Uuid(id) => u64::from(id),
            Self::Text(at) => {
                u64::from(at.block) << 48 | u64::from(at.start) << 32 | u64::from(at.len)
            }
            Self::List(list) => u64::from(list) << 32 | u64::from(LIST),
        }
    }

    /// The cell that was packed, by its column's kind.
    pub fn unpack(kind: Kind, bits: u64) -> Self {
        let signed = i64::from_ne_bytes(bits.to_ne_bytes());
        let high = u32::try_from(bits >> 32).unwrap_or_default();
        let low = u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        match kind {
            Kind::Bool => Self::Bool(bits != 0),
            Kind::Int => Self::Int(signed),
            Kind::Float => Self::Float(f64::from_bits(bits)),
            Kind::Uuid => Self::Uuid(low),
            Kind::Time => Self::Time(Timestamp(signed)),
            Kind::Text if low == LIST => Self::List(high),
            Kind::Text => Self::Text(Text::from_parts(high, low)),
        }
    }
}

/// No text is as long as this; it marks a list.
const LIST: u32 = u32::MAX;

/// Where a text stands among those of its rows: a block of at most 64 KiB, or one of its own, and
/// the place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    block: u16,
    start: u16,
    len: u32,
}

impl Text {
    fn from_parts(place: u32, len: u32) -> Self {
        let [a, b, c, d] = place.to_be_bytes();
        Self { block: u16::from_be_bytes([a, b]), start: u16::from_be_bytes([c, d]), len }
    }
}

/// The texts of many cells in one buffer, so that a text costs a copy and no allocation. Short texts
/// that were stored a moment ago are stored once: event types, statuses, names.
#[derive(Debug, Default)]
pub struct Texts {
    buffer: TextBlocks,
    ids: Blocks<Uuid>,
    lists: Vec<String>,
    recent: [Option<Text>; RECENT],
}

/// How many short texts are remembered.
const RECENT: usize = 32;
/// Longer texts are rarely the same.
const SHORT: usize = 32;

/// More text than 32-bit offsets reach; the engine writes a fold out long before.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more text than 65536 blocks hold in one batch")]
pub struct TooMuchText;

impl Texts {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.ids.clear();
        self.lists.clear();
        self.recent = Default::default();
    }

    /// Takes a value into the buffer.
    ///
    /// # Errors
    /// When there are more texts than a cell can name.
    pub fn store(&mut self, value: &Value<'_>) -> Result<Cell, TooMuchText> {
        Ok(match value {
            Value::Null => Cell::Null,
            Value::Bool(it) => Cell::Bool(*it),
            Value::Int(it) => Cell::Int(*it),
            Value::Float(it) => Cell::Float(*it),
            Value::Uuid(it) => {
                // the tenant of one event is most often that of the next
                let known = self.ids.last(4).position(|known| known == it);
                let id = known.map_or(self.ids.len(), |back| self.ids.len() - 1 - back);
                if known.is_none() {
                    self.ids.push(*it);
                }
                Cell::Uuid(u32::try_from(id).map_err(|_| TooMuchText)?)
            }
            Value::Time(it) => Cell::Time(*it),
            Value::Text(it) => Cell::Text(self.intern(it)?),
        })
    }

    fn intern(&mut self, text: &str) -> Result<Text, TooMuchText> {
        if SHORT < text.len() {
            return self.push(text);
        }
        // a poor hash is enough: what collides is stored again
        let ends = [
            text.bytes().next(),
            text.as_bytes().get(text.len() / 2).copied(),
            text.bytes().next_back(),
        ];
        let sum = ends.into_iter().flatten().fold(text.len(), |sum, it| sum * 31 + usize::from(it));
        let slot = sum % RECENT;
        if let Some(Some(known)) = self.recent.get(slot)
            && self.get(*known) == text
        {
            return Ok(*known);
        }
        let at = self.push(text)?;
        if let Some(slot) = self.recent.get_mut(slot) {
            *slot = Some(at);
        }
        Ok(at)
    }

    /// Takes a text into the buffer.
    ///
    /// # Errors
    /// When there are more blocks than a cell can name.
    pub fn push(&mut self, text: &str) -> Result<Text, TooMuchText> {
        let len = u32::try_from(text.len()).map_err(|_| TooMuchText)?;
        let (block, range) = self.buffer.push(text);
        let block = u16::try_from(block).map_err(|_| TooMuchText)?;
        let start = u16::try_from(range.start).map_err(|_| TooMuchText)?;
        Ok(Text { block, start, len })
    }

    /// The id that a cell points to.
    pub fn id(&self, id: u32) -> Uuid {
        self.ids.get(id as usize).copied().unwrap_or_default()
    }

    /// What a cell holds, borrowed.
    pub fn value(&self, cell: Cell) -> Value<'_> {
        match cell {
            Cell::Null => Value::Null,
            Cell::Bool(it) => Value::Bool(it),
            Cell::Int(it) => Value::Int(it),
            Cell::Float(it) => Value::Float(it),
            Cell::Uuid(id) => Value::Uuid(self.id(id)),
            Cell::Time(it) => Value::Time(it),
            Cell::Text(at) => Value::Text(self.get(at).into()),
            Cell::List(list) => Value::Text(self.list(list).concat().into()),
        }
    }

    /// The text that `at` points to.
    pub fn get(&self, at: Text) -> &str {
        let start = usize::from(at.start);
        self.buffer.get(usize::from(at.block), start..start + at.len as usize)
    }

    /// A list's text in two parts: all but its closing bracket, and that.
    pub fn list(&self, list: u32) -> [&str; 2] {
        let open = self.lists.get(list as usize).map_or("[", String::as_str);
        [open, if open.starts_with('{') { "}" } else { "]" }]
    }

    /// Opens a list of one element: a JSON array, or a Postgres array where `bracket` is a brace.
    ///
    /// # Errors
    /// When there are more lists than 32 bits count.
    pub fn open_list(&mut self, bracket: char, element: &str) -> Result<Cell, TooMuchText> {
        let list = u32::try_from(self.lists.len()).map_err(|_| TooMuchText)?;
        self.lists.push(format!("{bracket}{element}"));
        Ok(Cell::List(list))
    }

    /// Adds an element to the end of a list.
    pub fn extend_list(&mut self, list: u32, element: &str) {
        if let Some(list) = self.lists.get_mut(list as usize) {
            list.push(',');
            list.push_str(element);
        }
    }

    /// How much memory the texts take, in bytes.
    pub fn bytes(&self) -> usize {
        self.buffer.bytes()
            + self.ids.len() * size_of::<Uuid>()
            + self.lists.iter().map(String::len).sum::<usize>()
    }
}

/// Whether a cell holds just this value: how a row is found by its key.
pub fn equals(texts: &Texts, cell: Cell, value: &Value<'_>) -> bool {
    match (cell, value) {
        (Cell::Null, Value::Null) => true,
        (Cell::Bool(a), Value::Bool(b)) => a == *b,
        (Cell::Int(a), Value::Int(b)) => a == *b,
        (Cell::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Cell::Uuid(a), Value::Uuid(b)) => texts.id(a) == *b,
        (Cell::Time(a), Value::Time(b)) => a == *b,
        (Cell::Text(a), Value::Text(b)) => texts.get(a) == b,
        _ => false,
    }
}
