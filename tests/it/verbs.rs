//! The SQL verbs: what they write down, what they refuse, and who may call them.

use tokio_postgres::Client;
use tokio_postgres::error::DbError;

use crate::support::app::App;
use crate::support::cluster::Cluster;
use crate::support::workload;
use crate::write_side::{PROJECT, migrated, refused};

/// A projection in each state that matters, without a sidecar that would see to them.
const PROJECTIONS: &str = "
    insert into projector.projections (name, table_name, definition_hash, state, last_error)
    values ('run_status', 'run_status', '', 'live', null),
           ('old', 'old', '', 'detached', null),
           ('broken', 'broken', '', 'failed', 'secret cause');
    insert into projector.checkpoints (projection, lsn)
    values ('run_status', '0/100'), ('old', '0/100'), ('broken', '0/100');";

async fn with_projections() -> (Cluster, Client) {
    let (cluster, client) = migrated().await;
    client.batch_execute(PROJECTIONS).await.unwrap();
    (cluster, client)
}

/// The whole of what the server says to a statement that fails.
async fn error(client: &Client, sql: &str) -> DbError {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.as_db_error().unwrap().clone()
}

async fn value(client: &Client, sql: &str) -> String {
    client.query_one(&format!("select ({sql})::text"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_rebuild_is_requested_once_and_refused_while_one_is_under_way() {
    let (_cluster, client) = with_projections().await;

    let first = value(&client, "select projector.rebuild('run_status')").await;
    let again = value(&client, "select projector.rebuild('run_status')").await;
    client.batch_execute("update projector.rebuilds set phase = 'fold'").await.unwrap();
    let refused = error(&client, "select projector.rebuild('run_status')").await;

    assert_eq!(first, again);
    let row =
        "select concat_ws(' ', phase, reason, requested_by, generation) from projector.rebuilds";
    assert_eq!(value(&client, row).await, "fold request postgres");
    assert_eq!(refused.code().code(), "55006");
    assert!(refused.hint().unwrap().contains("projector.cancel_rebuild('run_status')"));
}

#[tokio::test]
async fn a_request_is_canceled_at_once_and_a_rebuild_under_way_is_asked_to_end() {
    let (_cluster, client) = with_projections().await;
    let canceled = "select projector.cancel_rebuild('run_status')";
    let row =
        "select string_agg(concat_ws(' ', phase, cancel_at is not null, finished_at is not null),
        ', ' order by id) from projector.rebuilds";

    assert_eq!(value(&client, canceled).await, "false");
    value(&client, "select projector.rebuild('run_status')").await;
    assert_eq!(value(&client, canceled).await, "true");
    value(&client, "select projector.rebuild('run_status')").await;
    let begun = "update projector.rebuilds set phase = 'fold' where finished_at is null";
    client.batch_execute(begun).await.unwrap();
    assert_eq!(value(&client, canceled).await, "true");
    assert_eq!(value(&client, canceled).await, "true");

    assert_eq!(value(&client, row).await, "canceled t t, fold t f");
}

#[tokio::test]
async fn pause_and_resume_say_whether_they_changed_anything() {
    let (_cluster, client) = with_projections().await;
    let paused = "select concat_ws(' ', paused_at is not null, paused_by)
        from projector.projections where name = 'run_status'";

    assert_eq!(value(&client, "select projector.resume('run_status')").await, "false");
    assert_eq!(value(&client, "select projector.pause('run_status')").await, "true");
    assert_eq!(value(&client, "select projector.pause('run_status')").await, "false");
    assert_eq!(value(&client, paused).await, "t postgres");
    let refused = error(&client, "select projector.rebuild('run_status')").await;
    assert_eq!(value(&client, "select projector.resume('run_status')").await, "true");
    assert_eq!(value(&client, paused).await, "f");

    assert_eq!(refused.code().code(), "55000");
    assert!(refused.hint().unwrap().contains("projector.resume('run_status')"));
}

#[tokio::test]
async fn every_verb_refuses_a_name_it_does_not_know_and_says_which_it_knows() {
    let (_cluster, client) = with_projections().await;

    for call in [
        "rebuild('x')",
        "cancel_rebuild('x')",
        "pause('x')",
        "resume('x')",
        "wait_for('x', '0/1')",
        "has_reached('x', '0/1')",
        "pause(null)",
    ] {
        let error = error(&client, &format!("select projector.{call}")).await;
        assert_eq!(error.code().code(), "22023", "{call}");
        assert_eq!(error.hint(), Some("there are: broken, old, run_status"), "{call}");
    }
}

#[tokio::test]
async fn what_cannot_move_is_not_rebuilt_paused_or_waited_for() {
    let (_cluster, client) = with_projections().await;

    for call in ["rebuild('old')", "pause('old')", "resume('broken')", "wait_for('old', '0/101')"] {
        let error = error(&client, &format!("select projector.{call}")).await;
        assert_eq!(error.code().code(), "55000", "{call}");
    }
    let reached = value(&client, "select projector.wait_for('old', '0/100')").await;
    let failed = error(&client, "select projector.wait_for('broken', '0/101')").await;
    client.batch_execute("create role reader; set role reader").await.unwrap();
    let told = error(&client, "select projector.wait_for('broken', '0/101')").await;

    assert_eq!(reached, "true");
    let complete = "Its rows are complete up to 0/100.";
    assert_eq!(failed.detail(), Some(format!("{complete} secret cause").as_str()));
    assert_eq!((told.code().code(), told.detail()), ("55000", Some(complete)));
}

#[tokio::test]
async fn waiting_is_refused_where_it_would_be_in_vain() {
    let (_cluster, client) = with_projections().await;
    let wait = "select projector.wait_for('run_status', pg_current_wal_insert_lsn(), '0')";

    assert_eq!(value(&client, wait).await, "false");
    for (sql, code) in [
        (format!("begin isolation level repeatable read; {wait}"), "25001"),
        (format!("begin isolation level serializable; {wait}"), "25001"),
        (format!("begin; select projector.pause('run_status'); {wait}"), "25001"),
        ("select projector.wait_for('run_status', null)".to_owned(), "22004"),
        ("select projector.wait_for('run_status', 'FF/0')".to_owned(), "22023"),
    ] {
        assert_eq!(error(&client, &sql).await.code().code(), code, "{sql}");
        client.batch_execute("rollback").await.unwrap();
    }
}

#[tokio::test]
async fn each_verb_leaves_an_entry_that_names_the_caller() {
    let (_cluster, client) = with_projections().await;
    client
        .batch_execute(
            "create role service_role; select projector.ensure_access();
             set application_name = 'deploy'; set role service_role;
             select projector.rebuild('run_status');
             select projector.cancel_rebuild('run_status');
             select projector.pause('run_status');
             select projector.pause('run_status');
             select projector.resume('run_status');
             reset role",
        )
        .await
        .unwrap();

    let log = "select string_agg(concat_ws(' ', who, verb, subject, details ->> 'application',
        details ->> 'role'), ', ' order by id) from projector.audit_log";
    assert_eq!(
        value(&client, log).await,
        "postgres rebuild run_status deploy service_role, \
         postgres cancel_rebuild run_status deploy service_role, \
         postgres pause run_status deploy service_role, \
         postgres resume run_status deploy service_role"
    );
}

