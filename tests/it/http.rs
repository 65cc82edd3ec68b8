//! The HTTP face in front of a real database: health, who may read, pages, errors.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use projector::config::{self, Environment};
use projector::definition::{self, parse_files};
use projector::engine::status::{Phase, ProjectionStatus, State, Status};
use projector::engine::{Board, Catalogue, Reload};
use projector::event::Timestamp;
use projector::http::{Access, AppState, Database, Live, serve};
use projector::ident::Ident;
use projector::lsn::Lsn;
use projector::metrics::Metrics;
use projector::pg::Settings;
use projector::redact::Redactor;
use projector::replay::Archive;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::app::shipped;
use crate::support::cluster::Cluster;

/// Runs of two workflows, oldest first, then two whose start is not known; the second has steps and a
/// log.
const READ_MODELS: &str = r#"
    create table run_status (run_id uuid primary key, project_id uuid not null, workflow text,
        status text not null, version int not null, started_at timestamptz);
    create table step_status (run_id uuid, step_id text, started_at timestamptz, due_at timestamptz,
        output jsonb, primary key (run_id, step_id));
    create table run_log (run_id uuid, version int, message text, primary key (run_id, version));
    insert into run_status
    select ('00000000-0000-7000-8000-00000000000' || n)::uuid,
           '00000000-0000-4000-8000-000000000000', case when n = 3 then 'report' else 'import' end,
           case when n = 1 then 'failed' else 'running' end, n,
           timestamptz '2026-01-01 00:00:00.000001Z' + case when n = 1 then '0 s' else interval '1 s' end
      from generate_series(1, 3) n;
    insert into run_status
    select ('00000000-0000-7000-8000-00000000000' || n)::uuid, '00000000-0000-4000-8000-000000000000',
           'report', 'paused', n, null
      from generate_series(4, 5) n;
    insert into step_status values
        ('00000000-0000-7000-8000-000000000002', 'b', '2026-01-02', null, '{"n": 1e400}'),
        ('00000000-0000-7000-8000-000000000002', 'a', '2026-01-03', null, null);
    insert into run_log
    select '00000000-0000-7000-8000-000000000002', n, 'line ' || n from generate_series(1, 5) n;
"#;

/// A listener in this process, with a status that the test sets.
struct App {
    address: SocketAddr,
    status: watch::Sender<Arc<Status>>,
    client: Client,
    _stop: DropGuard,
}

/// The shipped definitions over the default events table.
fn archive() -> Archive {
    let config = config::load(None, &Environment::default(), &[]).unwrap().config;
    Archive {
        schema: config.schema.clone(),
        events: config.events_table(),
        columns: config.source.columns.clone(),
        redactor: Arc::new(Redactor::default()),
        definitions: Vec::new(),
    }
}

impl App {
    async fn start(database_url: &str, token: Option<&str>) -> Self {
        Self::bound_as(database_url, token, "127.0.0.1:4400").await
    }

    /// One that believes to be bound to `listen`; where it is bound is a free port of this machine.
    async fn bound_as(database_url: &str, token: Option<&str>, listen: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, watched) = watch::channel(Arc::new(following()));
        let state = AppState {
            status: watched,
            metrics: Arc::new(Metrics::new()),
            database: Arc::new(Database::new(Settings::parse(database_url, |_name| None).unwrap())),
            schema: Ident::new("public").unwrap(),
            access: Arc::new(Access::new(listen.parse().unwrap(), token)),
            archive: archive(),
            definitions: Catalogue::new(definition::load(shipped()).unwrap()),
            reload: reload(),
            commits: watch::channel(0).1,
            live: Arc::new(Live::default()),
            hub: None,
        };
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, state, shutdown.clone()));
        Self { address, status, client: client(), _stop: shutdown.drop_guard() }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    async fn json(&self, path: &str) -> (StatusCode, Value) {
        json(self.get(path)).await
    }

    async fn text(&self, path: &str) -> (StatusCode, String) {
        let response = self.get(path).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    fn set(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(|it| change(Arc::make_mut(it)));
    }
}

