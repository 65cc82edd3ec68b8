//! The console in a real browser, before a real sidecar.

use serde_json::{Value, json};

use crate::support::app::{App, Sidecar};
use crate::support::browser::Browser;

const PROJECT: &str = "7d1f8b52-4c0e-4a36-9b1d-2f6c35a1e801";
const RUN: &str = "0198c2f4-7d3e-7a40-9c55-3f1d2b6a8e10";
const DESK: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 740);
const TOKEN: &str = "s3cret";

/// A sidecar, and where its console is.
async fn console(app: &App) -> (Sidecar, String) {
    let sidecar = app.run().await;
    let started: Value = serde_json::from_str(&sidecar.says("\"listen\"").await).unwrap();
    let url = format!("http://{}/", started["listen"].as_str().unwrap());
    (sidecar, url)
}

/// The same, with an admin token, and broadcasts that cannot be delivered.
async fn guarded(app: &App) -> (Sidecar, String) {
    let mut command = app.command("run");
    command.env("PROJECTOR_HTTP_ADMIN_TOKEN", TOKEN);
    // nobody listens there
    command
        .env("PROJECTOR_REALTIME_MODE", "http")
        .env("PROJECTOR_REALTIME_URL", "http://127.0.0.1:1");
    command.env("PROJECTOR_REALTIME_KEY", "sb_secret_test");
    let sidecar = Sidecar::spawn(command);
    sidecar.says("\"ready\"").await;
    let started: Value = serde_json::from_str(&sidecar.says("\"listen\"").await).unwrap();
    let url = format!("http://{}/", started["listen"].as_str().unwrap());
    (sidecar, url)
}

/// Appends events to a run.
async fn append(app: &App, run: &str, events: &[Value]) {
    let sql = "select append_events($1::text::uuid, $2::text::uuid, null, $3)";
    let client = app.client().await;
    for events in events.chunks(1000) {
        let events = Value::Array(events.to_vec());
        client.execute(sql, &[&PROJECT, &run, &events]).await.unwrap();
    }
}

fn event(kind: &str, payload: Value) -> Value {
    json!({ "type": kind, "payload": payload })
}

fn log(message: &str) -> Value {
    event("log", json!({ "level": "info", "message": message, "step_id": "fetch" }))
}

