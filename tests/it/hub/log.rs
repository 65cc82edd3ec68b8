//! The recipe for users, `examples/live-log.mjs`: no line is missed, doubled or out of order.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::App;
use crate::support::eventually::eventually;
use crate::support::hub::{Live, anon, member};
use crate::support::js::Js;

const LINES: usize = 5_000;

#[tokio::test]
async fn every_line_comes_once_and_in_order_whatever_is_lost_or_restarted() {
    let mut live = Live::start().await;
    let (project, run) = (Uuid::new_v4(), Uuid::new_v4());
    let started = json!([{ "type": "run_started", "payload": { "workflow": "w" } }]);
    live.append(project, run, &started).await;
    live.app.caught_up().await;
    let mut js = Js::connected(&live.url(), &anon(), Some(&member(&[project])), "2.0.0").await;
    js.run(json!({ "do": "lose", "share": 0.15 })).await;
    // Only what is heard and what is missing leads to a fetch, not time.
    let follow = json!({ "do": "follow", "run": run, "base": live.url(), "pollEvery": 1_000_000 });
    js.run(follow).await;
    js.status(0, &run.to_string(), "SUBSCRIBED").await;

    let line = |number: usize| json!({ "type": "log", "payload": { "message": number } });
    let mut lines = 1;
    let mut restarts = 0;
    while lines < LINES {
        let more = fastrand::usize(1..=20).min(LINES - lines);
        live.append(project, run, &Value::from_iter((lines..lines + more).map(line))).await;
        lines += more;
        if restarts < 3 && LINES / 4 * (restarts + 1) < lines {
            restarts += 1;
            let seen = js.seen();
            live = live.crash().await;
            // The last one is not waited for: lines go on coming while nobody listens.
            if restarts < 3 {
                js.status(seen, &run.to_string(), "SUBSCRIBED").await;
            }
        }
    }
    // What was lost last shows with the next line.
    js.run(json!({ "do": "lose", "share": 0 })).await;
    live.append(project, run, &json!([line(lines)])).await;

    let report = has_rows(&mut js, run, LINES + 1).await;
    assert_eq!(report["ordered"], true, "{report}");
    // It was put to the test, and lived on broadcasts more than on fetches.
    let count = |name: &str| report[name].as_u64().unwrap();
    assert!(10 < count("dropped"), "{report}");
    assert!(count("dropped") < count("broadcasts") && 3 < count("fetches"), "{report}");
}

#[tokio::test]
async fn a_lost_tail_is_noticed_by_the_beacon_that_follows_it() {
    let live = Live::with(App::shipped().await, &[("PROJECTOR_REALTIME_BEACON", "300ms")]).await;
    let (project, run) = (Uuid::new_v4(), Uuid::new_v4());
    let line = json!([{ "type": "log", "payload": { "message": "a line" } }]);
    live.append(project, run, &line).await;
    live.app.caught_up().await;
    let mut js = Js::connected(&live.url(), &anon(), Some(&member(&[project])), "2.0.0").await;
    let follow = json!({ "do": "follow", "run": run, "base": live.url(), "pollEvery": 1_000_000 });
    js.run(follow).await;
    js.status(0, &run.to_string(), "SUBSCRIBED").await;
    has_rows(&mut js, run, 1).await;
    // All that carries lines is lost from now on.
    js.run(json!({ "do": "lose", "share": 1, "beacons": false })).await;

    for rows in 2..=4 {
        live.append(project, run, &line).await;

        let report = has_rows(&mut js, run, rows).await;
        assert_eq!(report["ordered"], true, "{report}");
    }
    eventually("a network that has lost each of them", async || {
        let report = has_rows(&mut js, run, 4).await;
        if 3 <= report["dropped"].as_u64().unwrap() { Ok(()) } else { Err(report) }
    })
    .await;
}

/// Waits until the log has so many rows, and gives the report that says so.
async fn has_rows(js: &mut Js, run: Uuid, rows: usize) -> Value {
    eventually(&format!("{rows} rows"), async || {
        let seen = js.seen();
        js.run(json!({ "do": "report", "run": run })).await;
        let report = js.sees_after(seen, "a report", |it| it["kind"] == "report").await;
        if report["rows"] == rows { Ok(report) } else { Err(report) }
    })
    .await
}
