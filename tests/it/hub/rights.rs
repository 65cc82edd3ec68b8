//! Who may hear what, and from when on no more.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::app::App;
use crate::support::hub::{Came, Live, Wire, anon, in_seconds, member, service, token};

fn started(workflow: &str) -> Value {
    json!([{ "type": "run_started", "payload": { "workflow": workflow } }])
}

#[tokio::test]
async fn only_members_join_a_private_topic() {
    let live = Live::start().await;
    let (project, run) = (Uuid::new_v4(), Uuid::new_v4());
    live.append(project, run, &started("deploy")).await;
    let (of_project, of_run) = (format!("project:{project}"), format!("run:{run}"));
    let unknown = format!("run:{}", Uuid::new_v4());

    for (who, may) in [
        (member(&[project]), true),
        (service(), true),
        (member(&[Uuid::new_v4()]), false),
        (anon(), false),
        // users write it themselves
        (
            token(json!({ "role": "authenticated", "user_metadata": { "projects": [project] } })),
            false,
        ),
    ] {
        let mut wire = live.connect(&anon(), "2.0.0").await;
        for topic in [&of_project, &of_run] {
            let joined = wire.join(topic, true, Some(&who)).await;
            if may {
                assert_eq!(joined["status"], "ok", "{topic}");
            } else {
                let reason = format!(
                    "Unauthorized: You do not have permissions to read from this Channel topic: {topic}"
                );
                assert_eq!(joined, json!({ "status": "error", "response": { "reason": reason } }));
            }
        }
        for none in [unknown.as_str(), "elsewhere", "run:1", "run:\0", "project:x' or true--"] {
            let joined = wire.join(none, true, Some(&who)).await;
            assert_eq!(joined["status"], "error", "{none}");
        }
        // it is another topic than the private one of that name
        assert_eq!(wire.join(&of_run, false, Some(&who)).await["status"], "ok");
        live.publish(&of_run, json!({})).await;
        assert!(wire.so_far().await.is_empty());
    }
}

