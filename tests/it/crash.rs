//! Whatever is killed, whenever: the read models are what history says, and the slot never forgets
//! what is not durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use tokio_postgres::Client;

use crate::support::app::{App, Sidecar};
use crate::support::eventually::eventually;
use crate::support::workload;

/// Fails when the slot has confirmed more than a checkpoint covers, at any moment that it sees.
async fn watch_acknowledgement(client: Client, end: Arc<AtomicBool>) -> u32 {
    // the checkpoint is read after the position: it may only have grown since
    let sql = "with slot as materialized (
           select confirmed_flush_lsn as lsn from pg_replication_slots where slot_name = 'projector')
         select slot.lsn::text, c.projection || ' ' || c.lsn from slot
         join projector.checkpoints c on c.lsn < slot.lsn
         join projector.projections p on p.name = c.projection and p.state = 'live'";
    let mut looks = 0;
    while !end.load(Ordering::SeqCst) {
        // a crashed server ends the watch; what it saw counts
        let Ok(ahead) = client.query_opt(&format!("{sql} limit 1"), &[]).await else { break };
        if let Some(row) = ahead {
            let (slot, behind): (String, String) = (row.get(0), row.get(1));
            panic!("the slot has confirmed {slot}, but {behind}");
        }
        looks += 1;
        tokio::task::yield_now().await;
    }
    looks
}

/// Waits until the events counted by `projection` have grown, by chance a little or a lot.
async fn let_it_work(app: &App, sidecar: &Sidecar, rng: &mut fastrand::Rng) {
    let client = app.client().await;
    let applied = "select coalesce(max(events), 0)::bigint from projector.checkpoints";
    let before: i64 = client.query_one(applied, &[]).await.unwrap().get(0);
    let history: i64 = client.query_one("select count(*) from events", &[]).await.unwrap().get(0);
    let more = (before + rng.i64(1..4_000)).min(history);
    eventually("progress", async || {
        let now: i64 = client.query_one(applied, &[]).await.unwrap().get(0);
        if more <= now { Ok(()) } else { Err(format!("{now} of {more}\n{}", sidecar.log())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_events_and_a_kill_at_any_moment_leave_the_rows_right() {
    let app = App::shipped().await;
    let mut rng = fastrand::Rng::with_seed(7);
    let end = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch_acknowledgement(app.client().await, Arc::clone(&end)));
    let (bulk, bulks) = (app.client().await, app.client().await);
    // the read models are there before the load is: what is killed here is the stream
    let mut sidecar = app.run().await;
    let writing = tokio::spawn(async move {
        for number in 0..36 {
            // small, middling and large transactions
            let runs = [20, 100, 700][number % 3];
            bulk.batch_execute(&workload::bulk(runs)).await.unwrap();
        }
    });
    let simulating = tokio::spawn(async move {
        workload::write(&bulks, 99, 2_000, 5).await;
    });

    for round in 0..18 {
        sidecar.says("\"ready\"").await;
        let_it_work(&app, &sidecar, &mut rng).await;
        match round % 6 {
            4 => assert_eq!(sidecar.terminate().await.code(), Some(0)),
            _ => sidecar.kill9(),
        }
        sidecar = app.spawn();
    }
    writing.await.unwrap();
    simulating.await.unwrap();
    app.caught_up().await;
    end.store(true, Ordering::SeqCst);

    assert!(100 < watching.await.unwrap());
    assert!(
        200_000 <= app.value("select count(*) from events").await.unwrap().parse::<u64>().unwrap()
    );
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_server_that_is_killed_under_load_loses_nothing_and_doubles_nothing() {
    let mut app = App::shipped().await;
    let sidecar = app.run().await;

    for round in 0..4 {
        let client = app.client().await;
        let writing = tokio::spawn(async move {
            let append = workload::bulk(20);
            for _ in 0..40 {
                if client.batch_execute(&append).await.is_err() {
                    break;
                }
            }
        });
        let_it_work(&app, &sidecar, &mut fastrand::Rng::with_seed(round)).await;
        app.cluster.kill9();
        writing.await.unwrap();
        app.cluster.restart().await;
    }
    let ready = app.client().await;
    ready.batch_execute(&workload::bulk(20)).await.unwrap();
    app.caught_up().await;

    app.assert_rows_equal_history().await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn backends_that_are_terminated_at_random_lose_nothing() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    let names = ["projector", "projector lane default", "projector%"];

    for (round, name) in names.into_iter().cycle().take(9).enumerate() {
        let seen = sidecar.lines();
        app.cluster.batch(&workload::bulk(50)).await;
        let terminate = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name like '{name}' and pid <> pg_backend_pid()"
        );
        let_it_work(&app, &sidecar, &mut fastrand::Rng::with_seed(round as u64)).await;
        app.cluster.batch(&terminate).await;
        sidecar.says_more("\"ready\"", seen).await;
    }
    app.caught_up().await;

    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_zombie_writes_nothing_when_it_wakes() {
    let app = App::shipped().await;
    let zombie = app.run().await;
    app.cluster.batch(&workload::bulk(300)).await;
    let_it_work(&app, &zombie, &mut fastrand::Rng::with_seed(1)).await;

    zombie.signal(Signal::STOP);
    app.cluster.batch(&workload::bulk(50)).await;
    app.cluster
        .batch(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name like 'projector%' and pid <> pg_backend_pid()",
        )
        .await;
    let second: Sidecar = app.run().await;
    app.cluster.batch(&workload::bulk(50)).await;
    app.caught_up().await;
    let seen = zombie.lines();
    zombie.signal(Signal::CONT);
    zombie.says_more("standing by", seen).await;
    app.cluster.batch(&workload::bulk(50)).await;
    app.caught_up().await;

    app.assert_rows_equal_history().await;
    assert_eq!(second.terminate().await.code(), Some(0));
    zombie.says_more("\"ready\"", seen).await;
    app.cluster.batch(&workload::bulk(10)).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn sigterm_under_load_applies_and_acknowledges_what_was_received() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    app.cluster.batch(&workload::bulk(500)).await;
    let client = app.client().await;
    let writing = tokio::spawn(async move {
        for _ in 0..30 {
            client.batch_execute(&workload::bulk(10)).await.unwrap();
        }
    });
    let_it_work(&app, &sidecar, &mut fastrand::Rng::with_seed(3)).await;

    sidecar.signal(Signal::TERM);
    let stopped = sidecar.says("\"stopped\"").await;
    assert_eq!(sidecar.ended().await.code(), Some(0), "{stopped}");
    app.becomes("select count(*) from pg_replication_slots where active", "0").await;
    let apart =
        "select string_agg(format('%s %s %s', c.projection, s.confirmed_flush_lsn, c.lsn), ', ')
         from projector.checkpoints c, pg_replication_slots s where s.confirmed_flush_lsn <> c.lsn";
    assert_eq!(app.value(apart).await, None);
    let torn = "select count(distinct lsn) from projector.checkpoints";
    assert_eq!(app.value(torn).await.unwrap(), "1");
    writing.await.unwrap();
    let _sidecar = app.run().await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
}