#[tokio::test]
async fn operators_steer_and_everybody_may_wait() {
    let (_cluster, client) = with_projections().await;
    client
        .batch_execute(
            "create role service_role; create role reader; select projector.ensure_access()",
        )
        .await
        .unwrap();
    let steer = ["rebuild", "cancel_rebuild", "pause", "resume"];

    for role in ["projector", "service_role"] {
        client.batch_execute(&format!("set role {role}")).await.unwrap();
        for verb in steer {
            client.batch_execute(&format!("select projector.{verb}('run_status')")).await.unwrap();
        }
    }
    client.batch_execute("set role reader").await.unwrap();
    for verb in steer {
        let statement = format!("select projector.{verb}('run_status')");
        assert_eq!(refused(&client, &statement).await.0, "42501", "{statement}");
    }
    assert_eq!(value(&client, "select projector.wait_for('run_status', '0/99')").await, "true");
    assert_eq!(value(&client, "select projector.checkpoint('run_status')").await, "0/100");
    for statement in [
        "select projector.known('run_status')",
        "select projector.audit('a', 'b', '{}')",
        "select * from projector.rebuilds",
    ] {
        assert_eq!(refused(&client, statement).await.0, "42501", "{statement}");
    }
}

#[tokio::test]
async fn a_waiter_finds_its_own_write_although_nobody_writes_after_it() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    let client = app.client().await;

    for version in 0..3 {
        let append = format!(
            "select append_events('{PROJECT}', '{PROJECT}', {version}, '[{{\"type\": \"a\"}}]')"
        );
        client.batch_execute(&append).await.unwrap();
        // the log goes on behind the event, and nobody flushes it
        let more = "select pg_logical_emit_message(false, 'somebody', 'else')";
        client.batch_execute(more).await.unwrap();
        let lsn = value(&client, "select pg_current_wal_insert_lsn()").await;
        let wait = format!("select projector.wait_for('run_status', '{lsn}', '60 seconds')");
        assert_eq!(value(&client, &wait).await, "true");
        let seen = "select version from run_status";
        assert_eq!(value(&client, seen).await, (version + 1).to_string());
    }
    client
        .batch_execute("select pg_logical_emit_message(false, 'somebody', 'else')")
        .await
        .unwrap();
    let (status, answer) = sidecar.get("/api/projections/run_status/wait?timeout=9s").await;
    assert_eq!(status, 200, "{answer}");

    drop(sidecar);
}