/// Finds a definition that is right at first, and then one with a misspelt key.
fn reload() -> Reload {
    let looks = AtomicUsize::new(0);
    let load = move || {
        let set = if looks.fetch_add(1, Ordering::SeqCst) == 0 { "set" } else { "sett" };
        let text = format!(
            "table = \"runs\"\nkey = {{ run_id = \"run_id\" }}\n[columns]\nrun_id = \"uuid\"\n\
             status = \"text\"\n[[on]]\nevent = \"a\"\n{set} = {{ status = \"type\" }}\n"
        );
        parse_files(&[(PathBuf::from("runs.toml"), text)])
    };
    Reload::new(Catalogue::new(Vec::new()), Arc::new(Board::new("projector")), Arc::new(load))
}

async fn json(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

pub(crate) fn client() -> Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap()
}

/// An engine that follows the log, with one projection, in a snapshot that does not grow old.
fn following() -> Status {
    let projection = ProjectionStatus {
        name: "run_status".to_owned(),
        table: "run_status".to_owned(),
        lane: "default".to_owned(),
        state: State::Live,
        checkpoint: Some(Lsn(0x16B_3748)),
        lag_bytes: 42,
        lag_seconds: 0.1,
        events_total: 7,
        events_per_second: 1.0,
        error: None,
        progress: None,
        dead_letters: 0,
        parked_keys: 0,
        oldest_parked_seconds: 0.0,
        rebuild: None,
    };
    let mut status = Status::starting("projector", Timestamp(0));
    status.phase = Phase::Streaming;
    status.updated_at = Timestamp(i64::MAX);
    status.projections.push(projection);
    status
}

/// Nothing listens there: for what must work without a database.
const NOWHERE: &str = "postgres://nobody@127.0.0.1:1/nothing";

