//! A table's columns, and where among them the envelope of an event sits.

use std::collections::HashMap;

use crate::ident::QualifiedName;

use super::cursor::{Cursor, DecodeError};

/// A table as it was when the rows that follow were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The streamed transaction it belongs to.
    pub xid: Option<u32>,
    /// The table's object id, by which rows refer to it.
    pub id: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What updates and deletes tell of the old row: `d`efault, `n`othing, `f`ull, `i`ndex.
    pub replica_identity: u8,
    count: u16,
    columns: &'a [u8],
}

/// One column of a [`Relation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Whether it is part of the replica identity.
    pub is_key: bool,
    /// Its name.
    pub name: &'a str,
    /// Its type's object id.
    pub type_id: u32,
    /// Its type's modifier, -1 for none.
    pub type_modifier: i32,
}

impl<'a> Relation<'a> {
    pub(super) fn decode(xid: Option<u32>, from: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let id = from.u32("relation")?;
        let schema = from.name("schema")?;
        let name = from.name("name")?;
        let replica_identity = from.u8("replica identity")?;
        let count = from.u16("number of columns")?;
        let start = from.clone();
        for _ in 0..count {
            column(from)?;
        }
        let columns = from.since(&start);
        Ok(Self { xid, id, schema, name, replica_identity, count, columns })
    }

    /// The columns in the order of a row's values.
    pub fn columns(&self) -> impl Iterator<Item = RelationColumn<'a>> {
        let mut cursor = Cursor::within(self.columns);
        (0..self.count).map_while(move |_| column(&mut cursor).ok())
    }
}

fn column<'a>(from: &mut Cursor<'a>) -> Result<RelationColumn<'a>, DecodeError> {
    Ok(RelationColumn {
        is_key: from.u8("column flags")? & 1 != 0,
        name: from.name("column name")?,
        type_id: from.u32("column type")?,
        type_modifier: from.i32("column type modifier")?,
    })
}

/// A field of an event's envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of event::Event, documented there")]
pub enum Field {
    Position,
    ProjectId,
    RunId,
    Version,
    EventId,
    Kind,
    Payload,
    Metadata,
    RecordedAt,
}

impl Field {
    /// All nine, in the order of their values.
    pub const ALL: [Self; 9] = [
        Self::Position,
        Self::ProjectId,
        Self::RunId,
        Self::Version,
        Self::EventId,
        Self::Kind,
        Self::Payload,
        Self::Metadata,
        Self::RecordedAt,
    ];
}

/// What the envelope's columns are called in the events table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of event::Event, documented there")]
pub struct ColumnNames {
    pub position: String,
    pub project_id: String,
    pub run_id: String,
    pub version: String,
    pub event_id: String,
    pub kind: String,
    pub payload: String,
    pub metadata: String,
    pub recorded_at: String,
}

impl Default for ColumnNames {
    /// The names of the shipped table: those of the envelope, and `type` for the kind.
    fn default() -> Self {
        Self {
            position: "position".to_owned(),
            project_id: "project_id".to_owned(),
            run_id: "run_id".to_owned(),
            version: "version".to_owned(),
            event_id: "event_id".to_owned(),
            kind: "type".to_owned(),
            payload: "payload".to_owned(),
            metadata: "metadata".to_owned(),
            recorded_at: "recorded_at".to_owned(),
        }
    }
}

impl ColumnNames {
    /// The column that holds `field`.
    pub fn of(&self, field: Field) -> &str {
        match field {
            Field::Position => &self.position,
            Field::ProjectId => &self.project_id,
            Field::RunId => &self.run_id,
            Field::Version => &self.version,
            Field::EventId => &self.event_id,
            Field::Kind => &self.kind,
            Field::Payload => &self.payload,
            Field::Metadata => &self.metadata,
            Field::RecordedAt => &self.recorded_at,
        }
    }
}

/// The events table, as the log describes it, lacks a column of the envelope, or the publication's
/// column list leaves it out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table} has no column `{column}` in the publication; it has {}", found.join(", "))]
pub struct MissingColumn {
    /// The table.
    pub table: QualifiedName,
    /// The column that is missing.
    pub column: String,
    /// The columns that the relation has.
    pub found: Vec<String>,
}

/// Which of a row's values are the envelope's.
///
/// Found by name whenever the log describes the table, so that columns may be added, dropped and
/// reordered while the stream flows; a row is then taken apart in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventColumns {
    fields: Vec<Option<Field>>,
}

impl EventColumns {
    /// Finds the columns called `names` in `relation`, which describes `table`.
    ///
    /// # Errors
    /// When one of the nine is missing; none of them can be done without.
    pub fn find(
        relation: &Relation<'_>,
        table: &QualifiedName,
        names: &ColumnNames,
    ) -> Result<Self, MissingColumn> {
        let field_of = |column: RelationColumn<'_>| {
            Field::ALL.into_iter().find(|field| names.of(*field) == column.name)
        };
        let fields: Vec<_> = relation.columns().map(field_of).collect();
        match Field::ALL.into_iter().find(|field| !fields.contains(&Some(*field))) {
            None => Ok(Self { fields }),
            Some(missing) => Err(MissingColumn {
                table: table.clone(),
                column: names.of(missing).to_owned(),
                found: relation.columns().map(|it| it.name.to_owned()).collect(),
            }),
        }
    }

    /// For each value of a row, in order, the field that it is.
    pub fn fields(&self) -> &[Option<Field>] {
        &self.fields
    }
}

/// What the log has told of tables so far, by their object ids: the events table's columns, and
/// which tables are none of our business.
#[derive(Debug, Default)]
pub struct Relations {
    known: HashMap<u32, Option<EventColumns>, foldhash::fast::RandomState>,
}

impl Relations {
    /// Takes note of `relation`, which replaces what was known of its id.
    ///
    /// # Errors
    /// When it is `table` and lacks one of the envelope's columns.
    pub fn learn(
        &mut self,
        relation: &Relation<'_>,
        table: &QualifiedName,
        names: &ColumnNames,
    ) -> Result<(), MissingColumn> {
        let is_ours =
            relation.schema == table.schema.as_str() && relation.name == table.name.as_str();
        let columns = is_ours.then(|| EventColumns::find(relation, table, names)).transpose()?;
        self.known.insert(relation.id, columns);
        Ok(())
    }

    /// The columns of the table with the object id `id`: `Some(None)` when it is not the events
    /// table, `None` when the log has not described it.
    pub fn get(&self, id: u32) -> Option<Option<&EventColumns>> {
        self.known.get(&id).map(Option::as_ref)
    }
}
