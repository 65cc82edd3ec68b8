//! Broadcasts to a Realtime over HTTP: all lines, in order, whatever it answers.

use std::process::Command;

use serde_json::Value;

use crate::support::app::{App, Sidecar};
use crate::support::eventually::eventually;
use crate::support::realtime::{Next, Project, Realtime, Viewer, lines_of};
use crate::support::workload;

/// A sidecar that broadcasts to the stub.
pub(crate) fn telling(app: &App, realtime: &Realtime) -> Command {
    let mut command = app.command("run");
    command
        .env("PROJECTOR_REALTIME_MODE", "http")
        .env("PROJECTOR_REALTIME_URL", realtime.url())
        .env("PROJECTOR_REALTIME_KEY", "sb_secret_test")
        .env("PROJECTOR_REALTIME_RATE", "10000")
        .env("PROJECTOR_REALTIME_WINDOW", "20ms");
    command
}

async fn started(command: Command) -> Sidecar {
    let sidecar = Sidecar::spawn(command);
    sidecar.says("\"ready\"").await;
    sidecar
}

/// Appends log events to one run, from `first` to `last`, each in a transaction of its own.
async fn append(app: &App, run: u8, first: i32, last: i32) {
    let client = app.client().await;
    for version in first..=last {
        let run = format!("00000000-0000-7000-8000-0000000000{run:02}");
        let sql = format!(
            "insert into events (project_id, run_id, version, type, payload)
             values ('{run}', '{run}', {version}, 'log', '{{\"message\": \"line {version}\"}}')"
        );
        client.batch_execute(&sql).await.unwrap();
    }
}

/// The versions of a run's lines, in the order in which the stub took them.
fn versions(taken: &[Value]) -> Vec<i64> {
    let lines = taken.iter().filter(|it| it["event"] == "log").flat_map(lines_of);
    lines.map(|it| it["version"].as_i64().unwrap()).collect()
}

async fn status(sidecar: &Sidecar) -> Value {
    let (_, body) = sidecar.get("/api/projections").await;
    serde_json::from_str::<Value>(&body).unwrap()["broadcasts"].clone()
}

