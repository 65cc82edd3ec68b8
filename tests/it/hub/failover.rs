//! Two sidecars of one slot: clients are with the one that has something to tell them.

use rustix::process::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::App;
use crate::support::balancer::Balancer;
use crate::support::eventually::eventually;
use crate::support::hub::{Live, Wire, anon, member, service};
use crate::support::js::Js;
use crate::support::proxy::Proxy;

const LINES: usize = 2_000;

#[tokio::test]
async fn clients_behind_a_balancer_come_to_the_sidecar_that_takes_over_and_miss_no_line() {
    let mut live = Live::start().await;
    let second = live.second().await;
    let balancer = Balancer::start(vec![live.address.clone(), second.1.clone()]).await;
    let (project, run) = (Uuid::new_v4(), Uuid::new_v4());
    let started = json!([{ "type": "run_started", "payload": { "workflow": "w" } }]);
    live.append(project, run, &started).await;
    live.app.caught_up().await;
    let mut js = Js::connected(&balancer.url(), &anon(), Some(&member(&[project])), "2.0.0").await;
    let base = balancer.url();
    // Only what is heard and what is missing leads to a fetch, not time.
    let follow = json!({ "do": "follow", "run": run, "base": base, "pollEvery": 1_000_000 });
    js.run(follow).await;
    js.status(0, &run.to_string(), "SUBSCRIBED").await;

    let line = |number: usize| json!({ "type": "log", "payload": { "message": number } });
    let mut lines = 1;
    let mut standby = Some(second);
    let seen = js.seen();
    while lines < LINES {
        let more = fastrand::usize(1..=20).min(LINES - lines);
        live.append(project, run, &Value::from_iter((lines..lines + more).map(line))).await;
        lines += more;
        if LINES / 2 < lines
            && let Some(second) = standby.take()
        {
            live = live.killed_for(second).await;
        }
    }
    js.status(seen, &run.to_string(), "SUBSCRIBED").await;
    live.append(project, run, &json!([line(lines)])).await;

    let report = eventually("all lines", async || {
        let seen = js.seen();
        js.run(json!({ "do": "report", "run": run })).await;
        let report = js.sees_after(seen, "a report", |it| it["kind"] == "report").await;
        if report["rows"] == LINES + 1 { Ok(report) } else { Err(report) }
    })
    .await;
    assert_eq!(report["ordered"], true, "{report}");
    assert_eq!(live.metric("projector_realtime_sockets").await, Some(1.0));
}

#[tokio::test]
async fn a_sidecar_that_stands_by_refuses_clients_until_it_leads() {
    let live = Live::start().await;
    let (standby, address) = live.second().await;

    let refused = Wire::connect(&address, &anon(), "2.0.0").await.err();

    let text = json!({ "error": "This server stands by: try again" }).to_string();
    assert_eq!(refused, Some((503, text)));
    // who may not connect learns nothing more
    let stranger = Wire::connect(&address, "nonsense", "2.0.0").await.err();
    assert_eq!(stranger.map(|it| it.0), Some(401));
    let (code, reasons) = standby.get("/readyz").await;
    assert_eq!((code, reasons.contains("standby")), (503, true), "{reasons}");

    let first = live.address.clone();
    let live = live.killed_for((standby, address)).await;

    assert_ne!(live.address, first);
    let mut wire = live.connect(&anon(), "2.0.0").await;
    assert_eq!(wire.join("news", false, None).await["status"], "ok");
    assert_eq!(live.sidecar.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_sidecar_that_has_lost_the_slot_closes_its_sockets_and_takes_no_message() {
    let live = Live::start().await;
    let (second, address) = live.second().await;
    let project = Uuid::new_v4();
    let topic = format!("project:{project}");
    let mut wire = live.connect(&member(&[project]), "2.0.0").await;
    assert_eq!(wire.join(&topic, true, None).await["status"], "ok");

    // it hangs, and the server gives its connections up
    live.sidecar.signal(Signal::STOP);
    let terminate = "select pg_terminate_backend(pid) from pg_stat_activity
        where application_name like 'projector%'";
    live.app.cluster.batch(terminate).await;
    second.says("\"ready\"").await;
    live.sidecar.signal(Signal::CONT);

    assert_eq!(wire.closed().await, Some(1012));
    let refused = live.try_connect(&anon(), "2.0.0").await.err();
    assert_eq!(refused.map(|it| it.0), Some(503));
    let message = json!({ "topic": topic, "event": "log", "private": true, "payload": {} });
    assert_eq!(live.post(&service(), &json!([message])).await, 503);
    assert_eq!(live.metric("projector_realtime_sockets").await, Some(0.0));
    let mut wire = Wire::connect(&address, &member(&[project]), "2.0.0").await.unwrap();
    assert_eq!(wire.join(&topic, true, None).await["status"], "ok");
}

#[tokio::test]
async fn a_sidecar_whose_connections_are_half_open_keeps_its_clients() {
    let app = App::with(&[("wal_sender_timeout", "3s")]).await;
    let proxy = Proxy::start(app.cluster.port()).await;
    let (from, to) = (format!(":{}/", app.cluster.port()), format!(":{}/", proxy.port()));
    let url = app.cluster.url().replace(&from, &to);
    let live = Live::with(app, &[("DATABASE_URL", &url)]).await;
    let mut wire = live.connect(&anon(), "2.0.0").await;
    assert_eq!(wire.join("news", false, None).await["status"], "ok");

    let seen = live.sidecar.lines();
    proxy.stall();
    // the server has not noticed, and holds the lead for a connection that nobody has any more
    live.sidecar.says_more("the connection before this one still holds slot", seen).await;
    assert!(wire.so_far().await.is_empty());
    proxy.cut();
    live.sidecar.says_more("\"ready\"", seen).await;

    let news = json!({ "topic": "news", "event": "log", "payload": { "n": 1 } });
    assert_eq!(live.post(&service(), &json!([news])).await, 202);
    assert_eq!(wire.next().await.payload()["payload"], json!({ "n": 1 }));
}
