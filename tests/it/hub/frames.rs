//! What clients send and get, frame by frame.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::support::hub::{Came, Live, anon, member, service};

fn broadcast(payload: Value) -> Value {
    json!({ "event": "log", "payload": payload, "type": "broadcast" })
}

#[tokio::test]
async fn members_hear_what_is_sent_in_either_version() {
    let live = Live::start().await;
    let project = Uuid::new_v4();
    let topic = format!("project:{project}");
    let user = member(&[project]);

    for version in ["1.0.0", "2.0.0"] {
        let mut wire = live.connect(&anon(), version).await;
        let joined = wire.join(&topic, true, Some(&user)).await;
        assert_eq!(joined, json!({ "status": "ok", "response": { "postgres_changes": [] } }));

        live.publish(&topic, json!({ "seq": 1 })).await;

        let Came::Text { join_ref, reference, topic: on, event, payload } = wire.next().await
        else {
            panic!("a text frame")
        };
        assert_eq!((join_ref, reference), (Value::Null, Value::Null));
        assert_eq!((on, event.as_str()), (format!("realtime:{topic}"), "broadcast"));
        assert_eq!(payload, broadcast(json!({ "seq": 1 })));
    }
}

#[tokio::test]
async fn bytes_and_single_messages_come_in_binary_frames() {
    let live = Live::start().await;
    let mut one = live.connect(&anon(), "1.0.0").await;
    let mut two = live.connect(&anon(), "2.0.0").await;
    one.join("news", false, None).await;
    two.join("news", false, None).await;
    let path = "/realtime/v1/api/broadcast/news/events/log";

    let bytes = live.request("POST", path).bearer_auth(anon()).body(vec![0xca, 0xfe]);
    let bytes = bytes.header("content-type", "application/octet-stream").send().await.unwrap();
    let json = live.request("POST", path).bearer_auth(anon()).json(&json!({ "n": 1 }));
    let json = json.send().await.unwrap();

    assert_eq!((bytes.status().as_u16(), json.status().as_u16()), (202, 202));
    let head = |encoding| [&[4, 13, 3, 0, encoding], b"realtime:newslog".as_slice()].concat();
    let mut wanted = head(0);
    wanted.extend([0xca, 0xfe]);
    assert_eq!(two.next().await, Came::Binary(wanted));
    assert_eq!(two.next().await, Came::Binary([head(1).as_slice(), br#"{"n":1}"#].concat()));
    // The first version has no way to say bytes.
    assert_eq!(*one.next().await.payload(), broadcast(json!({ "n": 1 })));
}

#[tokio::test]
async fn a_second_join_closes_the_first_and_a_leave_closes_it_all() {
    let live = Live::start().await;
    let mut wire = live.connect(&anon(), "2.0.0").await;
    let topic = "realtime:news";
    let first = wire.send(topic, "phx_join", json!({})).await;
    assert_eq!(wire.next().await.payload()["status"], "ok");

    let (before, answer) = wire.ask(topic, "phx_join", json!({})).await;

    let closed = &before[0];
    assert_eq!(closed.event(), "phx_close");
    assert!(matches!(closed, Came::Text { join_ref, .. } if *join_ref == json!(first)));
    assert_eq!(answer["status"], "ok");

    let (before, answer) = wire.ask(topic, "phx_leave", json!({})).await;
    assert!(before.is_empty());
    assert_eq!(answer, json!({ "status": "ok", "response": {} }));
    assert_eq!(wire.next().await.event(), "phx_close");
    let late = json!([{ "topic": "news", "event": "log", "payload": {} }]);
    assert_eq!(live.post(&anon(), &late).await, 202);
    assert!(wire.so_far().await.is_empty());
}

#[tokio::test]
async fn what_was_not_joined_is_unmatched() {
    let live = Live::start().await;
    let mut wire = live.connect(&anon(), "2.0.0").await;

    let error = |reason: &str| json!({ "status": "error", "response": { "reason": reason } });
    for (topic, event, wanted) in [
        ("realtime:none", "broadcast", error("unmatched topic")),
        ("elsewhere", "phx_join", error("unmatched topic")),
        ("realtime:none", "phx_leave", json!({ "status": "ok", "response": {} })),
        ("phoenix", "heartbeat", json!({ "status": "ok", "response": {} })),
        ("realtime:", "phx_join", error("TopicNameRequired: You must provide a topic name")),
    ] {
        assert_eq!(wire.ask(topic, event, json!({})).await.1, wanted, "{topic} {event}");
    }
}

#[tokio::test]
async fn clients_talk_on_public_topics_and_not_on_private_ones() {
    let live = Live::start().await;
    let project = Uuid::new_v4();
    let private = format!("project:{project}");
    let config = |own: bool| json!({ "config": { "broadcast": { "self": own, "ack": true } } });
    let say = broadcast(json!({ "n": 1 }));
    let mut hears_itself = live.connect(&anon(), "2.0.0").await;
    let mut other = live.connect(&member(&[project]), "1.0.0").await;
    hears_itself.ask("realtime:chat", "phx_join", config(true)).await;
    other.ask("realtime:chat", "phx_join", config(false)).await;
    assert_eq!(other.join(&private, true, None).await["status"], "ok");

    let (before, acknowledged) = hears_itself.ask("realtime:chat", "broadcast", say.clone()).await;
    let before = [before, hears_itself.so_far().await].concat();

    assert_eq!(acknowledged["status"], "ok");
    // what a client of the second version says goes to others of it in a binary frame
    assert!(matches!(before.as_slice(), [Came::Binary(bytes)] if bytes.ends_with(br#"{"n":1}"#)));
    assert_eq!(*other.next().await.payload(), say);

    let (before, acknowledged) = other.ask("realtime:chat", "broadcast", say.clone()).await;
    assert!(before.is_empty() && acknowledged["status"] == "ok");
    assert!(other.so_far().await.is_empty());

    other.send(&format!("realtime:{private}"), "broadcast", say).await;
    assert!(other.so_far().await.is_empty(), "neither an answer nor an echo");
}

#[tokio::test]
async fn what_is_not_served_is_said() {
    let live = Live::start().await;
    let mut wire = live.connect(&anon(), "2.0.0").await;
    let changes = json!([{ "event": "*", "schema": "public", "table": "runs" }]);
    let config =
        json!({ "config": { "postgres_changes": changes, "presence": { "enabled": true } } });

    let (_, joined) = wire.ask("realtime:db", "phx_join", config).await;

    assert_eq!(joined["response"]["postgres_changes"][0]["id"], 0);
    assert_eq!(joined["response"]["postgres_changes"][0]["table"], "runs");
    assert_eq!(wire.next().await.event(), "presence_state");
    let said = wire.next().await;
    assert_eq!((said.event(), &said.payload()["status"]), ("system", &json!("error")));
    assert_eq!(said.payload()["extension"], "postgres_changes");
}

#[tokio::test]
async fn frames_that_are_none_cost_the_sender_its_connection_and_nobody_else() {
    let live = Live::start().await;
    let mut other = live.connect(&anon(), "2.0.0").await;
    other.join("news", false, None).await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));

    for hostile in [
        Message::text("not JSON"),
        Message::text("[]"),
        Message::text(r#"{"topic":"phoenix"}"#),
        Message::text(r#"[{"a":1},"1","phoenix","heartbeat",{}]"#),
        Message::text(r#"["1","1",7,"heartbeat",{}]"#),
        Message::text(format!(r#"["1","{}","phoenix","heartbeat",{{}}]"#, "9".repeat(100))),
        Message::text(deep),
        Message::binary(vec![]),
        Message::binary(vec![3, 255, 255, 255, 255, 255, 1]),
        Message::binary(vec![3, 0, 0, 1, 0, 0, 9, b't']),
        Message::binary(vec![3, 0, 0, 1, 0, 0, 0, 0xff]),
        Message::binary(vec![4, 1, 1, 0, 0, b't', b'e']),
    ] {
        let mut wire = live.connect(&anon(), "2.0.0").await;
        wire.raw(hostile.clone()).await;
        assert_eq!(wire.closed().await, Some(1002), "{hostile:?}");
    }
    // a payload that is odd, but no reason to end it
    let mut wire = live.connect(&anon(), "2.0.0").await;
    let odd = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    wire.raw(Message::text(format!(r#"["1","1","realtime:odd","phx_join",{odd}]"#))).await;
    assert_eq!(wire.next().await.payload()["status"], "ok");

    live.post(&service(), &json!([{ "topic": "news", "event": "log", "payload": {} }])).await;
    assert_eq!(other.next().await.event(), "broadcast");
}

#[tokio::test]
async fn a_server_that_ends_says_so_to_its_clients() {
    let live = Live::start().await;
    let mut wire = live.connect(&anon(), "2.0.0").await;
    wire.join("news", false, None).await;

    let status = live.sidecar.terminate().await;

    assert!(status.success());
    assert_eq!(wire.closed().await, Some(1012));
}
