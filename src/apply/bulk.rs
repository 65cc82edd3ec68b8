//! Many new rows at once into a table in which each event has its own: `COPY` instead of `INSERT`.
//!
//! The server reads each row from the stream as it comes, fills whole pages, and writes one log record
//! a page. What an `INSERT` of arrays costs beside that is about as much as the rows themselves.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Client, Error as PgError, Statement};

use crate::apply::copy::Encoder;
use crate::definition::Definition;
use crate::fold::rows::Changes;
use crate::fold::settle::{Settler, Stored};
use crate::ident::QualifiedName;

/// Fewer rows go with the other statements, without a wait for the server to be ready for them.
pub const FEWEST_ROWS: usize = 256;

/// Copies the pending rows of a projection.
#[derive(Debug)]
pub struct Bulk {
    settler: Settler,
    encoder: Encoder,
    statement: Statement,
}

impl Bulk {
    /// For a table; `None` where its rows may be there already, or only Postgres can make them.
    ///
    /// # Errors
    /// When the table is not what its definition says, or the connection is lost.
    pub async fn prepare(
        client: &Client,
        definition: &Arc<Definition>,
        table: &QualifiedName,
    ) -> Result<Option<Self>, PgError> {
        let can = definition.is_unique_per_event() && definition.lookups.is_empty();
        let Some(encoder) = Encoder::of(definition).filter(|_| can) else { return Ok(None) };
        let statement = client.prepare(&encoder.statement(table)).await?;
        Ok(Some(Self { settler: Settler::new(Arc::clone(definition)), encoder, statement }))
    }

    /// These rows as the server reads them; `None` where one of them does not fit its columns, which
    /// the other statement is to tell.
    pub fn encode(&self, changes: &Changes, rows: &[usize]) -> Option<Bytes> {
        let mut out = BytesMut::new();
        Encoder::begin(&mut out);
        let mut stored = Stored::default();
        for &row in rows {
            let is_there = self.settler.apply(&mut stored, false, (changes, row), |_, _| None);
            if is_there.ok()? {
                self.encoder.row(&stored.values, &mut out).ok()?;
            }
        }
        Encoder::end(&mut out);
        Some(out.freeze())
    }

    /// Sends rows that were encoded.
    ///
    /// # Errors
    /// What the database says.
    pub async fn copy(&self, client: &Client, rows: Bytes) -> Result<(), PgError> {
        let mut copy = pin!(client.copy_in::<_, Bytes>(&self.statement).await?);
        copy.send(rows).await?;
        copy.finish().await.map(drop)
    }
}
