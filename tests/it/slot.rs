//! The slot and the connections to it are lost in every way there is, and the read models are right
//! afterwards.

use crate::support::app::{App, Sidecar};
use crate::support::proxy::Proxy;
use crate::support::workload;

const READERS: &str = "select pg_terminate_backend(pid) from pg_stat_replication";
const SLOT: &str = "select slot_name from pg_replication_slots where active";

#[tokio::test]
async fn a_second_sidecar_stands_by_and_takes_over_when_the_first_is_killed() {
    let app = App::shipped().await;
    let first = app.run().await;
    let second = app.spawn();
    second.says("standing by").await;

    let (code, reasons) = second.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(reasons.contains("standby"), "{reasons}");
    assert_eq!(second.get("/healthz").await.0, 200);
    workload::load(&app, 10, 2, 100).await;
    first.kill9();
    second.says("\"ready\"").await;
    workload::load(&app, 11, 2, 100).await;
    app.caught_up().await;

    app.assert_rows_equal_history().await;
    assert_eq!(second.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_slot_that_was_dropped_while_nobody_ran_is_made_anew_and_the_rows_are_right() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 12, 2, 100).await;
    sidecar.kill9();
    app.becomes("select count(*) from pg_replication_slots where active", "0").await;

    app.cluster.batch("select pg_drop_replication_slot('projector')").await;
    workload::load(&app, 13, 2, 100).await;
    let sidecar = app.run().await;
    workload::load(&app, 14, 2, 50).await;
    app.caught_up().await;

    sidecar.says("built from history").await;
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_slot_that_was_invalidated_is_made_anew_and_the_rows_are_right() {
    let app = App::with(&[
        ("max_slot_wal_keep_size", "24MB"),
        ("max_wal_size", "2MB"),
        ("min_wal_size", "2MB"),
    ])
    .await;
    let sidecar = app.run().await;
    workload::load(&app, 15, 2, 100).await;
    sidecar.kill9();
    app.becomes("select count(*) from pg_replication_slots where active", "0").await;

    app.cluster.batch(&workload::bulk(100)).await;
    app.cluster
        .batch("create table noise as select repeat('x', 500) from generate_series(1, 60000)")
        .await;
    app.cluster.batch("checkpoint").await;
    app.becomes("select wal_status from pg_replication_slots", "lost").await;
    let sidecar = app.run().await;
    app.caught_up().await;

    sidecar.says("slot was invalidated").await;
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_publication_that_was_dropped_under_way_is_waited_for() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 16, 2, 50).await;
    app.caught_up().await;

    app.cluster.batch("drop publication projector").await;
    workload::load(&app, 17, 1, 50).await;
    let said = sidecar.says("the database cannot be followed").await;
    assert!(said.contains("publication"), "{said}");
    let (code, _) = sidecar.get("/readyz").await;
    assert_eq!(code, 503);
    let seen = sidecar.lines();
    let migrated = app.output(app.command("migrate")).await;
    assert!(migrated.status.success(), "{migrated:?}");
    sidecar.says_more("\"ready\"", seen).await;
    workload::load(&app, 18, 2, 50).await;
    app.caught_up().await;

    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_walsender_that_was_terminated_is_replaced() {
    let app = App::shipped().await;
    let sidecar = app.run().await;

    for round in 0..4 {
        let seen = sidecar.lines();
        let writing = workload::load(&app, 20 + round, 2, 50);
        let terminating = app.cluster.batch(READERS);
        tokio::join!(writing, terminating);
        sidecar.says_more("\"ready\"", seen).await;
    }
    app.caught_up().await;

    app.assert_rows_equal_history().await;
    let (_, metrics) = sidecar.get("/metrics").await;
    assert!(metrics.contains("projector_reconnects_total{reason=\"replication\"}"), "{metrics}");
}

#[tokio::test]
async fn a_restart_and_a_crash_of_the_server_are_lived_through() {
    let mut app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 30, 2, 100).await;

    app.cluster.restart().await;
    workload::load(&app, 31, 2, 100).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;

    workload::load(&app, 32, 2, 100).await;
    app.cluster.kill9();
    app.cluster.restart().await;
    workload::load(&app, 33, 2, 100).await;
    app.caught_up().await;

    app.assert_rows_equal_history().await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

fn through(app: &App, proxy: &Proxy) -> Sidecar {
    let mut command = app.command("run");
    let url = app.cluster.url();
    let url = url.replace(&format!(":{}/", app.cluster.port()), &format!(":{}/", proxy.port()));
    assert_ne!(url, app.cluster.url());
    command.env("DATABASE_URL", url);
    Sidecar::spawn(command)
}

#[tokio::test]
async fn a_connection_that_is_half_open_is_noticed_and_replaced() {
    // the watchdog goes by the server's own limit
    let app = App::with(&[("wal_sender_timeout", "3s")]).await;
    let proxy = Proxy::start(app.cluster.port()).await;
    let sidecar = through(&app, &proxy);
    sidecar.says("\"ready\"").await;
    workload::load(&app, 40, 2, 50).await;
    app.caught_up().await;

    let seen = sidecar.lines();
    proxy.stall();
    workload::load(&app, 41, 2, 50).await;
    sidecar.says_more("silent", seen).await;
    // the server notices too, by its own keepalives
    proxy.cut();
    sidecar.says_more("\"ready\"", seen).await;
    app.caught_up().await;

    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_quiet_server_is_not_taken_for_a_dead_one() {
    let app = App::with(&[("wal_sender_timeout", "1s")]).await;
    let sidecar = app.run().await;
    let pid = "select pid from pg_stat_replication";
    let before = app.value(pid).await;
    let asked = "select 1 from pg_stat_replication
         where clock_timestamp() - interval '3 seconds' > backend_start";

    app.becomes(asked, "1").await;

    assert_eq!(app.value(pid).await, before, "{}", sidecar.log());
    assert_eq!(app.value(SLOT).await.unwrap(), "projector");
}

#[tokio::test]
async fn connections_that_are_cut_again_and_again_lose_nothing() {
    let app = App::shipped().await;
    let proxy = Proxy::start(app.cluster.port()).await;
    let sidecar = through(&app, &proxy);
    sidecar.says("\"ready\"").await;

    for round in 0..5 {
        let seen = sidecar.lines();
        workload::load(&app, 50 + round, 2, 40).await;
        proxy.cut();
        sidecar.says_more("\"ready\"", seen).await;
    }
    app.caught_up().await;

    app.assert_rows_equal_history().await;
}
