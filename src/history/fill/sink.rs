//! Rows on their way into the tables: settled, encoded, copied.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::{Client, Error as PgError, Statement};
use uuid::Uuid;

use crate::apply::copy::Encoder;
use crate::apply::error::WriteError;
use crate::apply::letters;
use crate::apply::writer::{Part, Writer};
use crate::definition::{Lookup, Value};
use crate::fold::rows::Changes;
use crate::fold::settle::{Settler, Stored};
use crate::history::error::BuildError;
use crate::history::fill::fast::Stop;
use crate::history::fill::found::Found;
use crate::history::pace::Pace;
use crate::history::source::Target;

/// Bytes that are sent at once.
const CHUNK: usize = 128 * 1024;

/// How the rows of a table get into it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) target: Target,
    pub(super) way: Way,
}

/// One of two ways.
#[derive(Debug)]
pub(super) enum Way {
    /// The rows of a run are as they stay once the run has been folded: they are copied.
    Copied { settler: Settler, encoder: Encoder },
    /// Rows gather events of many runs, or only Postgres can say what becomes of them: changes are
    /// merged by the writer, which has the table by this number.
    Merged(usize),
}

/// What a reader hands over.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) table: usize,
    pub(super) changes: Changes,
    pub(super) found: Vec<Found>,
}

/// Writes what one reader hands over.
pub(super) struct Sink {
    pub(super) client: Client,
    pub(super) letters: Statement,
    pub(super) tables: Arc<[Table]>,
    /// Shared by all: two that merge into one table would wait for each other anyway.
    pub(super) merger: Arc<Mutex<Writer>>,
    pub(super) pace: Pace,
}

impl Sink {
    /// Works until nothing more comes, and gives its connection back.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Block>) -> Result<Client, Stop> {
        while let Some(block) = queue.recv().await {
            let Some(table) = self.tables.get(block.table) else { continue };
            self.pace.afford(block.changes.bytes()).await;
            match &table.way {
                Way::Copied { settler, encoder } => {
                    self.copy(table, (settler, encoder), &block).await?;
                }
                Way::Merged(number) => {
                    let Block { changes, .. } = block;
                    let part = Part { target: *number, changes };
                    let _turn = self.pace.turn().await;
                    self.merger.lock().await.write(&[part], &[]).await?;
                }
            }
        }
        Ok(self.client)
    }

    async fn copy(
        &self,
        table: &Table,
        (settler, encoder): (&Settler, &Encoder),
        block: &Block,
    ) -> Result<(), Stop> {
        let Target { definition, table } = &table.target;
        let Block { changes, found, .. } = block;
        let refused =
            |source: PgError| WriteError::Rows { projection: definition.name.clone(), source };
        let mut turn = self.pace.turn().await;
        letters::insert(&self.client, &self.letters, &table.to_string(), &changes.letters)
            .await
            .map_err(BuildError::Read)?;
        let copy = self.client.copy_in::<_, Bytes>(&encoder.statement(table)).await;
        let mut copy = pin!(copy.map_err(refused)?);
        let mut out = BytesMut::with_capacity(CHUNK + CHUNK / 4);
        Encoder::begin(&mut out);
        let mut stored = Stored::default();
        for row in changes.pass(0) {
            if settle(settler, &mut stored, changes, row, found)? {
                encoder.row(&stored.values, &mut out).map_err(|_| Stop::OneByOne)?;
            }
            if CHUNK <= out.len() {
                copy.send(out.split().freeze()).await.map_err(refused)?;
                if turn.is_over() {
                    drop(turn);
                    turn = self.pace.turn().await;
                }
            }
        }
        Encoder::end(&mut out);
        copy.send(out.freeze()).await.map_err(refused)?;
        copy.finish().await.map_err(refused)?;
        Ok(())
    }
}

/// Brings together all changes of a row that has none stored. Whether it is there in the end.
fn settle<'a>(
    settler: &Settler,
    stored: &mut Stored<'a>,
    changes: &'a Changes,
    first: usize,
    found: &'a [Found],
) -> Result<bool, Stop> {
    let definition = settler.definition();
    let run = definition.run_column().map(|it| changes.texts.value(changes.cell(first, it)));
    let run = match run {
        Some(Value::Uuid(run)) => run,
        _ => Uuid::nil(),
    };
    let look_up = |lookup: &Lookup, order| {
        let at = definition.lookups.iter().position(|it| it.column == lookup.column)?;
        found.get(at)?.find(run, order).map(|it| Value::Text(it.into()))
    };
    let mut is_there = false;
    let mut next = Some(first);
    while let Some(row) = next {
        // what cannot be put together here, the database refuses; it will say which event is to blame
        is_there =
            settler.apply(stored, is_there, (changes, row), look_up).map_err(|_| Stop::OneByOne)?;
        next = changes.rows.get(row).and_then(|it| it.later).map(|it| it as usize);
    }
    Ok(is_there)
}
