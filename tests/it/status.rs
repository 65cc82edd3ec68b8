//! `projector status` against a real database.

use projector::cli::status::{Form, Sidecar, Sources, render, show};
use projector::engine::status::State;
use projector::ident::Ident;
use projector::pg::{Settings, SharedClient};

use crate::support::cluster::Cluster;

/// Nothing listens there: a sidecar that does not run.
const NOWHERE: &str = "127.0.0.1:1";

/// The part of the control schema that the verb reads, with one live and one paused projection.
const CONTROL: &str = "
    create schema projector;
    create table projector.projections (name text primary key, state text not null, last_error text);
    create table projector.checkpoints (projection text primary key, lsn pg_lsn not null, events bigint not null);
    create table projector.dead_letters (projection text not null);
    create table projector.rebuilds (id int, projection text, events_done bigint, events_total bigint, finished_at timestamptz);
    insert into projector.projections values ('run_status', 'live'), ('dead_runs', 'rebuilding');
    insert into projector.checkpoints values ('run_status', pg_current_wal_lsn(), 7);
    insert into projector.dead_letters values ('run_status'), ('run_status');
    insert into projector.rebuilds values (1, 'dead_runs', 25, 100, null);
";

fn sources(cluster: &Cluster) -> Sources {
    let settings = Settings::parse(cluster.url(), |_name| None).unwrap();
    Sources {
        database: SharedClient::new(settings, "projector status"),
        slot: Ident::new("projector").unwrap(),
        limit_bytes: Some(1 << 20),
        sidecar: Sidecar::new(NOWHERE.parse().unwrap(), None).unwrap(),
    }
}

#[tokio::test]
async fn the_database_alone_says_where_each_projection_and_the_slot_stand() {
    let cluster = Cluster::with(&[("max_slot_wal_keep_size", "64MB")]).await;
    cluster.batch(CONTROL).await;
    // Not among writes: a slot starts where no transaction is under way.
    cluster.batch("select pg_create_logical_replication_slot('projector', 'pgoutput')").await;

    let report = sources(&cluster).report().await.unwrap();

    let [dead_runs, run_status] = &report.projections[..] else { panic!("{report:?}") };
    assert_eq!((dead_runs.state, dead_runs.progress), (State::Rebuilding, Some(0.25)));
    assert_eq!(dead_runs.checkpoint, None);
    assert_eq!((run_status.state, run_status.dead_letters), (State::Live, 2));
    assert_eq!(run_status.events_total, 7);
    assert_eq!(run_status.lag_bytes, Some(report.head.bytes_since(run_status.checkpoint.unwrap())));
    let slot = report.slot.as_ref().unwrap();
    assert!(!slot.active);
    assert_eq!(slot.limit_bytes, Some(1 << 20), "the lesser of the two limits");
    assert_eq!((report.ready, slot.wal_status.as_deref()), (None, Some("reserved")));
    assert!(render(&report).contains("slot projector  nobody reads  keeps "));
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_said_so() {
    let cluster = Cluster::start().await;

    let error = show(&sources(&cluster), Form::Text, |_text| Ok(())).await.unwrap_err();

    assert!(error.to_string().contains("`projector migrate`"), "{error:#}");
}