#[tokio::test]
async fn readyz_gives_every_reason_and_healthz_never_cares() {
    let app = App::start(NOWHERE, None).await;
    assert_eq!(app.text("/readyz").await, (StatusCode::OK, "ready\n".to_owned()));

    app.set(|status| {
        status.phase = Phase::Connecting;
        status.projections[0].state = State::Failed;
        status.projections[0].error = Some("no such\ncolumn".to_owned());
    });

    let (code, text) = app.text("/readyz").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text, "not connected to Postgres\nprojection `run_status` failed: no such column\n");
    assert_eq!(app.text("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    let (_, verbose) = app.text("/readyz?verbose").await;
    assert!(verbose.ends_with("run_status failed lag 42 bytes 0.1 s\n"), "{verbose}");
}

#[tokio::test]
async fn a_standby_is_alive_and_not_ready() {
    let app = App::start(NOWHERE, None).await;

    app.set(|status| status.phase = Phase::Standby);

    let (code, text) = app.text("/readyz").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.starts_with("standby: "), "{text}");
    assert_eq!(app.text("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_are_lines_of_name_and_number_and_know_the_status() {
    let app = App::start(NOWHERE, None).await;

    let (code, text) = app.text("/metrics").await;

    assert_eq!(code, StatusCode::OK);
    for line in text.lines().filter(|it| !it.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("projector_") || name.starts_with("process_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(text.contains("projector_lag_bytes{projection=\"run_status\"} 42\n"), "{text}");
    assert!(text.contains("projector_ready 1\n"), "{text}");
}

#[tokio::test]
async fn projections_are_answered_without_a_database() {
    let app = App::start(NOWHERE, None).await;

    let (code, all) = app.json("/api/projections").await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(all["ready"], true);
    assert_eq!(all["projections"][0]["checkpoint"], "0/16B3748");

    let (code, one) = app.json("/api/projections/run_status").await;
    assert_eq!((code, &one["state"]), (StatusCode::OK, &Value::from("live")));

    let (code, none) = app.json("/api/projections/run_stats").await;
    assert_eq!(
        (code, &none["error"]["code"]),
        (StatusCode::NOT_FOUND, &"unknown_projection".into())
    );
    assert_eq!(none["error"]["hint"], "there are: run_status");
}

#[tokio::test]
async fn a_database_that_is_away_is_said_so_without_its_address() {
    let app = App::start(NOWHERE, None).await;

    let (code, body) = app.json("/api/runs").await;

    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["error"]["code"], "database_unavailable");
    assert!(!body.to_string().contains("nobody"), "{body}");
}

#[tokio::test]
async fn runs_come_newest_first_page_by_page_without_loss_or_repetition() {
    let cluster = Cluster::start().await;
    cluster.batch(READ_MODELS).await;
    let app = App::start(cluster.url(), None).await;

    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let (code, page) = app.json(&format!("/api/runs?limit=1&before={next}")).await;
        assert_eq!(code, StatusCode::OK, "{page}");
        let runs = page["runs"].as_array().unwrap();
        seen.extend(runs.iter().map(|it| it["version"].as_i64().unwrap()));
        let Some(cursor) = page["next"].as_str() else { break };
        next = cursor.to_owned();
    }

    assert_eq!(seen, [3, 2, 1, 5, 4]);
}

#[tokio::test]
async fn runs_are_filtered_by_what_is_asked_for() {
    let cluster = Cluster::start().await;
    cluster.batch(READ_MODELS).await;
    let app = App::start(cluster.url(), None).await;
    let versions = async |query: &str| {
        let (code, page) = app.json(&format!("/api/runs?{query}")).await;
        assert_eq!(code, StatusCode::OK, "{page}");
        let runs = page["runs"].as_array().unwrap();
        runs.iter().map(|it| it["version"].as_i64().unwrap()).collect::<Vec<_>>()
    };

    assert_eq!(versions("status=failed").await, [1]);
    assert_eq!(versions("workflow=import&status=running").await, [2]);
    assert_eq!(versions("project=00000000-0000-4000-8000-000000000000&limit=2").await, [3, 2]);
    assert_eq!(versions("workflow=report").await, [3, 5, 4]);
    assert_eq!(versions("project=00000000-0000-4000-8000-000000000001").await, [0_i64; 0]);
    assert_eq!(versions("workflow='%20or%20true--").await, [0_i64; 0]);
}

#[tokio::test]
async fn a_run_has_its_steps_and_its_log_goes_on_after_a_version() {
    let cluster = Cluster::start().await;
    cluster.batch(READ_MODELS).await;
    let app = App::start(cluster.url(), None).await;
    let run = "/api/runs/00000000-0000-7000-8000-000000000002";

    // The text is compared where a number is too large for any parser to give back.
    let (code, text) = app.text(run).await;
    assert_eq!(code, StatusCode::OK);
    let (b, a) = (text.find(r#""step_id": "b""#), text.find(r#""step_id": "a""#));
    assert!(b.is_some() && b < a, "steps are in the order of their start: {text}");

    let (_, page) = app.json(&format!("{run}/log?after=2&limit=2")).await;
    assert_eq!(page["lines"][0]["message"], "line 3");
    assert_eq!(page["next"], 4);
    let (_, page) = app.json(&format!("{run}/log?after=4")).await;
    assert_eq!((page["lines"].as_array().unwrap().len(), &page["next"]), (1, &Value::Null));
    let (code, page) = app.json(&format!("{run}/log?after=5")).await;
    assert_eq!((code, &page["lines"]), (StatusCode::OK, &Value::Array(Vec::new())));
}

#[tokio::test]
async fn what_cannot_be_answered_says_what_where_and_what_to_do() {
    let cluster = Cluster::start().await;
    cluster.batch(READ_MODELS).await;
    let app = App::start(cluster.url(), None).await;
    let unknown = "/api/runs/00000000-0000-7000-8000-000000000009";

    for (path, status, code) in [
        (unknown, 404, "unknown_run"),
        (&format!("{unknown}/log"), 404, "unknown_run"),
        ("/api/runs/seven", 400, "bad_parameter"),
        ("/api/runs/seven/log", 400, "bad_parameter"),
        ("/api/runs?limit=0", 400, "bad_parameter"),
        ("/api/runs?limit=99999", 400, "bad_parameter"),
        ("/api/runs?project=mine", 400, "bad_parameter"),
        ("/api/runs?before=yesterday", 400, "bad_parameter"),
        ("/api/runs?state=failed", 400, "bad_query"),
        ("/api/nothing", 404, "no_such_route"),
        ("/nothing", 404, "no_such_route"),
    ] {
        let (found, body) = app.json(path).await;
        assert_eq!(found.as_u16(), status, "{path}: {body}");
        assert_eq!(body["error"]["code"], code, "{path}");
        assert!(body["error"]["message"].as_str().is_some_and(|it| !it.is_empty()), "{path}");
    }

    let post = app.client.post(format!("http://{}/api/runs", app.address));
    let (code, body) = json(post).await;
    assert_eq!((code.as_u16(), &body["error"]["code"]), (405, &"method_not_allowed".into()));
}

#[tokio::test]
async fn a_read_model_that_is_not_deployed_is_a_404_that_names_it() {
    let cluster = Cluster::start().await;
    let app = App::start(cluster.url(), None).await;

    let (code, body) = app.json("/api/runs").await;

    assert_eq!((code, &body["error"]["code"]), (StatusCode::NOT_FOUND, &"no_read_model".into()));
    assert!(body["error"]["hint"].as_str().unwrap().contains("run_status"), "{body}");
}

#[tokio::test]
async fn the_api_connects_again_after_the_database_was_restarted() {
    let mut cluster = Cluster::start().await;
    cluster.batch(READ_MODELS).await;
    let app = App::start(cluster.url(), None).await;
    assert_eq!(app.json("/api/runs").await.0, StatusCode::OK);

    cluster.restart().await;

    crate::support::eventually::eventually("an answer", async || {
        match app.json("/api/runs").await {
            (StatusCode::OK, _) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn without_a_token_another_host_name_is_refused() {
    let app = App::start(NOWHERE, None).await;

    let (code, body) = json(app.get("/api/projections").header("host", "evil.example")).await;

    assert_eq!((code, &body["error"]["code"]), (StatusCode::FORBIDDEN, &"foreign_host".into()));
    assert_eq!(app.get("/readyz").header("host", "10.0.0.7").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_open_listener_without_a_token_keeps_its_api_closed() {
    let app = App::bound_as(NOWHERE, None, "0.0.0.0:4400").await;

    let (code, body) = app.json("/api/projections").await;

    assert_eq!((code, &body["error"]["code"]), (StatusCode::FORBIDDEN, &"closed".into()));
    assert!(body["error"]["hint"].as_str().unwrap().contains("PROJECTOR_HTTP_ADMIN_TOKEN"));
}

#[tokio::test]
async fn with_a_token_only_who_sends_it_is_answered() {
    let app = App::bound_as(NOWHERE, Some("s3cret"), "0.0.0.0:4400").await;

    let with = |token: &str| app.get("/api/projections").bearer_auth(token).header("host", "any");
    assert_eq!(with("s3cret").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(with("guess").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let refused = app.get("/api/projections").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    for path in ["/api/live?topic=status", "/api/runs/counts"] {
        let refused = app.get(path).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let app = App::start(NOWHERE, None).await;

    let mut paths = vec!["/".to_owned()];
    let page = app.text("/").await.1;
    let linked = page.split('"').filter(|it| it.starts_with("console/"));
    paths.extend(linked.map(|it| format!("/{it}")));
    let mut at = 0;
    while let Some(path) = paths.get(at).cloned() {
        at += 1;
        let response = app.get(&path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(policy.contains("require-trusted-types-for 'script'"), "{policy}");
        let tag = response.headers()["etag"].clone();
        let text = response.text().await.unwrap();
        let is_elsewhere = text.replace("xmlns=\"http://", "").contains("://");
        assert!(!is_elsewhere, "{path}");
        for module in text.split("from './").skip(1) {
            let module = format!("/console/{}", module.split('\'').next().unwrap());
            if !paths.contains(&module) {
                paths.push(module);
            }
        }
        let again = app.get(&path).header("if-none-match", tag).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
    }
    assert!(10 < paths.len(), "{paths:?}");
    assert_eq!(app.text("/console/nothing.js").await.0, StatusCode::NOT_FOUND);
}

impl App {
    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }
}

/// A database with one live projection, and a listener with a token before it.
async fn steered() -> (Cluster, App) {
    let cluster = Cluster::start().await;
    projector::migrate::apply(&mut cluster.client().await, &Ident::new("public").unwrap())
        .await
        .unwrap();
    cluster
        .batch(
            "insert into projector.projections (name, table_name, definition_hash, state)
             values ('run_status', 'run_status', '', 'live');
             insert into projector.checkpoints (projection, lsn) values ('run_status', '0/100')",
        )
        .await;
    let app = App::start(cluster.url(), Some("s3cret")).await;
    (cluster, app)
}

#[tokio::test]
async fn an_operator_steers_projections_and_is_told_what_was_noted_down() {
    let (cluster, app) = steered().await;
    let answer = async |verb: &str| {
        let path = format!("/api/projections/{verb}");
        let (code, body) = json(app.post(&path).bearer_auth("s3cret")).await;
        (code.as_u16(), body)
    };

    let requested = answer("run_status/rebuild").await;
    assert_eq!((requested.0, &requested.1["phase"]), (202, &"requested".into()));
    cluster.batch("update projector.rebuilds set phase = 'fold'").await;
    let running = answer("run_status/rebuild").await;
    assert_eq!((running.0, &running.1["error"]["code"]), (409, &"rebuild_running".into()));
    assert_eq!(answer("run_status/cancel").await.1["canceled"], true);
    cluster.batch("update projector.rebuilds set phase = 'canceled', finished_at = now()").await;
    assert_eq!(answer("run_status/cancel").await.1["canceled"], false);
    assert_eq!(answer("run_status/pause").await.1["changed"], true);
    let paused = answer("run_status/rebuild").await;
    assert_eq!((paused.0, &paused.1["error"]["code"]), (409, &"wrong_state".into()));
    assert_eq!(answer("run_status/resume").await.1["changed"], true);
    let unknown = answer("nonsense/pause").await;
    assert_eq!((unknown.0, &unknown.1["error"]["code"]), (404, &"unknown_projection".into()));
    assert_eq!(unknown.1["error"]["hint"], "there are: run_status");
}

#[tokio::test]
async fn nobody_steers_without_the_token_not_even_from_this_machine() {
    let (_cluster, app) = steered().await;
    let open = App::start(NOWHERE, None).await;

    for verb in ["rebuild", "cancel", "pause", "resume"] {
        let path = format!("/api/projections/run_status/{verb}");
        assert_eq!(json(app.post(&path)).await.0, StatusCode::UNAUTHORIZED, "{verb}");
        let (code, body) = json(open.post(&path).bearer_auth("s3cret")).await;
        assert_eq!((code.as_u16(), &body["error"]["code"]), (403, &"no_admin_token".into()));
        let got = app.get(&path).bearer_auth("s3cret").send().await.unwrap();
        assert_eq!(got.status(), StatusCode::METHOD_NOT_ALLOWED, "{verb}");
    }
}

#[tokio::test]
async fn a_reload_tells_what_changed_or_all_that_is_wrong() {
    let app = App::start(NOWHERE, Some("s3cret")).await;
    let ask = async || json(app.post("/api/reload").bearer_auth("s3cret")).await;

    let (good, changed) = ask().await;
    let (bad, refused) = ask().await;

    assert_eq!((good.as_u16(), &changed["projections"][0]["change"]), (200, &"created".into()));
    assert_eq!((bad.as_u16(), &refused["error"]["code"]), (422, &"definitions_refused".into()));
    assert!(refused["error"]["message"].as_str().unwrap().contains("runs.toml:8:1"), "{refused}");
    assert_eq!(json(app.post("/api/reload")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_wait_answers_with_success_only_when_the_position_is_reached() {
    let (cluster, app) = steered().await;
    let answer = async |query: &str| {
        let path = format!("/api/projections/run_status/wait{query}");
        let (code, body) = json(app.get(&path).bearer_auth("s3cret")).await;
        (code.as_u16(), body)
    };

    let reached = answer("?lsn=0/100").await;
    assert_eq!((reached.0, &reached.1["reached"]), (200, &true.into()));
    for (query, code, word) in [
        ("?lsn=0%2F101&timeout=50ms", 504, "not_reached"),
        ("?timeout=0", 504, "not_reached"),
        ("?lsn=FF/0", 400, "bad_parameter"),
        ("?lsn=yesterday", 400, "bad_parameter"),
        ("?lsn=0/1&timeout=1h", 400, "bad_parameter"),
        ("?position=7", 400, "bad_query"),
    ] {
        let (status, body) = answer(query).await;
        assert_eq!((status, &body["error"]["code"]), (code, &word.into()), "{query}");
    }
    cluster.batch("select projector.pause('run_status')").await;
    assert_eq!(answer("?lsn=0/101").await.1["error"]["code"], "wrong_state");
}