#[tokio::test]
async fn a_waiter_is_told_in_time_that_nobody_follows() {
    let app = App::shipped().await;
    app.run().await.terminate().await;
    let client = app.client().await;
    client.batch_execute("create table somebody_writes ()").await.unwrap();

    let wait = "select projector.wait_for('run_status', pg_current_wal_insert_lsn(), '50 ms')";

    assert_eq!(value(&client, wait).await, "false");
}

#[tokio::test]
async fn the_command_line_steers_by_the_same_verbs() {
    let app = App::bare(&[]).await;
    app.cluster.batch(PROJECTIONS).await;
    let projector = async |arguments: &[&str]| {
        let mut command = app.command(arguments[0]);
        command.args(&arguments[1..]);
        let output = app.output(command).await;
        let both = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code().unwrap(), String::from_utf8(both).unwrap())
    };
    let nobody = "no sidecar runs here now";

    let asked = projector(&["rebuild", "run_status", "--detach"]).await;
    assert!(asked.0 == 0 && asked.1.contains(nobody), "{asked:?}");
    app.cluster.batch("update projector.rebuilds set phase = 'fold'").await;
    let running = projector(&["rebuild", "run_status", "broken", "--detach"]).await;
    assert!(running.0 == 1 && running.1.contains("rebuild run_status --cancel"), "{running:?}");
    assert_eq!(app.value("select count(*) from projector.rebuilds").await.unwrap(), "1");
    let canceled = projector(&["rebuild", "--all", "--cancel"]).await;
    assert_eq!(canceled, (0, "canceled the rebuild of run_status\n".to_owned()));
    let paused = projector(&["pause", "run_status"]).await;
    assert!(paused.0 == 0 && paused.1.starts_with("paused run_status\n"), "{paused:?}");
    let resumed = projector(&["resume", "run_status"]).await;
    assert!(resumed.0 == 0 && resumed.1.contains(nobody), "{resumed:?}");
    let unknown = projector(&["pause", "run_status", "x"]).await;
    assert!(
        unknown.0 == 2 && unknown.1.contains("there are: broken, old, run_status"),
        "{unknown:?}"
    );
    let paused = "select count(*) from projector.projections where paused_at is not null";
    assert_eq!(app.value(paused).await.unwrap(), "0");
    let reached = projector(&["wait", "run_status", "--lsn", "0/100"]).await;
    assert_eq!(reached, (0, "run_status has reached 0/100\n".to_owned()));
    let late = projector(&["wait", "run_status", "--timeout", "10ms"]).await;
    assert!(late.0 == 1 && late.1.contains("has not reached"), "{late:?}");
}

