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
async fn a_database_that_is_restored_to_an_earlier_time_gets_the_rows_of_that_time() {
    let mut app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 30, 2, 100).await;
    app.caught_up().await;
    let backup = app.cluster.back_up().await;
    let events = app.value("select count(*) from events").await.unwrap();
    workload::load(&app, 31, 2, 200).await;
    app.caught_up().await;

    // it runs on, and knows positions of a log that has never been
    app.cluster.restore(&backup).await;
    assert_eq!(app.value("select count(*) from events").await.unwrap(), events);
    workload::load(&app, 32, 2, 50).await;
    app.caught_up().await;

    app.assert_rows_equal_history().await;
    sidecar.says_more("slot created", 1).await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));

    // one that was not there meanwhile finds checkpoints beyond the end of the log
    let beyond = "update projector.checkpoints set lsn = lsn + 1073741824";
    app.cluster.batch(beyond).await;
    workload::load(&app, 33, 2, 50).await;
    let sidecar = app.run().await;
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
async fn a_build_that_writes_more_log_than_a_slot_may_keep_comes_to_its_end() {
    let app = App::with(&[
        ("max_slot_wal_keep_size", "8MB"),
        ("max_wal_size", "2MB"),
        ("min_wal_size", "2MB"),
    ])
    .await;
    app.cluster.batch(&workload::bulk(500)).await;
    let wide = "insert into events (project_id, run_id, version, type, payload)
         select '7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801', r.id, v, 'log', jsonb_build_object('message',
           (select string_agg(md5(format('%s %s %s', r.n, v, part)), '') from generate_series(1, 40) part))
         from (select gen_random_uuid() as id, n from generate_series(1, 600) n) r,
           generate_series(1, 20) v";
    app.cluster.batch(wide).await;
    app.cluster.batch("create table began as select pg_current_wal_lsn() as lsn").await;

    let sidecar = app.run().await;
    sidecar.says("built from history").await;
    app.cluster.batch(&workload::bulk(10)).await;
    app.caught_up().await;

    let written = "select 12 * 1048576 < pg_wal_lsn_diff(pg_current_wal_lsn(), lsn) from began";
    assert_eq!(app.value(written).await.as_deref(), Some("t"), "else this proves nothing");
    assert!(!sidecar.log().contains("cannot build"), "{}", sidecar.log());
    assert!(!sidecar.log().contains("slot was invalidated"), "{}", sidecar.log());
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_rebuild_whose_index_would_cost_the_slot_is_refused() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    app.cluster.batch(&workload::bulk(1000)).await;
    app.caught_up().await;
    // the slot lets go of the log first: a checkpoint would cost it, before anybody asks
    app.cluster.batch("checkpoint").await;
    let kept = "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) < 262144
         from pg_replication_slots";
    app.becomes(kept, "t").await;
    app.cluster.batch("alter system set max_slot_wal_keep_size = '1MB'").await;
    app.cluster.batch("select pg_reload_conf()").await;

    let mut rebuild = app.command("rebuild");
    rebuild.arg("run_log");
    let output = app.output(rebuild).await;

    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("a slot may keep 1048576 (max_slot_wal_keep_size)"), "{said}");
    app.cluster.batch("alter system reset max_slot_wal_keep_size").await;
    app.cluster.batch("select pg_reload_conf()").await;
    app.cluster.batch(&workload::bulk(10)).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;
    drop(sidecar);
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
async fn a_publication_that_was_made_anew_while_nobody_ran_costs_nothing_but_a_build() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    workload::load(&app, 19, 2, 50).await;
    app.caught_up().await;
    sidecar.terminate().await;

    app.cluster.batch("drop publication projector").await;
    workload::load(&app, 20, 1, 50).await;
    let migrated = app.output(app.command("migrate")).await;
    assert!(migrated.status.success(), "{migrated:?}");
    let sidecar = app.run().await;
    workload::load(&app, 21, 1, 50).await;
    app.caught_up().await;

    sidecar.says("the publication is another").await;
    app.assert_rows_equal_history().await;
    let (seen, again) = (sidecar.terminate().await, app.run().await);
    assert_eq!(seen.code(), Some(0));
    assert!(!again.log().contains("the publication is another"), "{}", again.log());
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
    // what it has lost itself is nobody to stand by for
    sidecar.says_more("the connection before this one still holds slot", seen).await;
    assert!(!sidecar.log().contains("standing by"), "{}", sidecar.log());
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