#[tokio::test]
async fn every_event_of_a_run_is_told_once_and_can_be_read_before() {
    let app = App::shipped().await;
    let realtime = Realtime::start(Project::default()).await;
    append(&app, 9, 1, 3).await;
    let sidecar = started(telling(&app, &realtime)).await;

    let client = app.client().await;
    let append = "select append_events('00000000-0000-7000-8000-000000000001',
        '00000000-0000-7000-8000-000000000002', 0, $1)";
    let events = serde_json::json!([
        { "type": "run_started", "payload": { "workflow": "invoice" } },
        { "type": "log", "payload": { "message": "token Bearer abcdefghijklmnopqrstuvwxyz0123", "fields": { "password": "sesame" } } },
        { "type": "run_failed", "payload": { "error": { "message": "gave up" } } },
    ]);
    client.query(append, &[&events]).await.unwrap();
    let taken = realtime.takes("log", 3).await;
    let taken = if taken.len() < 2 { realtime.takes("run", 2).await } else { taken };

    // history is not told, only what is new
    let log: Vec<_> = taken.iter().filter(|it| it["event"] == "log").collect();
    assert_eq!(log[0]["topic"], "run:00000000-0000-7000-8000-000000000002");
    assert_eq!(log[0]["private"], true);
    assert_eq!(log[0]["payload"]["prev"], 0);
    assert_eq!(versions(&taken), [1, 2, 3]);
    let lines: Vec<_> = log.iter().flat_map(|it| lines_of(it)).collect();
    assert_eq!(lines[2]["message"], "gave up");
    assert_eq!(lines[2]["level"], "error");
    let text = Value::from(taken.clone()).to_string();
    assert!(!text.contains("sesame") && !text.contains("abcdefgh"), "{text}");
    let runs: Vec<_> = taken.iter().filter(|it| it["event"] == "run").flat_map(lines_of).collect();
    assert_eq!(runs.iter().map(|it| &it["status"]).collect::<Vec<_>>(), ["running", "failed"]);
    let rows = app.value("select count(*) from run_log where run_id::text like '%2'").await;
    assert_eq!(rows.as_deref(), Some("3"));
    eventually("a status that says so", async || {
        let status = status(&sidecar).await;
        let is_so = status["target"] == "http"
            && status["failing"] == false
            && status["backlog_lines"] == 0
            && status["definitions"] == serde_json::json!(["live_log", "run_events"]);
        if is_so { Ok(()) } else { Err(status) }
    })
    .await;
    let (_, metrics) = sidecar.get("/metrics").await;
    assert!(metrics.contains("projector_broadcasts_total{result=\"sent\",target=\"http\"}"));
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn order_holds_whatever_realtime_answers() {
    let app = App::shipped().await;
    let realtime = Realtime::start(Project::default()).await;
    let sidecar = started(telling(&app, &realtime)).await;
    let limit = r#"{"message":"Too many requests"}"#;
    realtime.then([
        Next::Answer(500, None, ""),
        Next::Reset,
        Next::Answer(429, Some(("x-rate-limit", "100")), limit),
        Next::Answer(429, Some(("retry-after", "1")), limit),
        Next::Answer(503, None, "upstream"),
        Next::Reset,
        Next::Answer(202, None, ""),
    ]);

    append(&app, 1, 1, 60).await;
    // what the last of them has taken is not among them
    let taken = eventually("the end of the run", async || {
        let taken = realtime.taken();
        match versions(&taken).last() {
            Some(60) => Ok(taken),
            other => Err(other.copied()),
        }
    })
    .await;

    let versions = versions(&taken);
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let mut viewer = Viewer::default();
    taken.iter().filter(|it| it["event"] == "log").for_each(|it| viewer.take(it));
    assert_eq!(viewer.holes, 1, "{viewer:?}");
    let log = sidecar.log();
    for part in ["answers 500", "broke the connection", "at most 100 events a second", "again"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_server_that_never_answers_is_asked_again() {
    let app = App::shipped().await;
    let realtime = Realtime::start(Project::default()).await;
    let sidecar = started(telling(&app, &realtime)).await;
    realtime.then([Next::Hang]);

    append(&app, 1, 1, 5).await;
    let taken = realtime.takes("log", 5).await;

    assert_eq!(versions(&taken), [1, 2, 3, 4, 5]);
    assert!(sidecar.log().contains("does not answer in time"));
}

#[tokio::test]
async fn a_message_that_is_refused_is_found_and_left_out() {
    let app = App::shipped().await;
    // too large for this project, which configuration did not know
    let project = Project { payload: 2_000, body: 6_000, batch: 4, ..Project::default() };
    let realtime = Realtime::start(project).await;
    let sidecar = started(telling(&app, &realtime)).await;

    let client = app.client().await;
    let sql = "insert into events (project_id, run_id, version, type, payload)
         select gen_random_uuid(), ('00000000-0000-7000-8000-0000000000' || 10 + n)::uuid, 1, 'log',
           jsonb_build_object('message', case n when 7 then repeat('x', 3000) else 'line ' || n end)
         from generate_series(1, 20) n";
    client.batch_execute(sql).await.unwrap();
    let taken = realtime.takes("log", 19).await;

    let of_log = taken.iter().filter(|it| it["event"] == "log");
    assert_eq!(of_log.filter(|it| !lines_of(it).is_empty()).count(), 19);
    let refused = sidecar.says("a broadcast is refused and left out").await;
    assert!(refused.contains("000000000017") && refused.contains("exceeds tenant limit"));
    eventually("a status that says so", async || {
        let status = status(&sidecar).await;
        if status["refused_total"] == 1 { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn a_line_too_long_is_cut_so_that_it_can_be_seen() {
    let app = App::shipped().await;
    let realtime = Realtime::start(Project::default()).await;
    let mut command = telling(&app, &realtime);
    command.env("PROJECTOR_REALTIME_MESSAGE_BYTES", "4KiB");
    let _sidecar = started(command).await;

    let sql = "insert into events (project_id, run_id, version, type, payload)
         select '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000001', v,
           'log', jsonb_build_object('message', repeat(E'\\n\"é', 3000), 'fields',
             jsonb_build_object('a', repeat('y', 9000)))
         from generate_series(1, 3) v";
    app.cluster.batch(sql).await;
    let taken = realtime.takes("log", 3).await;

    for message in &taken {
        assert!(message["payload"].to_string().len() <= 4096);
        let line = &lines_of(message)[0];
        assert_eq!(line["cut"], true);
        assert!(line["message"].as_str().unwrap().ends_with('…'));
        assert_eq!(line["fields"], Value::Null);
    }
}

#[tokio::test]
async fn a_key_that_would_lose_private_messages_is_found_out_before() {
    let app = App::shipped().await;
    let silent = Realtime::start(Project { may_send: false, ..Project::default() }).await;
    let sidecar = started(telling(&app, &silent)).await;

    append(&app, 1, 1, 2).await;
    let told = sidecar.says("would drop private broadcasts without a word").await;

    assert!(told.contains("service_role"), "{told}");
    assert_eq!(silent.asked(), (1, 1));
    app.caught_up().await;
    let failing = eventually("a status that says so", async || {
        let status = status(&sidecar).await;
        if status["failing"] == true { Ok(status) } else { Err(status) }
    })
    .await;
    assert!(failing["last_error"].as_str().unwrap().contains("private"), "{failing}");
    sidecar.kill9();

    // nothing of it is lost: what was not delivered comes again
    let realtime = Realtime::start(Project::default()).await;
    let _sidecar = started(telling(&app, &realtime)).await;
    assert_eq!(versions(&realtime.takes("log", 2).await), [1, 2]);
}

#[tokio::test]
async fn without_a_gateway_the_host_names_the_tenant() {
    let app = App::shipped().await;
    let project = Project { tenant: Some("realtime-dev"), key: "a.jwt.x", ..Project::default() };
    let realtime = Realtime::start(project).await;
    let direct = |host: &str| {
        let mut command = telling(&app, &realtime);
        command.env("PROJECTOR_REALTIME_KEY", "a.jwt.x").env("PROJECTOR_REALTIME_HOST", host);
        command
    };
    let wrong = started(direct("realtime.localhost")).await;
    append(&app, 1, 1, 1).await;
    let told = wrong.says("Tenant not found in database").await;
    assert!(told.contains("realtime.host"), "{told}");
    drop(wrong);

    let _right = started(direct("realtime-dev.localhost:4000")).await;

    assert_eq!(versions(&realtime.takes("log", 1).await), [1]);
}

#[tokio::test]
async fn what_is_missing_in_the_configuration_is_said_at_once() {
    let app = App::shipped().await;
    let mut command = app.command("run");
    command
        .env("PROJECTOR_REALTIME_MODE", "http")
        .env("PROJECTOR_REALTIME_URL", "http://127.0.0.1:1");

    let output = app.output(command).await;

    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("`realtime.key` is not set"), "{error}");
    assert!(error.contains("PROJECTOR_REALTIME_KEY_FILE"), "{error}");
}

#[tokio::test]
async fn the_doctor_asks_the_target() {
    let app = App::shipped().await;
    let silent = Realtime::start(Project { may_send: false, ..Project::default() }).await;
    let asked = async |realtime: &Realtime| {
        let command = telling(&app, realtime);
        let args: Vec<_> = command
            .get_envs()
            .map(|(name, value)| (name.to_owned(), value.unwrap().to_owned()))
            .collect();
        let mut doctor = app.command("doctor");
        doctor.args(["--output", "json"]).envs(args);
        let output = app.output(doctor).await;
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list.as_array().unwrap().iter().find(|it| it["check"] == "broadcasts").unwrap().clone()
    };

    let ill = asked(&silent).await;
    let well = asked(&Realtime::start(Project::default()).await).await;

    assert_eq!((&ill["ok"], &well["ok"]), (&Value::from(false), &Value::from(true)));
    assert!(ill["found"].as_str().unwrap().contains("without a word"), "{ill}");
    assert!(silent.taken().is_empty());
}

#[tokio::test]
async fn a_target_that_is_away_costs_neither_rows_nor_memory_nor_the_slot() {
    let app = App::shipped().await;
    let realtime = Realtime::start(Project::default()).await;
    realtime.always(Some(Next::Answer(503, None, "")));
    let mut command = telling(&app, &realtime);
    command.env("PROJECTOR_REALTIME_MAX_BACKLOG", "256KiB");
    let sidecar = started(command).await;

    // one run that is watched, in the midst of many
    let begin = app.value("select pg_current_wal_flush_lsn()").await.unwrap();
    append(&app, 1, 1, 3).await;
    for _ in 0..14 {
        app.cluster.batch(&workload::bulk(500)).await;
    }
    append(&app, 1, 4, 6).await;
    app.caught_up().await;
    app.assert_rows_equal_history().await;

    sidecar.says("beyond realtime.max_backlog are skipped").await;
    let status = status(&sidecar).await;
    assert!(status["backlog_bytes"].as_u64().unwrap() < 4 << 20, "{status}");
    assert!(90_000 < status["skipped_total"].as_u64().unwrap(), "{status}");
    // the slot goes on as lines are skipped, and holds no more than a little of the log
    let held = 72 << 20;
    let written = format!("select (pg_current_wal_flush_lsn() - '{begin}' > {held})::text");
    assert_eq!(app.value(&written).await.as_deref(), Some("true"));
    let behind = format!(
        "select (pg_current_wal_flush_lsn() - confirmed_flush_lsn < {held})::text
         from pg_replication_slots"
    );
    app.becomes(&behind, "true").await;
    assert!(sidecar.peak_memory() < 150 << 20, "{}", sidecar.peak_memory());

    // and when the target is back, viewers see what they have missed
    realtime.always(None);
    append(&app, 1, 7, 8).await;
    let watched = |it: &&Value| it["topic"].as_str().unwrap().ends_with("000000000001");
    let taken = eventually("the end of the run", async || {
        let taken = realtime.taken();
        let taken: Vec<_> =
            taken.iter().filter(watched).filter(|it| it["event"] == "log").cloned().collect();
        if versions(&taken).contains(&8) { Ok(taken) } else { Err(versions(&taken)) }
    })
    .await;
    let mut viewer = Viewer::default();
    taken.iter().for_each(|it| viewer.take(it));
    assert!(0 < viewer.holes);
    assert_eq!(sidecar.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_no_line_unseen() {
    let app = App::shipped().await;
    let realtime = Realtime::start(Project::default()).await;
    let mut sidecar = started(telling(&app, &realtime)).await;
    let mut rng = fastrand::Rng::with_seed(4);
    let client = app.client().await;
    let writing = tokio::spawn(async move { workload::write(&client, 77, 3_000, 3).await });

    for round in 0..8 {
        let seen = realtime.taken().len();
        let more = seen + rng.usize(1..200);
        eventually("more messages", async || {
            let taken = realtime.taken().len();
            if more <= taken || writing.is_finished() { Ok(()) } else { Err(taken) }
        })
        .await;
        if round == 5 {
            assert_eq!(sidecar.terminate().await.code(), Some(0));
        } else {
            sidecar.kill9();
        }
        sidecar = started(telling(&app, &realtime)).await;
    }
    writing.await.unwrap();
    app.caught_up().await;

    // every version of every run was told, in order; some of them again
    let rows = app
        .client()
        .await
        .query("select run_id::text, max(version)::bigint from events group by 1", &[])
        .await
        .unwrap();
    let wanted: Vec<(String, i64)> = rows.iter().map(|it| (it.get(0), it.get(1))).collect();
    let viewer = eventually("each run to its end", async || {
        let mut viewer = Viewer::default();
        realtime.taken().iter().filter(|it| it["event"] == "log").for_each(|it| viewer.take(it));
        let missing = wanted.iter().filter(|(run, last)| viewer.last.get(run) != Some(last));
        match missing.count() {
            0 => Ok(viewer),
            count => Err(count),
        }
    })
    .await;
    assert_eq!(viewer.holes, 0);
    for (run, last) in &wanted {
        assert_eq!(viewer.live[run], (1..=*last).collect::<Vec<_>>(), "{run}");
    }
    // a message that is sent again has the id that it had
    let taken = realtime.taken();
    for it in &taken {
        let same = taken.iter().filter(|other| other["id"] == it["id"]);
        assert!(same.clone().all(|other| other["topic"] == it["topic"]));
    }
    app.assert_rows_equal_history().await;
}

#[tokio::test]
async fn a_changed_definition_is_told_by_from_then_on() {
    let app = App::shipped().await;
    let realtime = Realtime::start(Project::default()).await;
    let sidecar = started(telling(&app, &realtime)).await;
    append(&app, 1, 1, 2).await;
    realtime.takes("log", 2).await;
    let before =
        app.value("select string_agg(generation::text, ' ') from projector.projections").await;

    app.define(
        "live_log",
        "kind = 'broadcast'\ntopic = 'run:{run_id}'\nevent = 'line'\nprivate = false\n[[on]]\n\
         event = 'log'\npayload = { text = 'payload.message' }\n",
    );
    sidecar.signal(rustix::process::Signal::HUP);
    sidecar.says("\"change\":\"changed\"").await;
    append(&app, 1, 3, 4).await;
    let taken = realtime.takes("line", 2).await;

    let lines: Vec<_> = taken.iter().filter(|it| it["event"] == "line").collect();
    assert_eq!(lines[0]["private"], false);
    assert_eq!(lines_of(lines[0])[0], serde_json::json!({ "version": 3, "text": "line 3" }));
    // not every event has a line now, so nobody knows what came before the first
    assert_eq!(lines[0]["payload"]["prev"], Value::Null);
    let after =
        app.value("select string_agg(generation::text, ' ') from projector.projections").await;
    assert_eq!(before, after);
}
