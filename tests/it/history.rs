//! Tables made of history beside the stream.

use std::sync::Arc;

use projector::config::{self, Environment};
use projector::definition;
use projector::history::anchor::Anchor;
use projector::history::error::BuildError;
use projector::history::fill::{Purpose, fill};
use projector::history::follow::Follower;
use projector::history::pace::Pace;
use projector::history::source::{Source, Target};
use projector::ident::{Ident, QualifiedName};
use projector::lsn::Lsn;
use projector::redact::Redactor;
use tokio_util::sync::CancellationToken;

use crate::pg::settings;
use crate::support::app::{App, shipped};
use crate::support::workload;

fn source(app: &App) -> Source {
    let config = config::load(None, &Environment::default(), &[]).unwrap().config;
    Source {
        settings: settings(app.cluster.url()),
        events: config.events_table(),
        columns: config.source.columns,
        publication: config.source.publication,
        schema: config.schema,
        redactor: Arc::new(Redactor::default()),
        parked_limit: 1000,
        is_careful: false,
        memory: 1 << 20,
        pace: Pace::full(),
    }
}

/// A table for each shipped definition that nobody else uses.
fn targets() -> Vec<Target> {
    let target = |definition: definition::Definition| {
        let name = Ident::new(format!("{}_9", definition.name)).unwrap();
        let table = QualifiedName { schema: Ident::new("projector").unwrap(), name };
        Target { definition: Arc::new(definition), table }
    };
    definition::load(shipped()).unwrap().into_iter().map(target).collect()
}

fn is_send<T: Send>(it: T) -> T {
    it
}

#[tokio::test]
async fn tables_are_brought_to_exactly_each_position_that_is_asked_for() {
    let app = App::shipped().await;
    workload::load(&app, 1, 2, 100).await;
    let (source, targets) = (source(&app), targets());
    let (anchor, tape) = Anchor::take(&source, &Ident::new("exact").unwrap()).await.unwrap();
    // what is committed after the anchor: one writer, so that each position has one count
    let (client, mut marks) = (app.client().await, Vec::new());
    for seed in 0..20 {
        workload::write(&client, 500 + seed, 5, 3).await;
        let mark = "select pg_current_wal_flush_lsn(), count(*) from events";
        let row = client.query_one(mark, &[]).await.unwrap();
        marks.push((row.get::<_, Lsn>(0), row.get::<_, i64>(1)));
    }

    let cancel = CancellationToken::new();
    is_send(fill(&source, &anchor, &targets, Purpose::Serve, |_| {}, &cancel)).await.unwrap();
    let mut follower = is_send(Follower::start(&source, tape, &targets)).await.unwrap();
    for (lsn, wanted) in marks {
        is_send(follower.to(lsn)).await.unwrap();
        let counted = "select count(*) from projector.run_log_9";
        let counted: i64 = client.query_one(counted, &[]).await.unwrap().get(0);
        assert_eq!(counted, wanted, "at {lsn}");
    }
    follower.finish().await.unwrap();

    for target in &targets {
        let table = &target.table;
        let name = &target.definition.name;
        // the reference looks at the tables of these names
        app.cluster.batch(&format!("create view {name} as select * from {table}")).await;
    }
    app.assert_rows_equal_history().await;
    assert_eq!(app.value("select count(*) from pg_replication_slots").await.unwrap(), "0");
}

#[tokio::test]
async fn a_fill_that_is_called_off_or_fails_leaves_no_table() {
    let app = App::shipped().await;
    app.cluster.batch(&workload::bulk(2_000)).await;
    let (source, mut targets) = (source(&app), targets());
    let tables = "select count(*) from pg_class where relname ~ '_9$' and relkind = 'r'";

    let (anchor, tape) = Anchor::take(&source, &Ident::new("canceled").unwrap()).await.unwrap();
    let cancel = CancellationToken::new();
    let canceled =
        fill(&source, &anchor, &targets, Purpose::Serve, |_| cancel.cancel(), &cancel).await;
    assert!(matches!(canceled, Err(BuildError::Canceled)), "{canceled:?}");
    assert_eq!(app.value(tables).await.unwrap(), "0");

    let failing = std::fs::read_to_string(shipped().join("dead_runs.toml")).unwrap();
    let failing = failing.replace("default 0\"", "default 0 check (failures < 0)\"");
    let definition = definition::parse("dead_runs.toml".as_ref(), &failing).unwrap();
    targets[0].definition = Arc::new(definition);
    let failed =
        fill(&source, &anchor, &targets, Purpose::Serve, |_| {}, &CancellationToken::new()).await;
    assert_eq!(failed.unwrap_err().projection(), Some("dead_runs"));
    assert_eq!(app.value(tables).await.unwrap(), "0");
    tape.finish().await.unwrap();
}
