//! Whole rows in `COPY`'s binary format: the fastest way into a new table.
//!
//! Only for tables whose columns all have a binary form that is known here, and whose defaults are
//! literals: what only Postgres can compute, it computes in the statement of `statement`.

use bytes::{BufMut, BytesMut};

use crate::definition::{ColumnType, Definition, Value};
use crate::ident::QualifiedName;

/// Writes rows of a definition.
#[derive(Debug)]
pub struct Encoder {
    columns: Vec<(usize, ColumnType)>,
    names: String,
}

/// A value that its column cannot hold, though it has been fitted: a sum out of range.
#[derive(Debug, thiserror::Error)]
#[error("a value is out of its column's range")]
pub struct Unfit;

/// What a copy begins with: a signature, flags, and the length of what else there is.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

impl Encoder {
    /// For the tables of a definition; `None` where rows cannot be written like this.
    pub fn of(definition: &Definition) -> Option<Self> {
        let mut columns = Vec::new();
        let mut names = Vec::new();
        for at in definition.stored_columns() {
            let column = definition.columns.get(at)?;
            if !is_known(&column.ty) || !has_plain_default(definition, at) {
                return None;
            }
            columns.push((at, column.ty.clone()));
            names.push(column.name.to_string());
        }
        Some(Self { columns, names: names.join(", ") })
    }

    /// The statement that takes the rows.
    pub fn statement(&self, table: &QualifiedName) -> String {
        format!("copy {table} ({}) from stdin (format binary)", self.names)
    }

    /// What comes before the first row.
    pub fn begin(out: &mut BytesMut) {
        out.extend_from_slice(HEADER);
    }

    /// What comes after the last.
    pub fn end(out: &mut BytesMut) {
        out.put_i16(-1);
    }

    /// A row: a value for each column of the definition.
    ///
    /// # Errors
    /// When a value is out of range.
    pub fn row(&self, values: &[Value<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        out.put_i16(i16::try_from(self.columns.len()).map_err(|_| Unfit)?);
        for (at, ty) in &self.columns {
            value(values.get(*at).unwrap_or(&Value::Null), ty, out)?;
        }
        Ok(())
    }
}

fn is_known(ty: &ColumnType) -> bool {
    !matches!(ty, ColumnType::Numeric | ColumnType::Date | ColumnType::Other(_))
}

/// Whether a row that says nothing of the column has what Postgres would give it.
fn has_plain_default(definition: &Definition, at: usize) -> bool {
    let Some(column) = definition.columns.get(at) else { return false };
    if column.default.is_none() || definition.always_sets(at) {
        return true;
    }
    // a time's literal depends on the session that reads it
    let is_time = column.ty == ColumnType::Timestamptz;
    let literal = column.default_value.as_ref();
    !is_time && literal.is_some_and(|it| column.ty.fit(crate::definition::Datum::of(it)).is_ok())
}

fn value(value: &Value<'_>, ty: &ColumnType, out: &mut BytesMut) -> Result<(), Unfit> {
    match (value, ty) {
        (Value::Null, _) => out.put_i32(-1),
        (Value::Bool(it), _) => sized(out, &[u8::from(*it)]),
        (Value::Int(it), ColumnType::Int2) => {
            sized(out, &i16::try_from(*it).map_err(|_| Unfit)?.to_be_bytes());
        }
        (Value::Int(it), ColumnType::Int4) => {
            sized(out, &i32::try_from(*it).map_err(|_| Unfit)?.to_be_bytes());
        }
        (Value::Int(it), _) => sized(out, &it.to_be_bytes()),
        (Value::Float(it), ColumnType::Float4) => sized(out, &narrow(*it).to_be_bytes()),
        (Value::Float(it), _) => sized(out, &it.to_be_bytes()),
        (Value::Uuid(it), _) => sized(out, it.as_bytes()),
        (Value::Time(it), _) => sized(out, &it.to_postgres().to_be_bytes()),
        (Value::Text(it), ColumnType::Jsonb) => {
            out.put_i32(i32::try_from(it.len() + 1).map_err(|_| Unfit)?);
            // the version of jsonb's binary form
            out.put_u8(1);
            out.extend_from_slice(it.as_bytes());
        }
        (Value::Text(it), _) => {
            out.put_i32(i32::try_from(it.len()).map_err(|_| Unfit)?);
            out.extend_from_slice(it.as_bytes());
        }
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "a `real` column has the precision of f32")]
fn narrow(wide: f64) -> f32 {
    wide as f32
}

fn sized<const N: usize>(out: &mut BytesMut, bytes: &[u8; N]) {
    out.put_i32(i32::try_from(N).unwrap_or(i32::MAX));
    out.extend_from_slice(bytes);
}