#[tokio::test]
async fn a_rebuild_is_shown_until_it_ends() {
    let app = App::bare(&[]).await;
    app.cluster.batch(PROJECTIONS).await;
    // whoever has this lock is the sidecar
    let lead = app.client().await;
    lead.batch_execute("select pg_advisory_lock(hashtext('projector'), hashtext('projector'))")
        .await
        .unwrap();
    let output = async {
        let mut command = app.command("rebuild");
        command.args(["run_status", "--output", "json"]);
        app.output(command).await
    };
    let sidecar = async {
        app.becomes("select count(*) from projector.rebuilds", "1").await;
        app.cluster
            .batch(
                "update projector.rebuilds set phase = 'failed', error = 'no room',
                   events_done = 7, finished_at = clock_timestamp()",
            )
            .await;
    };

    let (output, ()) = futures_util::future::join(output, sidecar).await;

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let it = &answer["rebuilds"][0];
    assert_eq!(
        (&it["phase"], &it["error"], &it["events_done"]),
        (&"failed".into(), &"no room".into(), &7.into())
    );
}

#[tokio::test]
async fn where_no_sidecar_runs_the_command_rebuilds_by_itself() {
    let app = App::shipped().await;
    app.cluster.batch(&workload::bulk(50)).await;
    app.run().await.terminate().await;
    let mut command = app.command("rebuild");
    command.args(["run_status", "--output", "json"]);

    let output = app.output(command).await;

    assert!(output.status.success(), "{output:?}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["rebuilds"][0]["phase"], "done", "{answer}");
    let generations = "select string_agg(distinct generation::text, ' ' order by generation::text)
        from projector.projections";
    assert_eq!(app.value(generations).await.unwrap(), "1 2");
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn broken_definitions_leave_no_request_behind() {
    let app = App::shipped().await;
    app.run().await.terminate().await;
    app.define("run_status", "table = 7");
    let mut command = app.command("rebuild");
    command.arg("run_log");

    let output = app.output(command).await;

    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(
        app.value("select count(*) from projector.rebuilds where finished_at is null")
            .await
            .unwrap(),
        "0"
    );
}

#[tokio::test]
async fn the_running_sidecar_carries_out_what_the_command_asks_for() {
    let app = App::shipped().await;
    let _sidecar = app.run().await;
    let projector = async |arguments: &[&str]| {
        let mut command = app.command(arguments[0]);
        command.args(&arguments[1..]);
        let output = app.output(command).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let state = "select state from projector.projections where name = 'run_log'";

    let rebuilt = projector(&["rebuild", "run_status", "run_log"]).await;
    projector(&["pause", "run_log"]).await;
    app.becomes(state, "paused").await;
    projector(&["resume", "run_log"]).await;
    app.becomes(state, "live").await;

    assert!(
        rebuilt.contains("rebuilt run_status") && rebuilt.contains("rebuilt run_log"),
        "{rebuilt}"
    );
    let generations = "select string_agg(generation::text, ' ' order by name)
        from projector.projections where name in ('run_status', 'step_status')";
    assert_eq!(app.value(generations).await.unwrap(), "2 1");
}
