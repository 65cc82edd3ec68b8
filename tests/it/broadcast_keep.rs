//! The checkpoint of broadcasts, and what becomes of a connection that is lost or silent.

use crate::support::app::{App, Sidecar};
use crate::support::eventually::eventually;
use crate::support::hub::SECRET;
use crate::support::workload;

const KEPT: &str = "select lsn::text from projector.checkpoints where projection = '(broadcasts)'";

async fn embedded(app: &App) -> Sidecar {
    let mut command = app.command("run");
    command.env("PROJECTOR_REALTIME_MODE", "embedded").env("PROJECTOR_REALTIME_JWT_SECRET", SECRET);
    let sidecar = Sidecar::spawn(command);
    sidecar.says("\"ready\"").await;
    sidecar
}

/// Appends some events, and waits until a checkpoint of them is kept. It names the end of an event's
/// transaction; the log goes on behind it with whatever the server writes for itself.
async fn is_kept_again(app: &App, seed: u64) {
    let before = app.value("select pg_current_wal_flush_lsn()").await.unwrap();
    workload::load(app, seed, 1, 10).await;
    let kept = format!("select ('{before}'::pg_lsn < ({KEPT})::pg_lsn)::text");
    app.becomes(&kept, "true").await;
}

#[tokio::test]
async fn a_connection_that_is_terminated_is_made_anew_and_the_checkpoint_kept() {
    let app = App::shipped().await;
    let sidecar = embedded(&app).await;
    is_kept_again(&app, 1).await;
    let before = app.value(KEPT).await;
    // so that it is gone just when it is needed, and cannot come back for a while
    app.cluster
        .batch(
            "create function nothing() returns trigger language plpgsql as
               $$ begin raise exception 'not today'; end $$;
             create trigger nothing before insert or update on projector.checkpoints for each row
               when (new.projection = '(broadcasts)') execute function nothing();
             select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = 'projector broadcasts'",
        )
        .await;

    workload::load(&app, 2, 1, 10).await;
    let told = sidecar.says("the checkpoint of broadcasts is not kept").await;

    assert!(told.contains("\"WARN\""), "{told}");
    eventually("a status that says so", async || {
        let (_, body) = sidecar.get("/api/projections").await;
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        let error = status["broadcasts"]["last_error"].as_str().unwrap_or_default().to_owned();
        if error.contains("not today") { Ok(()) } else { Err(status) }
    })
    .await;
    assert_eq!(app.value(KEPT).await, before);
    app.cluster.batch("drop trigger nothing on projector.checkpoints").await;
    is_kept_again(&app, 3).await;
    sidecar.says("the checkpoint of broadcasts is kept again").await;
    let said = sidecar.log().matches("the checkpoint of broadcasts is not kept").count();
    assert_eq!(said, 1);
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_terminated_connection_alone_costs_nothing() {
    let app = App::shipped().await;
    let sidecar = embedded(&app).await;
    for seed in 1..=3 {
        is_kept_again(&app, seed).await;
        let terminate = "select count(pg_terminate_backend(pid))::text from pg_stat_activity
             where application_name = 'projector broadcasts'";
        assert_eq!(app.value(terminate).await.as_deref(), Some("1"));
    }
    is_kept_again(&app, 4).await;
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}
