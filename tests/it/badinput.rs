//! What `run` says when it cannot: one clear message, the right exit code, and nothing half-made.

use std::process::Command;

use crate::support::app::App;
use crate::support::cluster::Cluster;

/// Runs to the end. The exit code, and what stands on stderr after the log.
async fn refusal(app: &App, command: Command) -> (i32, String) {
    let output = app.output(command).await;
    let text = String::from_utf8(output.stderr).unwrap();
    let told: Vec<_> = text.lines().filter(|it| !it.starts_with('{')).collect();
    (output.status.code().unwrap(), told.join("\n"))
}

async fn assert_refused(app: &App, command: Command, code: i32, said: &[&str]) {
    let (found, told) = refusal(app, command).await;
    assert_eq!(found, code, "{told}");
    assert_eq!(told.matches("error: ").count(), 1, "{told}");
    for text in said {
        assert!(told.contains(text), "`{text}` in: {told}");
    }
}

async fn assert_no_slot(app: &App) {
    let slots = "select count(*) from pg_replication_slots where slot_name like 'projector%'";
    assert_eq!(app.value(slots).await.unwrap(), "0");
}

#[tokio::test]
async fn what_is_wrong_with_the_connection_is_said() {
    let app = App::shipped().await;

    let mut nobody = app.command("run");
    nobody.env("DATABASE_URL", "postgres://nobody:sesame@127.0.0.1:1/none");
    assert_refused(&app, nobody, 1, &["cannot reach Postgres at `127.0.0.1:1`", "hint: "]).await;

    let mut wrong = app.command("run");
    let url = format!("postgres://postgres:sesame@127.0.0.1:{}/postgres", app.cluster.port());
    wrong.env("DATABASE_URL", url);
    let (code, told) = refusal(&app, wrong).await;
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("password") && !told.contains("sesame"), "{told}");

    let mut unknown = app.command("run");
    unknown.env("PROJECTOR_SOURCE_SLOOT", "x");
    assert_refused(&app, unknown, 2, &["PROJECTOR_SOURCE_SLOOT"]).await;
    assert_no_slot(&app).await;
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_said() {
    let app = App::shipped().await;
    std::fs::write(app.projections().join("../projector.toml"), "[source]\nslott = \"a\"\n")
        .unwrap();
    assert_refused(&app, app.command("run"), 2, &["slott", "projector.toml:2"]).await;
    std::fs::remove_file(app.projections().join("../projector.toml")).unwrap();

    app.define("odd", "table = \"odd\"\nkey = { run_id = \"run_id\" }\n[columns]\nrun_id = \"uuid\"\n[[on]]\nevent = \"*\"\nset = { nmae = \"type\" }\n");
    let (code, told) = refusal(&app, app.command("run")).await;
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("unknown column `nmae`") && told.contains("odd.toml:7"), "{told}");
    assert_no_slot(&app).await;
}

#[tokio::test]
async fn a_database_that_was_not_migrated_or_is_newer_is_refused() {
    let app = App::unmigrated(Cluster::start().await);
    assert_refused(&app, app.command("run"), 1, &["projector migrate"]).await;
    assert_no_slot(&app).await;

    let app = App::shipped().await;
    app.cluster
        .batch("insert into projector.schema_migrations (version, name) values ('29990101000000', 'later')")
        .await;
    assert_refused(&app, app.command("run"), 1, &["newer"]).await;
    assert_no_slot(&app).await;
}

#[tokio::test]
async fn a_server_without_logical_decoding_is_refused() {
    let app = App::with(&[("wal_level", "replica")]).await;

    assert_refused(&app, app.command("run"), 1, &["wal_level", "logical", "hint: "]).await;
}

#[tokio::test]
async fn a_server_without_a_free_slot_is_refused() {
    let app = App::with(&[("max_replication_slots", "1")]).await;
    app.cluster.batch("select pg_create_physical_replication_slot('other')").await;

    assert_refused(&app, app.command("run"), 1, &["max_replication_slots", "hint: "]).await;

    assert_no_slot(&app).await;
}

#[tokio::test]
async fn a_server_without_a_free_sender_is_refused() {
    let app = App::with(&[("max_wal_senders", "0")]).await;

    assert_refused(&app, app.command("run"), 1, &["max_wal_senders", "hint: "]).await;

    assert_no_slot(&app).await;
}

#[tokio::test]
async fn a_role_that_may_not_replicate_is_refused() {
    let app = App::shipped().await;
    app.cluster.batch("create role weak login superuser password 'weak'; alter role weak nosuperuser; grant projector to weak").await;
    let mut command = app.command("run");
    command.env(
        "DATABASE_URL",
        format!("postgres://weak:weak@127.0.0.1:{}/postgres", app.cluster.port()),
    );

    assert_refused(&app, command, 1, &["may not replicate", "hint: "]).await;

    assert_no_slot(&app).await;
}

#[tokio::test]
async fn a_publication_or_a_column_that_is_missing_is_named() {
    let app = App::shipped().await;
    app.cluster.batch("drop publication projector").await;
    assert_refused(&app, app.command("run"), 1, &["publication `projector`", "projector migrate"])
        .await;
    assert_no_slot(&app).await;

    let app = App::shipped().await;
    app.cluster.batch("alter table events rename column payload to body").await;
    assert_refused(&app, app.command("run"), 1, &["payload", "hint: "]).await;
    assert_no_slot(&app).await;
}
