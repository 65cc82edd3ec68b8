//! History folded by several readers, settled in memory and copied into tables without indexes, which
//! are made at the end.
//!
//! ```text
//!             ┌─ reader: COPY out of a range of runs ▸ fold ──▶ sink: settle ▸ COPY in ─┐
//!  ranges ───▶┤                                                                         ├─▶ indexes
//!             └─ reader                               ──▶ sink                         ─┘
//! ```
//!
//! A run is read by one reader, its events in order. When it has ended its rows are as they will stay,
//! so that they can be written whole. A reader goes on while its sink writes.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Shelf, PoisonError};

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::{Client, Error as PgError};

use crate::apply::copy::Encoder;
use crate::apply::error::WriteError;
use crate::apply::generation::Tables;
use crate::apply::letters;
use crate::apply::writer::Writer;
use crate::definition::{ColumnType, Definition, Needs};
use crate::fold::settle::Settler;
use crate::history::anchor::Anchor;
use crate::history::error::BuildError;
use crate::history::fill::reader::{Reader, Work};
use crate::history::fill::sink::{Sink, Table, Way};
use crate::history::fill::split::{Range, ranges};
use crate::history::fill::{Filled, Purpose, TELL, adopt, estimate, make_table};
use crate::history::source::{BuildProgress, Source, Target};
use crate::ident::literal;
use crate::pg;

/// Why the fast way came to no end.
#[derive(Debug)]
pub(super) enum Stop {
    /// No way would have.
    Error(BuildError),
    /// Something is written down of an event that was not read as a whole.
    NeedsEverything,
    /// Only the other way can tell.
    OneByOne,
    /// The sink has ended, and has its own reason to tell.
    SinkGone,
}

impl<E: Into<BuildError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// How much is read of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// What the definitions look at.
    Needed,
    /// All of it.
    Everything,
}

/// At least two readers, so that one folds while the server works for the other …
const READERS_LEAST: usize = 2;
/// … and no more than these: the server has something else to do.
const READERS_MOST: usize = 4;
/// How much a reader gathers before it hands over; it and its sink have a few times as much.
const BLOCK_BYTES: (usize, usize) = (64 * 1024, 4 * 1024 * 1024);

/// Fills the tables, which are made here.
pub(super) async fn fill(
    source: &Source,
    anchor: &Anchor,
    targets: &[Target],
    purpose: Purpose,
    reading: Reading,
    tell: &mut (impl FnMut(BuildProgress) + Send),
) -> Result<Filled, Stop> {
    let readers = std::thread::available_parallelism().map_or(READERS_LEAST, NonZero::get);
    let readers = readers.clamp(READERS_LEAST, READERS_MOST);
    let client = pg::connect(&source.settings, "projector build").await?;
    let (tables, merged) = plan(targets);
    for table in tables.iter() {
        make(&client, source, table, purpose).await?;
    }
    let mut merger = Writer::prepare(client, &merged, (&source.events, &source.columns)).await?;
    merger.building();
    let merger = Arc::new(Mutex::new(merger));

    let first = history(source, anchor).await?;
    let total = estimate(&first, source).await?;
    let ranges = ranges(&first, source, readers, total).await?;
    let readers = readers.min(ranges.len());
    let needs = match reading {
        Reading::Everything => Needs::ALL,
        Reading::Needed => {
            targets.iter().map(|it| it.definition.needs()).fold(Needs::default(), Needs::and)
        }
    };
    let work = Arc::new(Work {
        source: source.clone(),
        needs,
        lsn: anchor.lsn,
        block_bytes: (source.memory / (4 * readers)).clamp(BLOCK_BYTES.0, BLOCK_BYTES.1),
        ranges: Shelf::new(VecDeque::from(ranges)),
        done: AtomicU64::new(0),
        tables: Arc::clone(&tables),
    });

    let mut reading = JoinSet::new();
    let mut writing = JoinSet::new();
    let mut clients = vec![first];
    while clients.len() < readers {
        clients.push(history(source, anchor).await?);
    }
    for client in clients {
        let (queue, blocks) = mpsc::channel(1);
        let out = pg::connect(&source.settings, "projector build").await?;
        out.batch_execute("set synchronous_commit = off").await?;
        let letters = letters::prepare(&out).await?;
        let (tables, merger) = (Arc::clone(&tables), Arc::clone(&merger));
        let pace = source.pace.clone();
        let sink = Sink { client: out, letters, tables, merger, pace };
        writing.spawn(sink.run(blocks));
        reading.spawn(Reader::new(Arc::clone(&work), queue).run(client));
    }
    tell(BuildProgress { done: 0, total });
    let told = || {
        let done = work.done.load(Ordering::Relaxed);
        BuildProgress { done, total: total.max(done) }
    };
    let clients = join(reading, writing, || tell(told())).await?;
    complete(source, &tables, purpose, clients).await?;
    let events = work.done.load(Ordering::Relaxed);
    tell(BuildProgress { done: events, total: events });
    Ok(Filled { events })
}

