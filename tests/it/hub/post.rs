//! Sending over HTTP.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::hub::{Live, anon, in_seconds, member, service, token};

const BATCH: &str = "/realtime/v1/api/broadcast";

#[tokio::test]
async fn what_is_wrong_with_a_batch_is_said_and_nothing_is_sent() {
    let live = Live::start().await;
    let mut wire = live.connect(&anon(), "2.0.0").await;
    wire.join("news", false, None).await;
    let good = json!({ "topic": "news", "event": "log", "payload": {} });
    let blank = json!(["can't be blank"]);

    for (body, errors) in [
        (json!({}), json!({ "messages": blank })),
        (json!({ "messages": [] }), json!({ "messages": blank })),
        (json!({ "messages": 7 }), json!({ "messages": ["is invalid"] })),
        (
            json!({ "messages": [good, { "topic": " ", "event": 7 }] }),
            json!({ "messages": [{}, { "topic": blank, "event": ["is invalid"], "payload": blank }] }),
        ),
        (
            json!({ "messages": [{ "topic": "x".repeat(247), "event": "e", "payload": [] }] }),
            json!({ "messages": [{ "topic": ["should be at most 246 byte(s)"], "payload": ["is invalid"] }] }),
        ),
    ] {
        let answer = live.request("POST", BATCH).bearer_auth(service()).json(&body);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 422, "{body}");
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "errors": errors }));
    }
    let broken = live.request("POST", BATCH).bearer_auth(service()).body("{");
    assert_eq!(broken.send().await.unwrap().status().as_u16(), 400);
    assert!(wire.so_far().await.is_empty());
}

#[tokio::test]
async fn only_the_service_sends_to_private_topics() {
    let live = Live::start().await;
    let project = Uuid::new_v4();
    let topic = format!("project:{project}");
    let mut wire = live.connect(&member(&[project]), "2.0.0").await;
    wire.join(&topic, true, None).await;
    let message = json!([{ "topic": topic, "event": "log", "private": true, "payload": {} }]);
    let single = format!("{BATCH}/project%3A{project}/events/log?private=true");
    let send = |token: String| live.request("POST", &single).bearer_auth(token).json(&json!({}));

    // as Supabase Realtime has it: the one is silent, the other says so
    assert_eq!(live.post(&member(&[project]), &message).await, 202);
    let refused = send(member(&[project])).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 403);
    assert!(wire.so_far().await.is_empty());

    assert_eq!(live.post(&service(), &message).await, 202);
    assert_eq!(send(service()).send().await.unwrap().status().as_u16(), 202);
    assert_eq!(wire.so_far().await.len(), 2);
}

#[tokio::test]
async fn who_has_no_token_that_counts_sends_nothing() {
    let live = Live::start().await;
    let expired = token(json!({ "role": "service_role", "exp": in_seconds(-1) }));
    let message = json!([{ "topic": "news", "event": "log", "payload": {} }]);

    for bad in ["", "nonsense", expired.as_str()] {
        assert_eq!(live.post(bad, &message).await, 401, "{bad}");
    }
    let body = json!({ "messages": message });
    let bare = live.request("POST", BATCH).json(&body);
    assert_eq!(bare.send().await.unwrap().status().as_u16(), 401);
    let odd = live.request("POST", BATCH).header("authorization", "Bearer").json(&body);
    assert_eq!(odd.send().await.unwrap().status().as_u16(), 401);
    let by_key = live.request("POST", BATCH).header("apikey", anon()).json(&body);
    assert_eq!(by_key.send().await.unwrap().status().as_u16(), 202);
}

#[tokio::test]
async fn pages_of_other_sites_may_use_it_and_the_rest_of_the_api_not() {
    let live = Live::start().await;

    let asked = live.request("OPTIONS", BATCH).header("origin", "https://app.example").send();
    let asked = asked.await.unwrap();

    assert_eq!(asked.status().as_u16(), 204);
    let allows = |name: &str| asked.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
    assert_eq!(allows("access-control-allow-origin").as_deref(), Some("*"));
    assert!(allows("access-control-allow-headers").unwrap().contains("authorization"));
    let text = live.request("POST", &format!("{BATCH}/a/events/b")).bearer_auth(anon()).body("x");
    let text = text.header("content-type", "text/plain").send().await.unwrap();
    assert_eq!(text.status().as_u16(), 415);
    assert!(text.headers().contains_key("access-control-allow-origin"));
    let other = live.request("GET", "/api/runs").send().await.unwrap();
    assert!(!other.headers().contains_key("access-control-allow-origin"));
}
