//! The values of a row.

use super::cursor::{Cursor, DecodeError};

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column<'a> {
    /// SQL's null.
    Null,
    /// A large value that an update left as it was; the log does not repeat it.
    Unchanged,
    /// The text form of the value. A type without a binary form comes as text even where binary was
    /// asked for.
    Text(&'a [u8]),
    /// The binary form of the value.
    Binary(&'a [u8]),
}

/// A row: its values stand in the order of the columns of the last
/// [`Relation`](super::Relation) message with its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Walks over a row once, so that iterating over it later cannot fail.
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let count = cursor.u16("number of columns")?;
        let start = cursor.clone();
        for _ in 0..count {
            column(cursor)?;
        }
        Ok(Self { count, bytes: cursor.since(&start) })
    }

    /// The values in order.
    pub fn columns(&self) -> Columns<'a> {
        Columns { left: self.count, cursor: Cursor::within(self.bytes) }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The values of a [`Tuple`], one by one.
#[derive(Clone, Debug)]
pub struct Columns<'a> {
    left: u16,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Columns<'a> {
    type Item = Column<'a>;

    fn next(&mut self) -> Option<Column<'a>> {
        self.left = self.left.checked_sub(1)?;
        column(&mut self.cursor).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Columns<'_> {}

fn column<'a>(cursor: &mut Cursor<'a>) -> Result<Column<'a>, DecodeError> {
    match cursor.u8("kind of a value")? {
        b'n' => Ok(Column::Null),
        b'u' => Ok(Column::Unchanged),
        b't' => cursor.counted("text value").map(Column::Text),
        b'b' => cursor.counted("binary value").map(Column::Binary),
        other => Err(cursor.unexpected("kind of a value", other)),
    }
}