#[tokio::test]
async fn a_token_that_does_not_count_is_refused_in_the_words_that_clients_know() {
    let live = Live::start().await;
    let good = token(json!({ "role": "authenticated" }));
    let (head, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", anon().rsplit_once('.').unwrap().1);
    let none = "eyJhbGciOiJub25lIn0.eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    let expired = token(json!({ "role": "anon", "exp": in_seconds(-10) }));
    let fields = token(json!({ "sub": "x" }));
    let mut wire = live.connect(&anon(), "2.0.0").await;

    for (bad, at_once, code) in [
        ("nonsense", "The token provided is not a valid JWT", "MalformedJWT: "),
        (none, "The token provided is not a valid JWT", "MalformedJWT: "),
        (forged.as_str(), "Failed to validate JWT signature", "JwtSignatureError: "),
        (fields.as_str(), "Fields `role` and `exp` are required in JWT", "InvalidJWTToken: "),
        (expired.as_str(), "Token has expired", "InvalidJWTToken: "),
    ] {
        let refused = live.try_connect(bad, "2.0.0").await.err();
        assert_eq!(refused, Some((401, json!({ "error": at_once }).to_string())));
        let joined = wire.join("news", false, Some(bad)).await;
        let reason = joined["response"]["reason"].as_str().unwrap();
        assert!(reason.starts_with(&format!("{code}{at_once}")), "{reason}");
    }
    let url = format!("ws://{}/socket/websocket?vsn=2.0.0", live.address);
    let refused = tokio_tungstenite::connect_async(url).await.unwrap_err().to_string();
    assert!(refused.contains("401"), "{refused}");
}

#[tokio::test]
async fn a_token_that_expires_ends_the_channel_and_a_new_one_in_time_does_not() {
    let live = Live::start().await;
    let project = Uuid::new_v4();
    let topic = format!("project:{project}");
    let short = |seconds| {
        let claims =
            json!({ "role": "authenticated", "exp": in_seconds(seconds), "project_id": project });
        token(claims)
    };
    let mut renews = live.connect(&anon(), "2.0.0").await;
    let mut forgets = live.connect(&anon(), "2.0.0").await;
    let soon = short(3);
    assert_eq!(renews.join(&topic, true, Some(&soon)).await["status"], "ok");
    assert_eq!(forgets.join(&topic, true, Some(&soon)).await["status"], "ok");

    let long = json!({ "access_token": short(600) });
    renews.send(&format!("realtime:{topic}"), "access_token", long).await;

    let said = forgets.next().await;
    let message = said.payload()["message"].as_str().unwrap();
    assert!(message.starts_with("Token has expired "), "{message}");
    assert_eq!(said.payload()["channel"], topic);
    assert_eq!(forgets.next().await.event(), "phx_close");

    live.publish(&topic, json!({ "after": true })).await;
    assert_eq!(renews.next().await.payload()["payload"], json!({ "after": true }));
    assert!(forgets.so_far().await.is_empty());
}

#[tokio::test]
async fn a_new_token_of_somebody_else_ends_the_channel() {
    let live = Live::start().await;
    let project = Uuid::new_v4();
    let topic = format!("project:{project}");
    let mut wire = live.connect(&anon(), "2.0.0").await;
    wire.join(&topic, true, Some(&member(&[project]))).await;

    let stranger = json!({ "access_token": member(&[]) });
    wire.send(&format!("realtime:{topic}"), "access_token", stranger).await;

    let said = wire.next().await;
    let no = format!("You do not have permissions to read from this Channel topic: {topic}");
    assert_eq!(said.payload()["message"], no);
    assert_eq!(wire.next().await.event(), "phx_close");
    live.publish(&topic, json!({})).await;
    assert!(wire.so_far().await.is_empty());
}

/// Binds `can_read` to a table, as an installation would.
async fn with_members(app: &App) -> Client {
    let client = app.client().await;
    let bind = "
        create table members (user_id uuid, project_id uuid, primary key (user_id, project_id));
        create or replace function projector.can_read(project_id uuid) returns boolean
        language sql stable security definer set search_path = pg_catalog, pg_temp as $f$
          select exists (select from public.members as m where m.project_id = can_read.project_id
            and m.user_id = (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid)
        $f$";
    client.batch_execute(bind).await.unwrap();
    client
}

fn user(id: Uuid) -> String {
    token(json!({ "role": "authenticated", "sub": id }))
}

#[tokio::test]
async fn who_is_no_member_any_more_is_cut_off_though_the_token_still_counts() {
    let app = App::shipped().await;
    let client = with_members(&app).await;
    let live = Live::with(app, &[("PROJECTOR_REALTIME_RECHECK", "100ms")]).await;
    let (project, stays, goes) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let add = "insert into members values ($1, $3), ($2, $3)";
    client.execute(add, &[&stays, &goes, &project]).await.unwrap();
    let topic = format!("project:{project}");
    let mut kept = live.connect(&user(stays), "2.0.0").await;
    let mut cut = live.connect(&user(goes), "2.0.0").await;
    assert_eq!(kept.join(&topic, true, None).await["status"], "ok");
    assert_eq!(cut.join(&topic, true, None).await["status"], "ok");

    client.execute("delete from members where user_id = $1", &[&goes]).await.unwrap();

    assert_eq!(cut.next().await.event(), "system");
    assert_eq!(cut.next().await.event(), "phx_close");
    live.publish(&topic, json!({ "n": 1 })).await;
    assert!(cut.so_far().await.is_empty());
    assert_eq!(kept.next().await.payload()["payload"], json!({ "n": 1 }));
    assert_eq!(cut.join(&topic, true, None).await["status"], "error");
}

#[tokio::test]
async fn a_database_that_is_away_lets_nobody_in_and_throws_nobody_out() {
    let app = App::shipped().await;
    let mut live = Live::with(app, &[("PROJECTOR_REALTIME_RECHECK", "100ms")]).await;
    let project = Uuid::new_v4();
    let topic = format!("project:{project}");
    let mut wire = live.connect(&member(&[project]), "2.0.0").await;
    assert_eq!(wire.join(&topic, true, None).await["status"], "ok");

    live.app.cluster.stop().await;

    let mut late = live.connect(&member(&[project]), "2.0.0").await;
    let joined = late.join(&topic, true, None).await;
    let reason = joined["response"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("UnableToConnectToProject: "), "{reason}");
    live.publish(&topic, json!({ "n": 1 })).await;
    assert_eq!(wire.next().await.payload()["payload"], json!({ "n": 1 }));

    live.app.cluster.restart().await;
    assert_eq!(late.join(&topic, true, None).await["status"], "ok");
}

/// Somebody with a connection, who joins and leaves, is given tokens and memberships.
struct Somebody {
    wire: Wire,
    id: Uuid,
    /// Which topics are joined, by number.
    joined: Vec<bool>,
}

#[tokio::test]
async fn nobody_hears_another_project_whatever_the_order_of_joins_tokens_and_memberships() {
    const TOPICS: usize = 6;
    let app = App::shipped().await;
    let client = with_members(&app).await;
    // Only on demand: when a membership ends is what the test above is about. Beacons would be heard
    // besides what is published here.
    let settings = [("PROJECTOR_REALTIME_RECHECK", "1h"), ("PROJECTOR_REALTIME_BEACON", "0s")];
    let live = Live::with(app, &settings).await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let projects: Vec<_> = (0..TOPICS / 2).map(|_| Uuid::new_v4()).collect();
    let mut topics = Vec::new();
    for project in &projects {
        let run = Uuid::new_v4();
        live.append(*project, run, &started("deploy")).await;
        topics.extend([format!("project:{project}"), format!("run:{run}")]);
    }
    let users: Vec<_> = (0..4).map(|_| Uuid::new_v4()).collect();
    let mut people = Vec::new();
    for (index, id) in users.iter().enumerate() {
        let version = if index % 2 == 0 { "2.0.0" } else { "1.0.0" };
        let wire = live.connect(&anon(), version).await;
        people.push(Somebody { wire, id: *id, joined: vec![false; TOPICS] });
    }
    let is_member = "select exists (select from members where user_id = $1 and project_id = $2)";
    let mut heard = 0;

    for round in 0..150 {
        let person = random.usize(..people.len());
        let number = random.usize(..TOPICS);
        let project = projects[number / 2];
        let full = format!("realtime:{}", topics[number]);
        let it = &mut people[person];
        match random.u8(..5) {
            0 => {
                let add = "insert into members values ($1, $2) on conflict do nothing";
                client.execute(add, &[&it.id, &project]).await.unwrap();
            }
            // a membership ends, and the next token of the user finds that out, topic by topic
            1 => {
                let drop = "delete from members where user_id = $1 and project_id = $2";
                client.execute(drop, &[&it.id, &project]).await.unwrap();
                for number in [number / 2 * 2, number / 2 * 2 + 1] {
                    if std::mem::take(&mut it.joined[number]) {
                        let full = format!("realtime:{}", topics[number]);
                        let token = json!({ "access_token": user(it.id) });
                        it.wire.send(&full, "access_token", token).await;
                        while it.wire.next().await.event() != "phx_close" {}
                    }
                }
            }
            2 => {
                let row = client.query_one(is_member, &[&it.id, &project]).await.unwrap();
                let may: bool = row.get(0);
                let answer = it.wire.join(&topics[number], true, Some(&user(it.id))).await;
                assert_eq!(answer["status"] == "ok", may, "seed {seed}, round {round}");
                it.joined[number] = may;
            }
            3 => {
                let answer = it.wire.ask(&full, "phx_leave", json!({})).await.1;
                assert_eq!(answer["status"], "ok");
                it.joined[number] = false;
            }
            // the connection passes to another user
            _ => {
                it.id = users[random.usize(..users.len())];
                for number in 0..TOPICS {
                    if !it.joined[number] {
                        continue;
                    }
                    let full = format!("realtime:{}", topics[number]);
                    let token = json!({ "access_token": user(it.id) });
                    it.wire.send(&full, "access_token", token).await;
                    let project = &projects[number / 2];
                    let row = client.query_one(is_member, &[&it.id, project]).await.unwrap();
                    it.joined[number] = row.get(0);
                    if !it.joined[number] {
                        while it.wire.next().await.event() != "phx_close" {}
                    }
                }
            }
        }

        for topic in &topics {
            live.publish(topic, json!({ "topic": topic, "round": round })).await;
        }
        for it in &mut people {
            let mut wanted: Vec<_> =
                (0..TOPICS).filter(|number| it.joined[*number]).map(|it| &topics[it]).collect();
            wanted.sort();
            let mut got = Vec::new();
            // A new token may still be looked at; what waits for it comes after.
            while got.len() < wanted.len() {
                got.extend(of_round(it.wire.next().await, round));
            }
            got.extend(it.wire.so_far().await.into_iter().filter_map(|came| of_round(came, round)));
            got.sort();
            let got: Vec<_> = got.iter().collect();
            assert_eq!(got, wanted, "seed {seed}, round {round}");
            heard += got.len();
        }
    }
    assert!(0 < heard, "seed {seed}: nobody heard anything");
}

/// The topic of a broadcast of this round; what else comes is no broadcast.
fn of_round(came: Came, round: i32) -> Option<String> {
    let Came::Text { event, payload, .. } = came else { panic!("{came:?}") };
    (event == "broadcast").then(|| {
        assert_eq!(payload["payload"]["round"], round);
        payload["payload"]["topic"].as_str().unwrap().to_owned()
    })
}

#[tokio::test]
async fn nothing_is_delivered_until_it_is_known_what_a_new_token_may_hear() {
    let app = App::shipped().await;
    let client = with_members(&app).await;
    let live = Live::with(app, &[("PROJECTOR_REALTIME_RECHECK", "1h")]).await;
    let (project, first, second) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let add = "insert into members values ($1, $3), ($2, $3)";
    client.execute(add, &[&first, &second, &project]).await.unwrap();
    let topic = format!("project:{project}");
    for (next, may) in [(second, true), (Uuid::new_v4(), false)] {
        let mut wire = live.connect(&user(first), "2.0.0").await;
        assert_eq!(wire.join(&topic, true, None).await["status"], "ok");
        // the question waits until this transaction ends
        client.batch_execute("begin; lock table members").await.unwrap();
        let token = json!({ "access_token": user(next) });
        wire.send(&format!("realtime:{topic}"), "access_token", token).await;
        let waits =
            "select count(*) from pg_locks where not granted and relation = 'members'::regclass";
        live.app.becomes(waits, "1").await;

        live.publish(&topic, json!({ "secret": true })).await;
        let early = wire.so_far().await;
        client.batch_execute("commit").await.unwrap();

        assert!(early.is_empty(), "{early:?}");
        let came = wire.next().await;
        if may {
            assert_eq!(came.payload()["payload"], json!({ "secret": true }));
        } else {
            assert_eq!(came.event(), "system");
            assert_eq!(wire.next().await.event(), "phx_close");
        }
        assert!(wire.so_far().await.is_empty());
    }
}
