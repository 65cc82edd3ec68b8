//! With the unmodified supabase-js.

use serde_json::json;
use uuid::Uuid;

use crate::support::hub::{Live, anon, in_seconds, member, token};
use crate::support::js::Js;

#[tokio::test]
async fn supabase_js_joins_and_hears_what_its_user_may() {
    let live = Live::start().await;
    let (project, other) = (Uuid::new_v4(), Uuid::new_v4());
    let (mine, theirs) = (format!("project:{project}"), format!("project:{other}"));
    let private = json!({ "private": true });

    for version in ["1.0.0", "2.0.0"] {
        let user = member(&[project]);
        let mut js = Js::connected(&live.url(), &anon(), Some(&user), version).await;
        js.run(json!({ "do": "join", "topic": mine, "config": private })).await;
        js.status(0, &mine, "SUBSCRIBED").await;
        js.run(json!({ "do": "join", "topic": theirs, "config": private })).await;
        let refused = js.status(0, &theirs, "CHANNEL_ERROR").await;
        assert!(refused["error"].as_str().unwrap().contains("Unauthorized: "), "{refused}");

        live.publish(&theirs, json!({ "secret": true })).await;
        live.publish(&mine, json!({ "seq": 1, "version": version })).await;

        let message = js.message(&json!({ "seq": 1, "version": version })).await;
        assert_eq!((&message["topic"], &message["event"]), (&json!(mine), &json!("log")));
        assert_eq!(js.messages().len(), 1, "{:?}", js.messages());
        js.run(json!({ "do": "leave", "topic": mine })).await;
        assert_eq!(js.sees("the answer", |it| it["kind"] == "left").await["result"], "ok");
    }
}

#[tokio::test]
async fn supabase_js_gets_bytes_and_talks_on_public_channels() {
    let live = Live::start().await;
    let mut js = Js::connected(&live.url(), &anon(), None, "2.0.0").await;
    let config = json!({ "broadcast": { "self": true, "ack": true } });
    js.run(json!({ "do": "join", "topic": "room", "config": config })).await;
    js.status(0, "room", "SUBSCRIBED").await;

    let path = "/realtime/v1/api/broadcast/room/events/blob";
    let bytes = live.request("POST", path).bearer_auth(anon()).body(vec![0xca, 0xfe, 0xba, 0xbe]);
    let bytes = bytes.header("content-type", "application/octet-stream").send().await.unwrap();
    assert_eq!(bytes.status().as_u16(), 202);
    js.run(json!({ "do": "send", "topic": "room", "event": "cursor", "payload": { "x": 1 } }))
        .await;

    assert_eq!(js.message(&json!({ "hex": "cafebabe" })).await["event"], "blob");
    assert_eq!(js.message(&json!({ "x": 1 })).await["event"], "cursor");
    assert_eq!(js.sees("the answer", |it| it["kind"] == "sent").await["result"], "ok");
}

#[tokio::test]
async fn supabase_js_is_closed_when_its_token_expires_and_not_when_it_is_renewed() {
    let live = Live::start().await;
    let project = Uuid::new_v4();
    let topic = format!("project:{project}");
    let short =
        || token(json!({ "role": "authenticated", "project_id": project, "exp": in_seconds(5) }));
    let mut renews = Js::connected(&live.url(), &anon(), Some(&short()), "2.0.0").await;
    let mut forgets = Js::connected(&live.url(), &anon(), Some(&short()), "2.0.0").await;
    for js in [&mut renews, &mut forgets] {
        js.run(json!({ "do": "join", "topic": topic, "config": { "private": true } })).await;
        js.status(0, &topic, "SUBSCRIBED").await;
    }

    renews.run(json!({ "do": "token", "value": member(&[project]), "tell": true })).await;

    let system = |it: &serde_json::Value| {
        it["kind"] == "system" && it["message"].as_str().unwrap().starts_with("Token has expired")
    };
    forgets.sees("that the token has expired", system).await;
    forgets.status(0, &topic, "CLOSED").await;
    live.publish(&topic, json!({ "later": true })).await;
    renews.message(&json!({ "later": true })).await;
    assert!(forgets.messages().is_empty());
}

#[tokio::test]
async fn supabase_js_comes_back_after_the_server_was_killed() {
    let mut live = Live::start().await;
    let project = Uuid::new_v4();
    let topic = format!("project:{project}");
    let mut js = Js::connected(&live.url(), &anon(), Some(&member(&[project])), "2.0.0").await;
    js.run(json!({ "do": "join", "topic": topic, "config": { "private": true } })).await;
    js.status(0, &topic, "SUBSCRIBED").await;
    let seen = js.seen();

    live = live.crash().await;

    js.status(seen, &topic, "CHANNEL_ERROR").await;
    js.status(seen, &topic, "SUBSCRIBED").await;
    live.publish(&topic, json!({ "again": true })).await;
    js.message(&json!({ "again": true })).await;
}
