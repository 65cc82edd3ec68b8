//! A secret in an event stays in that event: it is in no read model, no dead letter, no answer, no
//! output and no line of the log.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::app::{App, Sidecar};

const RUN: &str = "0190a000-0000-7000-8000-00000000000a";
const PROJECT: &str = "00000000-0000-0000-0000-00000000000a";

/// What must not get out, and a text that gives it away.
const SECRETS: &[(&str, &str)] = &[
    ("hunter2Zebra", "login with password=hunter2Zebra failed"),
    ("hunter3Zebra", r#"sent {"user": "u", "client_secret": "hunter3Zebra"}"#),
    ("hunter4Zebra", r#"sent {"body": "{\"apiKey\": \"hunter4Zebra\"}"}"#),
    ("hunter5Zebra", "cannot reach postgres://app:hunter5Zebra@db.internal:5432/app"),
    ("hunter6Zebra", "answer:\nSet-Cookie: sid=hunter6Zebra; Path=/\nok"),
    ("tokenAlpha12345", "header Authorization: BEARER tokenAlpha12345"),
    ("dXNlcjpodW50ZXI3", "header authorization: Basic dXNlcjpodW50ZXI3"),
    ("eyJzdWIiOiIxIn0", "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
    (
        "MIIEowIBAAKCAQEA",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    ),
    ("ghp_0123456789abcdefABCDEF", "cloned with ghp_0123456789abcdefABCDEF"),
    ("AKIAIOSFODNN7EXAMPLE", "as AKIAIOSFODNN7EXAMPLE"),
    ("sk_live_0123456789abcdef", "charged by sk_live_0123456789abcdef."),
    ("4242 4242 4242 4242", "card 4242 4242 4242 4242 declined"),
];

/// What must not get out that has no shape, only a name.
const NAMED: &str = "correct-horse-battery";

/// Fails on every value of its type, and quotes it.
const PARKS: &str = r#"table = "parks"
key   = { run_id = "run_id", version = "version" }

[columns]
run_id  = "uuid"
version = "int"
level   = "int"
checked = "text check (checked = 'never')"

[[on]]
event = "log"
set   = { level = "payload.secret_level", checked = "payload.message" }
"#;

/// Stops at the first one.
const STOPS: &str = r#"table    = "stops"
key      = { run_id = "run_id" }
on_error = "pause"

[columns]
run_id = "uuid"
at     = "timestamptz"

[[on]]
event = "log"
set   = { at = "payload.message" }
"#;

/// Events with every secret in every place that the shipped read models look at.
fn events() -> Vec<Value> {
    let mut events = vec![json!({"type": "run_started", "payload": {
        "workflow": "checkout",
        "trigger": {"kind": "webhook", "headers": {"Authorization": NAMED, "x-api-key": [NAMED]}},
        "input": {"password": NAMED},
    }})];
    for (number, (_, text)) in SECRETS.iter().enumerate() {
        let step = format!("step-{number}");
        let hidden = json!({
            "passWord": NAMED,
            "deep": [{"a": [text, {"access-token": {"b": NAMED}}]}],
            *text: 1,
            "smtp_password": 12345678,
        });
        events.extend([
            json!({"type": "step_scheduled", "payload": {"step_id": step, "name": text, "kind": text}}),
            json!({"type": "step_started", "payload": {"step_id": step, "attempt": 1, "name": text}}),
            json!({"type": "step_failed", "payload": {
                "step_id": step, "attempt": 1, "error": {"message": text, "details": hidden},
                "retry_at": "2026-11-26T12:00:00Z"}}),
            json!({"type": "step_started", "payload": {"step_id": step, "attempt": 2}}),
            json!({"type": "step_succeeded", "payload": {
                "step_id": step, "attempt": 2, "output": hidden}}),
            json!({"type": "log", "payload": {
                "level": text, "message": text, "secret_level": text, "fields": hidden}}),
            json!({"type": "log", "payload": {"message": hidden, "secret_level": hidden, "fields": text}}),
            json!({"type": "run_paused", "payload": {"reason": text}}),
            json!({"type": "custom", "payload": {"reason": hidden, "anything": text}}),
        ]);
    }
    events.push(json!({"type": "run_failed", "payload": {"error": {"message": SECRETS[5].1}}}));
    events
}

/// Which secrets a text tells, each with what stands around it.
fn told_in(text: &str) -> Vec<String> {
    let secrets = SECRETS.iter().map(|it| it.0).chain([NAMED, "12345678"]);
    let around = |(at, secret): (usize, &str)| {
        let before: String = text[..at].chars().rev().take(80).collect();
        format!("{}{secret}", before.chars().rev().collect::<String>())
    };
    secrets.filter_map(|it| Some(around((text.find(it)?, it)))).collect()
}

async fn told(app: &App, arguments: &[&str]) -> String {
    let mut command = app.command(arguments[0]);
    command.args(&arguments[1..]);
    let output = app.output(command).await;
    let status = output.status.code();
    assert_eq!(status, Some(0), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// Everything that a relation holds, as text; of all relations but the events themselves.
async fn relations(app: &App) -> Vec<(String, String)> {
    let client = app.client().await;
    let sql = "select format('%I.%I', n.nspname, c.relname)
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('public', 'projector') and c.relkind in ('r', 'p', 'v', 'm')
           and c.oid <> 'events'::regclass
           and not exists (select from pg_inherits where inhrelid = c.oid and inhparent = 'events'::regclass)";
    let mut found = Vec::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let name: String = row.get(0);
        let rows = format!("select coalesce(string_agg(it::text, e'\\n'), '') from {name} it");
        let rows = client.query_one(&rows, &[]).await.unwrap().get(0);
        found.push((name, rows));
    }
    found
}

/// Everything that can be asked of the sidecar about the run.
async fn answers(app: &App, sidecar: &Sidecar) -> Vec<(String, String)> {
    let mut paths: Vec<String> =
        ["/metrics", "/readyz", "/readyz?verbose", "/healthz", "/", "/api/projections"]
            .map(str::to_owned)
            .into();
    paths.push("/api/runs".into());
    paths.push(format!("/api/runs/{RUN}"));
    paths.push(format!("/api/runs/{RUN}/log?after=0"));
    paths.push(format!("/api/runs/{RUN}/state"));
    paths.push(format!("/api/runs/{RUN}/state?version=7"));
    paths.push(format!("/api/runs/{RUN}/state?diff=true"));
    for table in ["run_status", "dead_runs", "parks", "stops"] {
        paths.push(format!("/api/projections/{table}"));
        paths.push(format!("/api/projections/{table}/dead-letters"));
        if table != "parks" {
            paths.push(format!("/api/tables/{table}/explain?key=run_id={RUN}"));
        }
    }
    paths.push(format!("/api/tables/step_status/explain?key=run_id={RUN},step_id=step-3"));
    paths.push(format!("/api/tables/run_log/explain?key=run_id={RUN},version=7"));
    paths.push(format!("/api/tables/parks/explain?key=run_id={RUN},version=7"));
    let mut found = Vec::new();
    for path in paths {
        let (status, body) = sidecar.get_with(&path, "authorization: Bearer of-tests\r\n").await;
        assert!(status == 200 || path.starts_with("/readyz"), "{path}: {status} {body}");
        found.push((path, body));
    }
    let letter = json!({"run_id": RUN, "version": 7}).to_string();
    for arguments in [
        &["tail", "--no-follow", "--run", RUN][..],
        &["tail", "--no-follow", "--run", RUN, "--output", "json"],
        &["replay", RUN],
        &["replay", RUN, "--diff"],
        &["replay", RUN, "--diff", "--output", "json"],
        &["explain", "run_status", &format!("run_id={RUN}")],
        &["explain", "step_status", &format!("run_id={RUN},step_id=step-3")],
        &["explain", "run_log", &format!("run_id={RUN},version=7"), "--output", "json"],
        &["explain", "parks", &format!("run_id={RUN},version=7")],
        &["dead-letters", "list", "parks"],
        &["dead-letters", "show", "parks", &letter],
        &["dead-letters", "show", "parks", &letter, "--output", "json"],
        &["status"],
        &["verify", "run_log", "step_status"],
    ] {
        found.push((arguments.join(" "), told(app, arguments).await));
    }
    found
}

#[tokio::test]
async fn a_planted_secret_is_told_nowhere() {
    let app = App::shipped().await;
    app.define("parks", PARKS);
    app.define("stops", STOPS);
    let mut command = app.command("run");
    command.env("PROJECTOR_HTTP_ADMIN_TOKEN", "of-tests");
    let sidecar = Sidecar::spawn(command);
    sidecar.says("\"ready\"").await;
    let events = Value::from(events()).to_string();
    let append =
        "select count(*) from append_events($1::text::uuid, $2::text::uuid, 0, $3::text::jsonb)";
    let client = app.client().await;
    client.query_one(append, &[&PROJECT, &RUN, &events]).await.unwrap();

    let failed = "select state from projector.projections where name = 'stops'";
    app.becomes(failed, "failed").await;
    app.caught_up().await;

    // what is looked for is there to be found
    let letters = "select count(*) > 10 from projector.dead_letters where projection = 'parks'";
    assert_eq!(app.value(letters).await.unwrap(), "t");
    let lines = "select count(*) from run_log where message like '%***%'";
    let lines: usize = app.value(lines).await.unwrap().parse().unwrap();
    assert_eq!(lines, 5 * SECRETS.len() + 1);
    let events =
        app.value("select string_agg(payload #>> '{error,message}', ' ') from events").await;
    assert!(events.unwrap().contains(SECRETS[0].0));

    let mut found = relations(&app).await;
    assert!(found.iter().any(|(it, rows)| it == "public.run_log" && rows.contains("***")));
    found.extend(answers(&app, &sidecar).await);
    found.push(("the log".to_owned(), sidecar.log()));

    // rows that are made from history keep them, too
    told(&app, &["rebuild", "run_status", "step_status", "run_log", "dead_runs", "parks"]).await;
    app.caught_up().await;
    found.extend(relations(&app).await);
    found.push(("the log".to_owned(), sidecar.log()));
    let telling: Vec<_> = found
        .iter()
        .map(|(place, text)| (place, told_in(text)))
        .filter(|(_, secrets)| !secrets.is_empty())
        .collect();
    assert!(telling.is_empty(), "{telling:#?}");
}

#[tokio::test]
async fn what_cannot_be_appended_is_not_quoted() {
    let app = App::shipped().await;
    let lines = [
        format!(
            r#"{{"project_id": "{PROJECT}", "run_id": "{RUN}", "type": "log", "payload": {{"password": "{NAMED}"#
        ),
        format!(
            r#"{{"project_id": "{PROJECT}", "run_id": "{RUN}", "type": "", "payload": {{"password": "{NAMED}"}}}}"#
        ),
        format!(
            r#"{{"project_id": "{PROJECT}", "run_id": "{RUN}", "type": "log", "payload": "{}"}}"#,
            SECRETS[5].1
        ),
        format!(r#"{{"project_id": "{PROJECT}", "run_id": "x", "password": "{NAMED}"}}"#),
        format!(
            r#"{{"project_id": "{PROJECT}", "run_id": "{RUN}", "type": "log", "payload": {{"token": "{NAMED}\u0000"}}}}"#
        ),
        NAMED.to_owned(),
    ];
    for line in lines {
        let mut command = app.command("append");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), line.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        let output = output.await.unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("line 1"), "{told}");
        assert_eq!(told_in(&told), Vec::<String>::new());
    }
}

#[tokio::test]
async fn other_rules_make_the_rows_anew_and_only_those_that_are_redacted() {
    let app = App::shipped().await;
    let sidecar = app.run().await;
    let events = r#"[{"type": "log", "payload": {"message": "a@b.example", "fields": {"plate": "X-1"}}},
        {"type": "log", "payload": {"message": "a@b.example"}}]"#;
    let append =
        "select count(*) from append_events($1::text::uuid, $2::text::uuid, 0, $3::text::jsonb)";
    app.client().await.query(append, &[&PROJECT, &RUN, &events]).await.unwrap();
    app.caught_up().await;
    let messages = "select string_agg(message || coalesce(fields ->> 'plate', ''), ' ' order by version) from run_log";
    assert_eq!(app.value(messages).await.unwrap(), "a@b.exampleX-1 a@b.example");
    sidecar.terminate().await;

    let ruled = |verb: &str| {
        let mut command = app.command(verb);
        command.env("PROJECTOR_REDACT_EMAIL", "true").env("PROJECTOR_REDACT_KEYS", "plate");
        command.env("PROJECTOR_REDACT_HASH_KEY", "a key of sixteen");
        command
    };
    let plan = String::from_utf8(app.output(ruled("plan")).await.stdout).unwrap();
    let sidecar = Sidecar::spawn(ruled("run"));
    sidecar.says("\"ready\"").await;
    let built = "select string_agg(projection, ' ' order by projection) from projector.rebuilds
         where reason = 'definition' and phase = 'done'";
    app.becomes(built, "dead_runs run_log run_status step_status").await;

    assert!(plan.contains("changed  run_log") && plan.contains("the rules of [redact]"), "{plan}");
    assert!(plan.contains("workflow_stats\n"), "{plan}");
    let messages = app.value(messages).await.unwrap();
    let tags: Vec<_> = messages.split(' ').collect();
    assert_eq!(tags.len(), 2, "{messages}");
    assert!(tags[0].starts_with(tags[1]) && tags[1].starts_with("***:"), "{messages}");
    assert_eq!(tags[0].len(), 32, "{messages}");
    let checked = app.output(ruled("verify")).await;
    drop(checked);
    let mut verify = ruled("verify");
    verify.arg("--all");
    assert_eq!(app.output(verify).await.status.code(), Some(0));
    let verify = app
        .output({
            let mut it = app.command("verify");
            it.arg("run_log");
            it
        })
        .await;
    assert_eq!(verify.status.code(), Some(1), "{}", String::from_utf8_lossy(&verify.stderr));
    sidecar.terminate().await;
}
