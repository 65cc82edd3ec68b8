//! What a hub puts up with from a client: here with less patience than it has.

use std::sync::Arc;
use std::time::Duration;

use projector::metrics::Metrics;
use projector::pg::Settings;
use projector::realtime::hub::{Hub, Keys, Limits, Patience};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::app::App;
use crate::support::hub::{Came, Live, SECRET, Wire, anon, message};

const LONG: Duration = Duration::from_secs(3_600);

/// A hub of this process, without a database.
pub(super) fn hub(patience: Patience, queue_bytes: usize) -> Hub {
    let limits = Limits { sockets: 10, channels: 10, queue_bytes, recheck: LONG, patience };
    let settings = Settings::parse("postgres://nobody@127.0.0.1:1/none", |_| None).unwrap();
    let hub = Hub::new(Keys::new(Some(SECRET), None), settings, limits, Arc::new(Metrics::new()));
    hub.lead();
    hub
}

/// Where it serves.
async fn served(hub: &Hub) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = hub.router();
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    address
}

async fn connect(address: &str) -> Wire {
    Wire::connect(address, &anon(), "2.0.0").await.unwrap()
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_though_it_listens() {
    let patience = Patience { silence: Duration::from_secs(1), ..Patience::default() };
    let hub = hub(patience, 1 << 20);
    let address = served(&hub).await;
    let mut joined = connect(&address).await;
    let mut idle = connect(&address).await;
    joined.send("realtime:news", "phx_join", json!({ "config": { "private": false } })).await;

    assert_eq!(idle.closed().await, Some(1000));
    assert_eq!(joined.closed().await, Some(1000));
}

#[tokio::test]
async fn a_client_that_has_joined_nothing_is_closed_though_it_talks() {
    let patience = Patience { loneliness: Duration::from_secs(2), ..Patience::default() };
    let hub = hub(patience, 1 << 20);
    let address = served(&hub).await;
    let mut talks = connect(&address).await;
    let mut joins = connect(&address).await;
    assert_eq!(joins.join("news", false, None).await["status"], "ok");

    talks.send("phoenix", "heartbeat", json!({})).await;
    assert_eq!(talks.closed().await, Some(1000));

    // the one that has a channel stays, until it leaves it
    assert!(joins.so_far().await.is_empty());
    joins.ask("realtime:news", "phx_leave", json!({})).await;
    assert_eq!(joins.closed().await, Some(1000));
}

#[tokio::test]
async fn what_a_client_sends_too_fast_is_not_read_and_it_still_hears() {
    const BURST: u32 = 7;
    let patience = Patience { frame: LONG, burst: BURST, ..Patience::default() };
    let hub = hub(patience, 1 << 20);
    let address = served(&hub).await;
    let mut floods = connect(&address).await;
    let mut other = connect(&address).await;
    for wire in [&mut floods, &mut other] {
        assert_eq!(wire.join("news", false, None).await["status"], "ok");
    }

    for _ in 0..100 {
        floods.send("phoenix", "heartbeat", json!({})).await;
    }
    let is_answer = |it: &Came| it.event() == "phx_reply";
    let mut answers = 1;
    while answers <= BURST {
        assert!(is_answer(&floods.next().await));
        answers += 1;
    }
    hub.publish(&[message("news", false, json!({ "n": 1 }))]);

    // the one that was read last before it became too much, and nothing after that
    assert_eq!(floods.next().await.payload()["payload"], json!({ "n": 1 }));
    hub.publish(&[message("news", false, json!({ "n": 2 }))]);
    assert_eq!(floods.next().await.payload()["payload"], json!({ "n": 2 }));
    for n in 1..=2 {
        assert_eq!(other.next().await.payload()["payload"], json!({ "n": n }));
    }
    assert_eq!(other.ask("phoenix", "heartbeat", json!({})).await.1["status"], "ok");
}

#[tokio::test]
async fn a_client_that_joins_and_sends_without_end_is_answered_in_full_and_the_others_hear() {
    const ROUNDS: usize = 150;
    let live = Live::with(App::bare(&[]).await, &[("PROJECTOR_REALTIME_CHANNELS", "5")]).await;
    let mut floods = live.connect(&anon(), "2.0.0").await;
    let mut hears = live.connect(&anon(), "1.0.0").await;
    hears.join("room", false, None).await;
    let config = json!({ "config": { "private": false, "broadcast": { "ack": true } } });

    // a thousand frames: twice what is read at once
    let mut wanted = Vec::new();
    for round in 0..ROUNDS {
        let room = "realtime:room";
        wanted.push((floods.send(room, "phx_join", config.clone()).await, "ok"));
        for topic in 0..4 {
            let topic = format!("realtime:{round}:{topic}");
            let status = if round == 0 { "ok" } else { "error" };
            wanted.push((floods.send(&topic, "phx_join", config.clone()).await, status));
        }
        let said = json!({ "event": "say", "payload": { "round": round }, "type": "broadcast" });
        wanted.push((floods.send(room, "broadcast", said).await, "ok"));
    }

    for (number, (wanted, status)) in wanted.iter().enumerate() {
        let payload = loop {
            if let Came::Text { reference, event, payload, .. } = floods.next().await
                && event == "phx_reply"
                && reference == wanted.as_str()
            {
                break payload;
            }
        };
        assert_eq!(payload["status"], *status, "frame {number}: {payload}");
    }
    for round in 0..ROUNDS {
        assert_eq!(hears.next().await.payload()["payload"], json!({ "round": round }));
    }
    let limited = r#"projector_realtime_refused_joins_total{reason="limit"}"#;
    let refused = 4 * (ROUNDS - 1);
    assert_eq!(live.metric(limited).await, Some(refused as f64));
}
