//! A lane by itself: held only between transactions, with everything committed; and who is in it
//! changes there.

use std::sync::Arc;

use projector::apply::generation::Tables;
use projector::apply::writer::Writer;
use projector::config::{self, Config, Environment};
use projector::definition::{Definition, parse};
use projector::engine::lane::{
    Care, Change, Delivery, Joining, Lane, LaneError, LaneHandle, Shared,
};
use projector::engine::progress::{LaneProgress, Progress};
use projector::event::{Batch, Event, Timestamp};
use projector::history::refold::History;
use projector::ident::Ident;
use projector::lsn::Lsn;
use projector::metrics::Metrics;
use projector::redact::Redactor;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::app::App;

const COUNTS: &str = r#"table = "NAME"
key   = { type = "type" }

[columns]
type = "text"
seen = "bigint not null default 0"

[[on]]
event = "*"
add   = { seen = "`1`" }
"#;

/// A lane at work, and both ends of what it listens to.
struct Bench {
    queue: mpsc::Sender<Delivery>,
    handle: LaneHandle,
    work: JoinHandle<Result<(), LaneError>>,
}

fn counts(name: &str) -> Arc<Definition> {
    let text = COUNTS.replace("NAME", name);
    Arc::new(parse(format!("{name}.toml").as_ref(), &text).unwrap())
}

/// A projection with an empty generation that is complete up to `checkpoint`.
async fn joining(app: &App, name: &str, checkpoint: Lsn) -> Joining {
    let definition = counts(name);
    let tables = Tables::new(&definition, &Ident::new("public").unwrap());
    let table = tables.generation(1).unwrap();
    app.cluster.batch(&tables.create_generation(&table)).await;
    app.cluster
        .batch(&format!(
            "insert into projector.checkpoints (projection, lsn) values ('{name}', '{checkpoint}')"
        ))
        .await;
    Joining { table, checkpoint, events: 0, definition: Arc::clone(&definition) }
}

async fn bench(app: &App, member: Joining) -> Bench {
    let config: Config = config::load(None, &Environment::default(), &[]).unwrap().config;
    let (events, columns) = (config.events_table(), config.source.columns.clone());
    let progress = Progress::new(Lsn(10), vec![LaneProgress::new("default".to_owned(), Lsn(10))]);
    let shared = Shared {
        progress: Arc::new(progress),
        metrics: Arc::new(Metrics::new()),
        redactor: Arc::new(Redactor::default()),
        departures: mpsc::channel(1).0,
        pending_limit: 1 << 20,
        care: Arc::new(Care::default()),
        commits: tokio::sync::watch::channel(0).0,
        parked_limit: 10,
        history: Arc::new(History { events: events.clone(), columns: columns.clone() }),
    };
    let (queue, receiver) = mpsc::channel(2);
    let (handle, commands) = LaneHandle::new("default".to_owned());
    let mut writer = Writer::prepare(app.client().await, &[], (&events, &columns)).await.unwrap();
    let mut lane = Lane::new(0, receiver, commands, shared);
    lane.put(&mut writer, member).await.unwrap();
    Bench { queue, handle, work: tokio::spawn(lane.run(writer)) }
}

impl Bench {
    /// Hands over a batch, and waits until the lane has taken it.
    async fn give(&self, batch: Batch) {
        self.queue.send(Delivery::Batch(Arc::new(batch))).await.unwrap();
        while self.queue.capacity() < self.queue.max_capacity() {
            tokio::task::yield_now().await;
        }
    }
}

/// Adds events of a transaction whose commit record begins at `begin`; it ends when there is an end.
fn transaction(batch: &mut Batch, begin: u64, events: i32, end: Option<u64>) {
    batch.begin(Lsn(begin), Timestamp(0));
    for number in 0..events {
        batch.push(Event {
            position: i64::try_from(begin).unwrap() + i64::from(number),
            project_id: Uuid::nil(),
            run_id: Uuid::new_v4(),
            version: 1,
            event_id: Uuid::new_v4(),
            kind: "log",
            payload: "{}",
            metadata: "{}",
            recorded_at: Timestamp(0),
        });
    }
    if let Some(end) = end {
        batch.commit(Lsn(end));
    }
}

async fn seen(app: &App, name: &str) -> (String, String) {
    let count = format!("select coalesce(sum(seen), 0) from projector.{name}_1");
    let checkpoint = format!("select lsn from projector.checkpoints where projection = '{name}'");
    (app.value(&count).await.unwrap(), app.value(&checkpoint).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_is_held_between_transactions_with_everything_committed() {
    let app = App::bare(&[]).await;
    let bench = bench(&app, joining(&app, "one", Lsn(10)).await).await;
    let mut first = Batch::default();
    transaction(&mut first, 20, 3, Some(30));
    transaction(&mut first, 40, 5, None);
    bench.give(first).await;

    // asked for in the midst of a transaction, it waits for the end of that
    let handle = bench.handle.clone();
    let asked = tokio::spawn(async move { handle.hold().await });
    let mut second = Batch::default();
    transaction(&mut second, 40, 7, Some(50));
    bench.queue.send(Delivery::Batch(Arc::new(second))).await.unwrap();
    let held = asked.await.unwrap().unwrap();
    assert_eq!(held.position, Lsn(50));
    assert_eq!(seen(&app, "one").await, ("15".to_owned(), "0/32".to_owned()));

    // what comes meanwhile waits; who is dropped changes nothing
    let mut third = Batch::default();
    transaction(&mut third, 60, 1, Some(70));
    bench.queue.send(Delivery::Batch(Arc::new(third))).await.unwrap();
    assert_eq!(seen(&app, "one").await, ("15".to_owned(), "0/32".to_owned()));
    drop(held);
    app.becomes("select lsn from projector.checkpoints where projection = 'one'", "0/46").await;

    // one joins and has what lies up to its own checkpoint already; one leaves where it is
    let held = bench.handle.hold().await.unwrap();
    assert_eq!(held.position, Lsn(70));
    let two = joining(&app, "two", Lsn(90)).await;
    held.release(vec![Change::Put(two), Change::Remove("one".to_owned())]);
    let mut fourth = Batch::default();
    transaction(&mut fourth, 80, 2, Some(90));
    transaction(&mut fourth, 100, 4, Some(110));
    bench.give(fourth).await;
    drop(bench.queue);
    bench.work.await.unwrap().unwrap();
    assert_eq!(seen(&app, "one").await, ("16".to_owned(), "0/46".to_owned()));
    assert_eq!(seen(&app, "two").await, ("4".to_owned(), "0/6E".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_whose_projection_left_with_its_holder_moves_on_without_it() {
    let app = App::bare(&[]).await;
    let bench = bench(&app, joining(&app, "one", Lsn(10)).await).await;
    let mut held = bench.handle.hold().await.unwrap();
    held.if_dropped(vec![Change::Remove("one".to_owned())]);
    drop(held);

    let mut batch = Batch::default();
    transaction(&mut batch, 20, 3, Some(30));
    bench.give(batch).await;
    bench.queue.send(Delivery::Idle(Lsn(40))).await.unwrap();
    // the hold that comes after what is waiting has that behind it
    while bench.handle.hold().await.unwrap().position < Lsn(40) {}

    assert_eq!(seen(&app, "one").await, ("0".to_owned(), "0/A".to_owned()));
}