/// Which way each table is filled, and those that are merged.
#[expect(clippy::type_complexity, reason = "what a writer takes")]
fn plan(targets: &[Target]) -> (Arc<[Table]>, Vec<(Arc<Definition>, crate::ident::QualifiedName)>) {
    let mut merged = Vec::new();
    let tables = targets.iter().map(|target| {
        let definition = &target.definition;
        let encoder = Encoder::of(definition).filter(|_| settles(definition));
        let way = match encoder {
            Some(encoder) => Way::Copied { settler: Settler::new(Arc::clone(definition)), encoder },
            None => {
                merged.push((Arc::clone(definition), target.table.clone()));
                Way::Merged(merged.len() - 1)
            }
        };
        Table { target: target.clone(), way }
    });
    (tables.collect(), merged)
}

/// Whether rows are final when their run has been folded, and their lookups can be told from texts.
fn settles(definition: &Definition) -> bool {
    let lookups = definition.lookups.iter().all(|it| {
        let ty = definition.columns.get(it.column).map(|it| &it.ty);
        ty == Some(&ColumnType::Text) && !it.may_count()
    });
    let by_rules = definition.code.is_none() && definition.sql.is_none();
    lookups && by_rules && definition.belongs_to_runs()
}

async fn make(
    client: &Client,
    source: &Source,
    table: &Table,
    purpose: Purpose,
) -> Result<(), BuildError> {
    if let Way::Merged(_) = table.way {
        return make_table(client, source, &table.target, purpose).await;
    }
    let Target { definition, table } = &table.target;
    let tables = Tables::new(definition, &source.schema);
    let create = tables.create_bare(table, purpose == Purpose::Serve);
    let made = client.batch_execute(&format!("drop table if exists {table};\n{create}")).await;
    made.map_err(|source| BuildError::Tables { projection: definition.name.clone(), source })
}

/// A connection that sees what the anchor's snapshot sees.
async fn history(source: &Source, anchor: &Anchor) -> Result<Client, BuildError> {
    let client = pg::connect(&source.settings, "projector history").await?;
    let begin = "set jit = off; set work_mem = '64MB'; set max_parallel_workers_per_gather = 0;
         begin isolation level repeatable read read only; set transaction snapshot";
    client.batch_execute(&format!("{begin} {}", literal(&anchor.snapshot))).await?;
    Ok(client)
}

/// Waits for all tasks; the first that fails ends the others. Gives the sinks' connections back.
async fn join(
    mut reading: JoinSet<Result<(), Stop>>,
    mut writing: JoinSet<Result<Client, Stop>>,
    mut tell: impl FnMut(),
) -> Result<Vec<Client>, Stop> {
    let mut tick = interval(TELL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clients = Vec::new();
    loop {
        tokio::select! {
            Some(ended) = writing.join_next() => clients.push(ended??),
            Some(ended) = reading.join_next() => match ended? {
                Ok(()) | Err(Stop::SinkGone) => {}
                Err(stop) => return Err(stop),
            },
            _ = tick.tick() => tell(),
        }
        if reading.is_empty() && writing.is_empty() {
            return Ok(clients);
        }
    }
}

/// Makes keys and indexes, of several tables at a time.
async fn complete(
    source: &Source,
    tables: &Arc<[Table]>,
    purpose: Purpose,
    clients: Vec<Client>,
) -> Result<(), Stop> {
    // the tables that grow with every event first: they take longest
    let mut order: Vec<_> = (0..tables.len()).collect();
    order.sort_by_key(|it| tables.get(*it).map(|it| !it.target.definition.is_unique_per_event()));
    let waiting = Arc::new(Shelf::new(VecDeque::from(order)));
    let mut tasks = JoinSet::new();
    for client in clients {
        let (source, tables) = (source.clone(), Arc::clone(tables));
        let waiting = Arc::clone(&waiting);
        tasks.spawn(async move {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(table) = next.and_then(|it| tables.get(it)) else { break };
                complete_one(&client, &source, table, purpose).await?;
            }
            Ok::<_, BuildError>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn complete_one(
    client: &Client,
    source: &Source,
    table: &Table,
    purpose: Purpose,
) -> Result<(), BuildError> {
    let serves = purpose == Purpose::Serve;
    let Target { definition, table: name } = &table.target;
    if let Way::Copied { .. } = table.way {
        let sql = Tables::new(definition, &source.schema).complete(name, serves);
        source.pace.afford(0).await;
        let _turn = source.pace.turn().await;
        if source.pace.is_busy() {
            client.batch_execute("set max_parallel_maintenance_workers = 0").await?;
        }
        let refused =
            |source: PgError| WriteError::Rows { projection: definition.name.clone(), source };
        client.batch_execute(&sql).await.map_err(refused)?;
    }
    if serves {
        letters::complete(client, name, (&source.events, &source.columns), &source.redactor)
            .await?;
        adopt(client, source, &table.target).await?;
    }
    Ok(())
}

/// The next range that nobody reads yet.
pub(super) fn next(ranges: &Shelf<VecDeque<Range>>) -> Option<Range> {
    ranges.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}