/// A step that fails once, in a run that has not ended: seven events.
fn beginning() -> Vec<Value> {
    vec![
        event(
            "run_started",
            json!({ "workflow": "invoice", "workflow_version": "3", "trigger": "webhook" }),
        ),
        event(
            "step_started",
            json!({ "step_id": "fetch", "name": "Fetch the order", "kind": "http", "attempt": 1 }),
        ),
        log("asking the shop"),
        event(
            "step_failed",
            json!({ "step_id": "fetch", "attempt": 1, "retry_at": "2030-01-01T00:00:00Z",
            "error": { "message": "timeout" } }),
        ),
        event(
            "step_started",
            json!({ "step_id": "fetch", "name": "Fetch the order", "kind": "http", "attempt": 2 }),
        ),
        event(
            "log",
            json!({ "level": "debug", "message": "still waiting", "fields": { "ms": 20 } }),
        ),
        event(
            "step_succeeded",
            json!({ "step_id": "fetch", "attempt": 2, "output": { "status": 200 } }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_watched_from_its_first_event_to_its_last_and_looked_at_as_it_was() {
    let app = App::shipped().await;
    let (_sidecar, url) = console(&app).await;
    let mut browser = Browser::open(&url, DESK).await;
    browser.reads(".empty", "No runs yet");

    append(&app, RUN, &beginning()).await;
    browser.reads("tbody tr", "running");
    browser.shoot("list-first");
    browser.click("role=link[name='invoice']");
    browser.reads("h1", "invoice");
    browser.reads(".runhead .status", "running");
    browser.reads(".line", "asking the shop");
    browser.reads(".steps tr", "Fetch the order");
    browser.reads(".steps .c-step", "2 attempts");

    let mut secret = log("one more");
    secret["payload"]["fields"] = json!({ "authorization": "Bearer s3cr3t" });
    append(&app, RUN, &[secret, event("run_succeeded", json!({}))]).await;
    browser.reads(".line", "one more");
    browser.reads(".line", "authorization=***");
    browser.reads(".runhead .status", "succeeded");
    browser.reads("output", "9 of 9 · run_succeeded · now");
    browser.shoot("run");

    browser.value("document.querySelector('#version').focus()");
    browser.press(&["Home"]);
    browser.reads(".moment", "as of version 1");
    browser.press(&["ArrowRight", "ArrowRight", "ArrowRight"]);
    browser.reads(".moment", "as of version 4");
    browser.reads(".runhead .status", "running");
    browser.reads(".steps .status", "retrying");
    browser.reads(".changes", "step_status.toml:");
    browser.misses(".line >> text=one more");
    assert_eq!(browser.value("document.querySelectorAll('.line:not([hidden])').length"), 4);
    browser.shoot("run-then");

    // the moment is in the address
    let address = browser.value("location.href");
    assert!(address.as_str().unwrap().ends_with(&format!("#/runs/{RUN}?version=4")), "{address}");
    browser.goes(address.as_str().unwrap());
    browser.reads(".moment", "as of version 4");
    browser.reads(".steps .status", "retrying");
    browser.click("role=button[name='Now']");
    browser.reads(".runhead .status", "succeeded");
    browser.reads(".line", "one more");

    browser.click("role=button[name='Why: step fetch']");
    browser.reads("dialog", "The table says the same as history.");
    browser.shoot("why");
    browser.press(&["Escape"]);
    browser.misses("dialog");
    let text = browser.value("document.documentElement.textContent");
    assert!(!text.as_str().unwrap().contains("s3cr3t"));

    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_has_every_line_once_and_in_order_after_the_connection_was_lost() {
    let app = App::shipped().await;
    let (_sidecar, url) = console(&app).await;
    append(&app, RUN, &[event("run_started", json!({ "workflow": "long" }))]).await;
    let lines: Vec<_> = (2..=5000).map(|it| log(&format!("line {it}"))).collect();
    append(&app, RUN, &lines).await;
    app.caught_up().await;
    let mut browser = Browser::open(&format!("{url}#/runs/{RUN}"), DESK).await;
    browser.reads(".line", "line 5000");
    let is_at_end = "(() => { const log = document.querySelector('.log');
        return log.scrollHeight - log.scrollTop - log.clientHeight < 60; })()";
    browser.holds(is_at_end);

    browser.offline(true);
    browser.sees("#notice");
    append(&app, RUN, &(5001..=5100).map(|it| log(&format!("line {it}"))).collect::<Vec<_>>())
        .await;
    app.caught_up().await;
    browser.offline(false);
    for number in 5101..=5120 {
        append(&app, RUN, &[log(&format!("line {number}"))]).await;
    }

    browser.reads(".line", "line 5120");
    browser.misses("#notice");
    browser.holds("document.querySelectorAll('.line').length === 5120");
    let versions = "[...document.querySelectorAll('.line')].every((it, at) => Number(it.dataset.version) === at + 1)";
    assert_eq!(browser.value(versions), true);
    browser.holds(is_at_end);
    // what is out of sight costs nothing to lay out
    assert_eq!(
        browser.value("getComputedStyle(document.querySelector('.block')).contentVisibility"),
        "auto"
    );

    browser.value("document.querySelector('.log').scrollTop = 0");
    browser.sees("role=button[name='Follow']");
    append(&app, RUN, &[log("unseen")]).await;
    browser.sees("role=button[name='Follow (1 new)']");
    assert_eq!(browser.value("document.querySelector('.log').scrollTop"), 0);
    browser.fill("#version", "10");
    browser.reads(".moment", "as of version 10");
    assert_eq!(browser.value("document.querySelectorAll('.line:not([hidden])').length"), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_committed_after_later_ones_of_its_run_is_shown_before_them() {
    let app = App::shipped().await;
    let (_sidecar, url) = console(&app).await;
    append(&app, RUN, &[event("run_started", json!({ "workflow": "raced" }))]).await;
    let mut browser = Browser::open(&format!("{url}#/runs/{RUN}"), DESK).await;
    browser.reads(".line", "run_started");
    let insert = |version: i32| {
        format!(
            "insert into events (project_id, run_id, version, type, payload)
             values ('{PROJECT}', '{RUN}', {version}, 'log', '{{\"message\": \"line {version}\"}}')"
        )
    };

    let late = app.client().await;
    late.batch_execute(&format!("begin; {}", insert(2))).await.unwrap();
    app.cluster.batch(&insert(3)).await;
    browser.reads(".line", "line 3");
    late.batch_execute("commit").await.unwrap();

    browser.reads(".line", "line 2");
    let versions = browser
        .value("[...document.querySelectorAll('.line')].map((it) => it.dataset.version).join(' ')");
    assert_eq!(versions, "1 2 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_rebuilds_pauses_and_resumes_and_is_asked_for_the_token_once() {
    let app = App::shipped().await;
    let (_sidecar, url) = guarded(&app).await;
    append(&app, RUN, &beginning()).await;
    app.caught_up().await;
    let mut browser = Browser::open(&format!("{url}#/projections"), DESK).await;

    browser.fill("#token", "guess");
    browser.press(&["Enter"]);
    browser.reads("dialog", "That token was not accepted.");
    browser.fill("#token", TOKEN);
    browser.press(&["Enter"]);
    browser.reads("#health", "ready");
    let card = "li.card:has(h2:text-is('run_status'))";
    browser.reads(card, "live");
    let broadcasts = "section:has(h2:text-is('Broadcasts'))";
    browser.reads(&format!("{broadcasts} >> .status"), "failed");
    browser.reads(&format!("{broadcasts} >> .error"), "the Realtime server cannot be reached");
    browser.shoot("projections");

    // while somebody reads, the swap waits, and the page shows it
    let reader = app.client().await;
    reader.batch_execute("begin; select from run_status").await.unwrap();
    browser.click("role=button[name='Rebuild run_status']");
    browser.reads(&format!("{card} >> .said"), "rebuild asked for");
    browser.reads(&format!("{card} >> .phase"), "waits for");
    browser.sees("role=progressbar[name='Rebuild of run_status']");
    browser.sees("role=button[name='Cancel run_status']");
    browser.shoot("rebuild");
    reader.batch_execute("commit").await.unwrap();
    app.becomes("select phase from projector.rebuilds where projection = 'run_status' order by id desc limit 1", "done").await;
    browser.sees("role=button[name='Rebuild run_status']");
    browser.reads(card, "live");

    browser.click("role=button[name='Pause run_status']");
    browser.reads(&format!("{card} >> .status"), "paused");
    browser.click("role=button[name='Resume run_status']");
    browser.reads(&format!("{card} >> .status"), "live");

    browser.goes(&format!("{url}#/"));
    browser.reads("tbody tr", "invoice");
    let stored = browser.value("JSON.stringify([Object.values(localStorage), document.cookie])");
    assert!(!stored.as_str().unwrap().contains(TOKEN), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_in_names_messages_and_errors_is_shown_as_text() {
    let app = App::shipped().await;
    let (_sidecar, url) = console(&app).await;
    let hostile = "<img src=x onerror=\"window.hacked = 1\"><script>window.hacked = 1</script>";
    let step = "\"><svg onload=window.hacked=1>";
    let failure = json!({ "step_id": step, "attempt": 1, "error": { "message": hostile } });
    let mut log = event(
        "log",
        json!({ "level": hostile, "message": format!("{hostile} \u{202e}txt"), "step_id": step }),
    );
    log["payload"]["fields"] = json!({ hostile: hostile, "__proto__": [hostile] });
    append(
        &app,
        RUN,
        &[
            event(
                "run_started",
                json!({ "workflow": hostile, "trigger": hostile, "workflow_version": hostile }),
            ),
            event(
                "step_started",
                json!({ "step_id": step, "name": hostile, "kind": hostile, "attempt": 1 }),
            ),
            log,
            event(hostile, json!({ "message": "javascript:alert(1)" })),
            event("step_failed", failure.clone()),
            event("run_failed", failure),
        ],
    )
    .await;
    app.caught_up().await;
    let mut browser = Browser::open(&url, DESK).await;

    browser.reads("tbody tr", hostile);
    browser.click("a.row");
    browser.reads("h1", hostile);
    browser.reads(".runhead .error", hostile);
    browser.reads(".line .message", hostile);
    browser.reads(".line .type", hostile);
    browser.reads(".steps .name", hostile);
    browser.shoot("hostile");
    browser.value("document.querySelector('#version').focus()");
    browser.press(&["ArrowLeft", "ArrowLeft"]);
    browser.reads(".moment", "as of version 4");
    browser.click("role=button[name='Why: this run']");
    browser.reads("dialog td", hostile);

    assert_eq!(browser.value("typeof window.hacked"), "undefined");
    assert_eq!(
        browser.value("document.querySelectorAll('main img, main svg, main script').length"),
        0
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // and if a module forgot itself, the browser would refuse
    let forgot = "(() => { try { document.body.innerHTML = '<p>'; return 'taken'; } catch { return 'refused'; } })()";
    assert_eq!(browser.value(forgot), "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_walked_searched_and_filtered_with_the_keyboard_alone() {
    let app = App::shipped().await;
    let (_sidecar, url) = console(&app).await;
    append(&app, RUN, &[event("run_started", json!({ "workflow": "invoice" }))]).await;
    let failing = "0198c2f4-7d3e-7a40-9c55-3f1d2b6a8e11";
    append(
        &app,
        failing,
        &[
            event("run_started", json!({ "workflow": "mail" })),
            event("run_failed", json!({ "error": { "message": "mailbox full" } })),
        ],
    )
    .await;
    app.caught_up().await;
    let mut browser = Browser::open(&url, DESK).await;
    browser.reads("tbody tr", "invoice");
    browser.reads(".chip[data-status='failed'] .count", "1");

    browser.press(&["Tab"]);
    assert_eq!(browser.value("document.activeElement.id"), "skip");
    browser.press(&["/"]);
    browser.holds("document.activeElement.id === 'search'");
    browser.press(&["B", "o", "x", " ", "f"]);
    browser.misses("tbody tr:has-text('invoice')");
    browser.reads("tbody tr", "mailbox full");
    browser.press(&["Escape", "j", "Enter"]);
    browser.reads("h1", "mail");
    browser.holds("document.activeElement.tagName === 'H1'");
    browser.goes_back();
    browser.reads("tbody tr", "mailbox full");
    assert_eq!(browser.value("document.querySelector('#search').value"), "Box f");
    browser.press(&["Escape"]);
    browser.reads("tbody tr", "invoice");
    browser.press(&["j", "j", "k"]);
    browser.holds("document.activeElement.textContent === 'mail'");

    // what somebody walks through stays where it is; new runs wait
    append(
        &app,
        "0198c2f4-7d3e-7a40-9c55-3f1d2b6a8e12",
        &[event("run_started", json!({ "workflow": "new" }))],
    )
    .await;
    browser.sees("role=button[name='1 new run ↑']");
    assert_eq!(browser.value("document.querySelectorAll('tbody tr').length"), 2);
    browser.click("role=button[name='1 new run ↑']");
    browser.holds("document.querySelectorAll('tbody tr').length === 3");

    browser.press(&["?"]);
    browser.reads("dialog", "Keys");
    assert_eq!(browser.faults(), Vec::<String>::new());
    browser.press(&["Escape"]);
    browser.misses("dialog");
    browser.press(&["p"]);
    browser.reads("h1", "Projections");
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // where there is no token nobody can prove to be an operator
    browser.click("role=button[name='Pause run_log']");
    browser.reads(".said", "set PROJECTOR_HTTP_ADMIN_TOKEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_has_a_fault_of_accessibility_in_light_or_dark_or_is_too_wide_for_a_phone() {
    let app = App::shipped().await;
    let (_sidecar, url) = console(&app).await;
    append(&app, RUN, &beginning()).await;
    let wide = "W".repeat(300);
    let failed = "0198c2f4-7d3e-7a40-9c55-3f1d2b6a8e11";
    let failure = json!({ "step_id": wide, "error": { "message": wide } });
    append(&app, failed, &[
        event("run_started", json!({ "workflow": wide, "trigger": wide })),
        event("step_started", json!({ "step_id": wide, "name": wide })),
        event("log", json!({ "level": "warn", "message": wide, "step_id": wide, "fields": { "f": wide } })),
        event("step_failed", failure.clone()),
        event("run_failed", failure),
    ]).await;
    app.caught_up().await;
    let mut browser = Browser::open(&url, DESK).await;
    let pages = [
        (String::from("#/"), "tbody tr"),
        (String::from("#/?status=canceled"), ".empty"),
        (format!("#/runs/{RUN}"), ".line"),
        (format!("#/runs/{RUN}?version=4"), ".changes"),
        (format!("#/runs/{failed}"), ".line"),
        (String::from("#/runs/0198c2f4-0000-7000-8000-000000000000"), ".empty"),
        (String::from("#/projections"), ".card"),
    ];

    for (number, (page, there)) in pages.iter().enumerate() {
        browser.prefers("light");
        browser.resize(DESK.0, DESK.1);
        browser.goes(&format!("{url}{page}"));
        browser.sees(there);
        browser.reads("#health", "ready");
        browser.shoot(&format!("light-{number}"));
        assert_eq!(browser.faults(), Vec::<String>::new(), "{page} in light");
        browser.prefers("dark");
        browser.shoot(&format!("dark-{number}"));
        assert_eq!(browser.faults(), Vec::<String>::new(), "{page} in dark");
        browser.resize(PHONE.0, PHONE.1);
        browser.shoot(&format!("phone-{number}"));
        assert_eq!(browser.faults(), Vec::<String>::new(), "{page} on a phone");
        let width = browser.value("document.documentElement.scrollWidth");
        assert!(width.as_u64().unwrap() <= u64::from(PHONE.0), "{page} is {width} wide");
    }

    // the choice is kept, whatever the system says
    browser.click("#theme");
    browser.sees("#theme[aria-label='Colours: light']");
    browser.goes(&url);
    browser.sees("tbody tr");
    assert_eq!(browser.value("getComputedStyle(document.documentElement).colorScheme"), "light");
}
