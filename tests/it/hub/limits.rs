//! What clients may use, and what becomes of those who use more.

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::app::App;
use crate::support::eventually::eventually;
use crate::support::hub::{Live, anon, service, token};

#[tokio::test]
async fn a_slow_reader_is_cut_off_and_the_others_hear_everything() {
    let settings = [("PROJECTOR_REALTIME_QUEUE", "256KiB")];
    let live = Live::with(App::bare(&[]).await, &settings).await;
    let mut slow = live.connect(&anon(), "2.0.0").await;
    let mut quick = live.connect(&anon(), "2.0.0").await;
    slow.join("news", false, None).await;
    quick.join("news", false, None).await;
    let text = "x".repeat(60_000);

    // Nobody reads from `slow`. The network takes a few megabytes before it is full.
    let mut sent = 0;
    while live.metric("projector_realtime_slow_sockets_total").await != Some(1.0) {
        assert!(sent < 2_000, "120 MB were sent, and it was not cut off");
        let news =
            json!({ "topic": "news", "event": "log", "payload": { "n": sent, "text": text } });
        assert_eq!(live.post(&service(), &json!([news])).await, 202);
        assert_eq!(quick.next().await.payload()["payload"]["n"], sent);
        sent += 1;
    }

    let code = slow.closed().await;
    assert!(matches!(code, Some(1013) | None), "{code:?}");
    eventually("one socket", async || {
        let sockets = live.metric("projector_realtime_sockets").await;
        if sockets == Some(1.0) { Ok(()) } else { Err(sockets) }
    })
    .await;
}

#[tokio::test]
async fn sockets_and_channels_have_a_limit() {
    let settings = [("PROJECTOR_REALTIME_SOCKETS", "2"), ("PROJECTOR_REALTIME_CHANNELS", "3")];
    let live = Live::with(App::bare(&[]).await, &settings).await;
    let mut wire = live.connect(&anon(), "2.0.0").await;
    let other = live.connect(&anon(), "1.0.0").await;

    let refused = live.try_connect(&anon(), "2.0.0").await.err();

    let text = json!({ "error": "Too many connected users" }).to_string();
    assert_eq!(refused, Some((429, text)));
    drop(other);
    eventually("a place", async || live.try_connect(&anon(), "2.0.0").await.map(drop)).await;

    for number in 1..=3 {
        assert_eq!(wire.join(&format!("news:{number}"), false, None).await["status"], "ok");
    }
    let fourth = wire.join("news:4", false, None).await;
    let reason = "ChannelRateLimitReached: Too many channels";
    assert_eq!(fourth, json!({ "status": "error", "response": { "reason": reason } }));
    // joining the same one anew needs no further place
    assert_eq!(wire.join("news:3", false, None).await["status"], "ok");
    let metric = r#"projector_realtime_refused_joins_total{reason="limit"}"#;
    assert_eq!(live.metric(metric).await, Some(1.0));
    let long = wire.join(&"x".repeat(247), false, None).await;
    assert_eq!(long["response"]["reason"], "TopicNameTooLong: a topic has at most 246 bytes");
}

/// Binds `can_read` so that the project of whoever asks is answered at once, and any other when the
/// lock is free, which is taken here.
async fn with_a_lock(app: &App) -> Client {
    let client = app.client().await;
    let bind = "
        create or replace function projector.can_read(project_id uuid) returns boolean
        language plpgsql stable as $f$
        begin
          if project_id::text = current_setting('request.jwt.claim.sub') then
            return true;
          end if;
          perform pg_advisory_xact_lock_shared(7);
          return false;
        end $f$";
    client.batch_execute(bind).await.unwrap();
    client.batch_execute("select pg_advisory_lock(7)").await.unwrap();
    client
}

#[tokio::test]
async fn a_client_whose_questions_take_long_does_not_keep_others_from_joining() {
    let app = App::shipped().await;
    let client = with_a_lock(&app).await;
    let live = Live::with(app, &[]).await;
    let mine = Uuid::new_v4();
    let user = token(json!({ "role": "authenticated", "sub": mine }));
    let mut greedy = live.connect(&user, "2.0.0").await;
    let mut other = live.connect(&user, "2.0.0").await;
    let config = json!({ "config": { "private": true } });
    for _ in 0..90 {
        let topic = format!("realtime:project:{}", Uuid::new_v4());
        greedy.send(&topic, "phx_join", config.clone()).await;
    }
    let waits = "select count(*) from pg_locks where not granted and locktype = 'advisory'";
    live.app.becomes(waits, "2").await;

    let joined = other.join(&format!("project:{mine}"), true, None).await;

    assert_eq!(joined["status"], "ok", "{joined}");
    client.batch_execute("select pg_advisory_unlock(7)").await.unwrap();
    for _ in 0..90 {
        let refused = greedy.next().await;
        assert_eq!(refused.payload()["status"], "error", "{refused:?}");
    }
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_keep_others_from_joining() {
    let app = App::shipped().await;
    let client = with_a_lock(&app).await;
    let live = Live::with(app, &[("PROJECTOR_REALTIME_QUEUE", "256MiB")]).await;
    let mine = Uuid::new_v4();
    let user = token(json!({ "role": "authenticated", "sub": mine }));
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut wire = live.connect(&user, "2.0.0").await;
        assert_eq!(wire.join("news", false, None).await["status"], "ok");
        for _ in 0..90 {
            let topic = format!("realtime:project:{}", Uuid::new_v4());
            wire.send(&topic, "phx_join", json!({ "config": { "private": true } })).await;
        }
        slow.push(wire);
    }
    // with these the hub has as many questions as it asks at once
    let waits = "select count(*) from pg_locks where not granted and locktype = 'advisory'";
    live.app.becomes(waits, "4").await;

    // more than the network takes, so that the hub waits for those who do not read
    let text = "x".repeat(60_000);
    for number in 0..300 {
        let news =
            json!({ "topic": "news", "event": "log", "payload": { "n": number, "text": text } });
        assert_eq!(live.post(&service(), &json!([news])).await, 202);
    }
    client.batch_execute("select pg_advisory_unlock(7)").await.unwrap();

    let mut other = live.connect(&user, "2.0.0").await;
    let joined = other.join(&format!("project:{mine}"), true, None).await;
    assert_eq!(joined["status"], "ok", "{joined}");
}

#[tokio::test]
async fn the_embedded_realtime_does_not_start_without_a_key_that_holds() {
    let app = App::bare(&[]).await;
    for (settings, hint) in [
        (vec![], "PROJECTOR_REALTIME_JWT_SECRET"),
        (vec![("PROJECTOR_REALTIME_JWT_SECRET", "short")], "openssl rand"),
        (vec![("PROJECTOR_REALTIME_JWKS", "nowhere.json")], "there is no file `nowhere.json`"),
    ] {
        let mut command = app.command("run");
        command.env("PROJECTOR_REALTIME_MODE", "embedded").envs(settings);

        let output = app.output(command).await;

        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(hint), "{said}");
        assert!(!said.contains("short\""), "{said}");
    }
}
