//! One column of the pending rows as a binary Postgres array.
//!
//! The layout is that of `array_send` in Postgres: number of dimensions, whether there are nulls,
//! the element type, then for each dimension its length and lower bound, then the elements, each
//! with its length in front (-1 for null).

use postgres_types::private::BytesMut;
use postgres_types::{IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::apply::statement::{DELETED, Parameter, REPLACED};
use crate::fold::cell::Cell;
use crate::fold::rows::Changes;

/// A parameter of a [`Statement`](crate::apply::statement::Statement) with the rows it is made of.
#[derive(Debug)]
pub struct ColumnArray<'a> {
    /// The pending rows.
    pub changes: &'a Changes,
    /// Which of them, by number.
    pub rows: &'a [usize],
    /// What to take of each.
    pub parameter: Parameter,
}

/// Why a cell cannot stand in an array of this type.
#[derive(Debug, thiserror::Error)]
enum ArrayError {
    #[error("{0} does not fit {1}")]
    Range(i64, Type),
    #[error("{0:?} is not a value of {1}")]
    Kind(Cell, Type),
    #[error("more than 2^31 rows or bytes in one array")]
    Size,
}

impl ToSql for ColumnArray<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Kind::Array(element) = ty.kind() else {
            return Err(Box::new(ArrayError::Kind(Cell::Null, ty.clone())));
        };
        let length = i32::try_from(self.rows.len()).map_err(|_| ArrayError::Size)?;
        put_i32(out, 1);
        put_i32(out, 1);
        out.extend_from_slice(&element.oid().to_be_bytes());
        put_i32(out, length);
        put_i32(out, 1);
        for &row in self.rows {
            self.element(row, element, out)?;
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(_))
    }

    to_sql_checked!();
}

/// A parameter in its binary form, so that the rows it was made of need not stay until the server has
/// answered.
#[derive(Debug)]
pub struct Encoded(Result<BytesMut, String>);

impl Encoded {
    /// The binary form of a column for a parameter of this type.
    pub fn of(column: &ColumnArray<'_>, ty: &Type) -> Self {
        let mut out = BytesMut::new();
        Self(column.to_sql(ty, &mut out).map(|_| out).map_err(|it| it.to_string()))
    }
}

impl ToSql for Encoded {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let bytes = self.0.as_ref().map_err(Clone::clone)?;
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ColumnArray::accepts(ty)
    }

    to_sql_checked!();
}

impl ColumnArray<'_> {
    fn element(&self, row: usize, ty: &Type, out: &mut BytesMut) -> Result<(), ArrayError> {
        let Some(facts) = self.changes.rows.get(row) else { return Err(ArrayError::Size) };
        match self.parameter {
            Parameter::Cells(column) => {
                return self.cell(self.changes.cell(row, column), ty, out);
            }
            Parameter::SetBits => put_int8(out, i64::from_ne_bytes(facts.set.to_ne_bytes())),
            Parameter::DeltaBits => put_int8(out, i64::from_ne_bytes(facts.delta.to_ne_bytes())),
            Parameter::Flags => {
                let deleted = if facts.deleted { DELETED } else { 0 };
                let replaced = if facts.replaced { REPLACED } else { 0 };
                put_sized(out, &(deleted | replaced).to_be_bytes());
            }
            Parameter::Order => put_int8(out, facts.order),
            Parameter::Epoch => match facts.epoch {
                Some(epoch) => put_sized(out, &epoch.to_be_bytes()),
                None => put_i32(out, -1),
            },
            Parameter::Position(column) => {
                let at = row * self.changes.stride + column;
                match self.changes.positions.get(at) {
                    Some(&position) if position != 0 => put_int8(out, position),
                    _ => put_i32(out, -1),
                }
            }
        }
        Ok(())
    }

    fn cell(&self, cell: Cell, ty: &Type, out: &mut BytesMut) -> Result<(), ArrayError> {
        match (cell, ty) {
            (Cell::Null, _) => put_i32(out, -1),
            (Cell::Bool(it), &Type::BOOL) => put_sized(out, &[u8::from(it)]),
            (Cell::Int(it), &Type::INT8) => put_int8(out, it),
            (Cell::Int(it), &Type::INT4) => {
                let it = i32::try_from(it).map_err(|_| ArrayError::Range(it, ty.clone()))?;
                put_sized(out, &it.to_be_bytes());
            }
            (Cell::Int(it), &Type::INT2) => {
                let it = i16::try_from(it).map_err(|_| ArrayError::Range(it, ty.clone()))?;
                put_sized(out, &it.to_be_bytes());
            }
            (Cell::Float(it), &Type::FLOAT8) => put_sized(out, &it.to_be_bytes()),
            (Cell::Float(it), &Type::FLOAT4) => put_sized(out, &narrow(it).to_be_bytes()),
            (Cell::Uuid(id), &Type::UUID) => put_sized(out, self.changes.texts.id(id).as_bytes()),
            (Cell::Time(it), &Type::TIMESTAMPTZ) => put_int8(out, it.to_postgres()),
            (Cell::Text(at), &Type::TEXT) => put_text(out, &[self.changes.texts.get(at)])?,
            (Cell::List(list), &Type::TEXT) => {
                put_text(out, &self.changes.texts.list(list))?;
            }
            (other, _) => return Err(ArrayError::Kind(other, ty.clone())),
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a `real` column has the precision of f32")]
fn narrow(wide: f64) -> f32 {
    wide as f32
}

fn put_i32(out: &mut BytesMut, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_int8(out: &mut BytesMut, value: i64) {
    put_sized(out, &value.to_be_bytes());
}

fn put_sized<const N: usize>(out: &mut BytesMut, bytes: &[u8; N]) {
    put_i32(out, i32::try_from(N).unwrap_or(i32::MAX));
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut BytesMut, parts: &[&str]) -> Result<(), ArrayError> {
    let length = parts.iter().map(|it| it.len()).sum::<usize>();
    put_i32(out, i32::try_from(length).map_err(|_| ArrayError::Size)?);
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    Ok(())
}
