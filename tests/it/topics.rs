//! Who receives a Realtime topic and who may send to it, asked as Supabase Realtime asks: by a row in
//! `realtime.messages` that is rolled back.

use projector::ident::Ident;
use projector::migrate::{apply, print};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::cluster::Cluster;
use crate::support::supabase;
use crate::write_side::{PROJECT, append, append_to, migrated, refused};

const OTHER_PROJECT: Uuid = Uuid::from_u128(0xb);

/// A caller: the role and the claims of a token.
#[derive(Clone, Debug)]
struct Caller {
    role: &'static str,
    claims: String,
}

impl Caller {
    fn new(role: &'static str) -> Self {
        Self { role, claims: format!(r#"{{"role": "{role}", "sub": "{}"}}"#, Uuid::from_u128(9)) }
    }

    fn member_of(project: Uuid) -> Self {
        let claims = format!(
            r#"{{"role": "authenticated", "app_metadata": {{"projects": ["{project}"]}}}}"#
        );
        Self { role: "authenticated", claims }
    }

    /// Becomes this caller until the transaction ends, with `topic` the one to be joined.
    async fn enter(&self, client: &Client, topic: &str) {
        let settings =
            "select set_config('role', $1, true), set_config('realtime.topic', $2, true),
             set_config('request.jwt.claims', $3, true)";
        client.execute(settings, &[&self.role, &topic, &self.claims]).await.unwrap();
    }
}

/// Whether the caller may join the private channel `topic`.
async fn may_receive(client: &Client, caller: &Caller, topic: &str) -> bool {
    let probe = Uuid::new_v4();
    client.batch_execute("begin").await.unwrap();
    client
        .execute(
            "insert into realtime.messages (id, topic, extension) values ($1, $2, 'broadcast')",
            &[&probe, &topic],
        )
        .await
        .unwrap();
    caller.enter(client, topic).await;
    let seen = client.query("select id from realtime.messages where id = $1", &[&probe]).await;
    client.batch_execute("rollback").await.unwrap();
    !seen.unwrap().is_empty()
}

/// Whether the caller may send to the private channel `topic`; else the message of the refusal.
async fn may_send(client: &Client, caller: &Caller, topic: &str) -> Result<(), String> {
    client.batch_execute("begin").await.unwrap();
    caller.enter(client, topic).await;
    let sent = client
        .execute(
            "insert into realtime.messages (topic, extension) values ($1, 'broadcast')",
            &[&topic],
        )
        .await;
    client.batch_execute("rollback").await.unwrap();
    sent.map(drop).map_err(|error| error.as_db_error().unwrap().message().to_owned())
}

async fn can_read_topic(client: &Client, topic: Option<&str>) -> bool {
    client.query_one("select projector.can_read_topic($1)", &[&topic]).await.unwrap().get(0)
}

/// A Supabase project, migrated, with a run of ours and one of another project.
async fn supabase_with_runs() -> (Cluster, Client, Uuid, Uuid) {
    let cluster = Cluster::start().await;
    cluster.batch(supabase::ROLES).await;
    cluster.batch(supabase::REALTIME).await;
    let mut client = cluster.client().await;
    let report = apply(&mut client, &Ident::new("public").unwrap()).await.unwrap();
    assert_eq!(report.advice, Vec::<String>::new());
    let (ours, others) = (Uuid::now_v7(), Uuid::new_v4());
    append(&client, ours, Some(0), r#"[{"type":"run_started"}]"#).await.unwrap();
    append_to(&client, OTHER_PROJECT, others, Some(0), r#"[{"type":"run_started"}]"#)
        .await
        .unwrap();
    (cluster, client, ours, others)
}

/// Texts that are no topic, or one of nobody.
fn nobodys() -> Vec<String> {
    let id = PROJECT.to_string();
    vec![
        String::new(),
        "run".into(),
        "run:".into(),
        format!("run:{}", Uuid::new_v4()),
        format!("project:{}", Uuid::new_v4()),
        format!("project:{}x", id),
        format!("project:{id}\n"),
        format!("project: {id}"),
        format!("project:{{{id}}}"),
        format!("project:{}", id.to_uppercase()),
        format!("PROJECT:{id}"),
        format!("project:{}", id.replace('-', "")),
        format!("realtime:project:{id}"),
        format!("workflow:{id}"),
        "project:\u{0661}".into(),
        "project:'; drop table events; --".into(),
        "x".repeat(5000),
    ]
}

#[tokio::test]
async fn members_receive_their_topics_and_nobody_else_does() {
    let (_cluster, client, ours, others) = supabase_with_runs().await;
    let own = [format!("run:{ours}"), format!("project:{PROJECT}")];
    let foreign = [format!("run:{others}"), format!("project:{OTHER_PROJECT}")];
    let member = Caller::member_of(PROJECT);
    let nobody = [Caller::new("anon"), Caller::new("authenticated")];

    for topic in &own {
        assert!(may_receive(&client, &member, topic).await, "{topic}");
        assert!(!may_receive(&client, &Caller::member_of(OTHER_PROJECT), topic).await, "{topic}");
    }
    for topic in &foreign {
        assert!(!may_receive(&client, &member, topic).await, "{topic}");
    }
    for topic in own.iter().chain(&foreign) {
        assert!(may_receive(&client, &Caller::new("service_role"), topic).await, "{topic}");
        for caller in &nobody {
            assert!(!may_receive(&client, caller, topic).await, "{caller:?} {topic}");
        }
    }
    for topic in nobodys() {
        assert!(!may_receive(&client, &member, &topic).await, "{topic:?}");
    }
    // what somebody joins is what he is asked about, not what the claims or the row say
    client.batch_execute("begin").await.unwrap();
    let row = "insert into realtime.messages (topic, extension) values ($1, 'broadcast')";
    client.execute(row, &[&foreign[0]]).await.unwrap();
    member.enter(&client, &own[0]).await;
    let seen = client.query("select from realtime.messages", &[]).await.unwrap();
    assert!(seen.is_empty());
    client.batch_execute("rollback").await.unwrap();
}

#[tokio::test]
async fn projector_sends_and_no_member_does() {
    let (_cluster, client, ours, _) = supabase_with_runs().await;
    let (run, project) = (format!("run:{ours}"), format!("project:{PROJECT}"));

    for topic in [&run, &project] {
        let projector = Caller { role: "projector", claims: String::new() };
        assert_eq!(may_send(&client, &projector, topic).await, Ok(()));
        assert_eq!(may_send(&client, &Caller::new("service_role"), topic).await, Ok(()));
        let refusal = "new row violates row-level security policy for table \"messages\"";
        for caller in
            [Caller::member_of(PROJECT), Caller::new("authenticated"), Caller::new("anon")]
        {
            let refused = may_send(&client, &caller, topic).await.unwrap_err();
            assert_eq!(refused, refusal, "{caller:?} {topic}");
        }
    }
    client.batch_execute("set role projector").await.unwrap();
    let presence = "insert into realtime.messages (topic, extension) values ('a', 'presence')";
    assert_eq!(refused(&client, presence).await.0, "42501");
    assert_eq!(refused(&client, "select from realtime.messages").await.0, "42501");
}

#[tokio::test]
async fn a_policy_for_every_topic_does_not_open_ours() {
    let (cluster, client, ours, others) = supabase_with_runs().await;
    cluster
        .batch(
            "create policy chat on realtime.messages to authenticated using (true) with check (true)",
        )
        .await;
    let (own, foreign) = (format!("run:{ours}"), format!("run:{others}"));
    let member = Caller::member_of(PROJECT);

    assert!(may_receive(&client, &member, "chat:lobby").await);
    assert_eq!(may_send(&client, &member, "chat:lobby").await, Ok(()));
    assert!(may_receive(&client, &member, &own).await);
    assert!(!may_receive(&client, &member, &foreign).await);
    for topic in [&own, &foreign] {
        let refused = may_send(&client, &member, topic).await.unwrap_err();
        assert!(refused.contains("policy \"projector_topics\""), "{refused}");
    }
    // nor can a message be turned into one of ours
    client.batch_execute("begin").await.unwrap();
    let chat =
        "insert into realtime.messages (topic, extension) values ('chat:lobby', 'broadcast')";
    client.batch_execute(chat).await.unwrap();
    member.enter(&client, &own).await;
    let forged = client.execute("update realtime.messages set topic = $1", &[&own]).await;
    assert!(forged.unwrap_err().as_db_error().unwrap().message().contains("row-level security"));
    client.batch_execute("rollback").await.unwrap();
}

#[tokio::test]
async fn a_topic_is_readable_when_its_project_is() {
    let (_cluster, client) = migrated().await;
    let run = Uuid::now_v7();
    append(&client, run, Some(0), r#"[{"type":"a"},{"type":"b"}]"#).await.unwrap();
    let (run, project) = (format!("run:{run}"), format!("project:{PROJECT}"));

    assert!(can_read_topic(&client, Some(&run)).await);
    assert!(can_read_topic(&client, Some(&project)).await);
    assert!(!can_read_topic(&client, None).await);
    // of the projects of nobody, `can_read` grants all to whoever projector belongs to
    for topic in nobodys().iter().filter(|it| !it.starts_with("project:") || it.len() != 44) {
        assert!(!can_read_topic(&client, Some(topic)).await, "{topic:?}");
    }

    // projector asks on behalf of a token
    client.batch_execute("set role projector").await.unwrap();
    for (claims, expected) in [
        (format!(r#"{{"role": "authenticated", "project_id": "{PROJECT}"}}"#), true),
        (format!(r#"{{"role": "authenticated", "project_id": "{OTHER_PROJECT}"}}"#), false),
        (r#"{"role": "service_role"}"#.to_owned(), true),
        (r#"{"role": "anon"}"#.to_owned(), false),
    ] {
        let claim = "select set_config('request.jwt.claims', $1, false)";
        client.execute(claim, &[&claims]).await.unwrap();
        assert_eq!(can_read_topic(&client, Some(&run)).await, expected, "{claims}");
        assert_eq!(can_read_topic(&client, Some(&project)).await, expected, "{claims}");
    }
}

#[tokio::test]
async fn who_may_not_read_the_events_still_has_his_topics_and_learns_of_no_other() {
    let (cluster, client, ours, others) = supabase_with_runs().await;
    cluster.batch("revoke select on public.events from authenticated").await;
    cluster.batch("drop policy events_can_read on public.events").await;
    let member = Caller::member_of(PROJECT);

    assert!(may_receive(&client, &member, &format!("run:{ours}")).await);
    assert!(!may_receive(&client, &member, &format!("run:{others}")).await);
    client.batch_execute("begin").await.unwrap();
    member.enter(&client, "").await;
    let rows = client.query("select run_id from projector.readable_runs", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|it| it.get(0)).collect::<Vec<Uuid>>(), [ours]);
}

#[tokio::test]
async fn a_membership_table_of_ones_own_decides_about_topics_too() {
    let (cluster, client, ours, others) = supabase_with_runs().await;
    let (user, stranger) = (Uuid::from_u128(1), Uuid::from_u128(2));
    cluster
        .batch(&format!(
            "create table public.members (project_id uuid, user_id uuid);
             insert into public.members values ('{PROJECT}', '{user}');
             create or replace function projector.can_read(project_id uuid) returns boolean
             language sql stable security definer set search_path = pg_catalog, pg_temp as $f$
               select exists (select from public.members as m
                 where m.project_id = can_read.project_id and m.user_id = (select auth.uid()))
             $f$"
        ))
        .await;
    let caller = |user: Uuid| Caller {
        role: "authenticated",
        claims: format!(r#"{{"role": "authenticated", "sub": "{user}"}}"#),
    };
    let own = format!("run:{ours}");

    assert!(may_receive(&client, &caller(user), &own).await);
    assert!(!may_receive(&client, &caller(user), &format!("run:{others}")).await);
    assert!(!may_receive(&client, &caller(stranger), &own).await);

    cluster.batch("delete from public.members").await;
    assert!(!may_receive(&client, &caller(user), &own).await);
}

#[tokio::test]
async fn realtime_that_comes_later_or_anew_is_bound_by_the_next_migrate() {
    let cluster = Cluster::start().await;
    let public = Ident::new("public").unwrap();
    let mut client = cluster.client().await;
    client.batch_execute(&print(&public).unwrap()).await.unwrap();
    let policies = "select count(*) from pg_policy where polrelid = 'realtime.messages'::regclass";

    cluster.batch(supabase::ROLES).await;
    for _ in 0..2 {
        cluster.batch("drop schema if exists realtime cascade").await;
        cluster.batch("drop role if exists supabase_realtime_admin").await;
        cluster.batch(supabase::REALTIME).await;
        let unbound = client.query("select projector.realtime_bindings()", &[]).await.unwrap();
        assert_eq!(unbound.len(), 6);

        let first = apply(&mut client, &public).await.unwrap();
        let second = apply(&mut client, &public).await.unwrap();

        assert_eq!((first.advice, second.advice), (vec![], vec![]));
        let bound: i64 = client.query_one(policies, &[]).await.unwrap().get(0);
        assert_eq!(bound, 3);
    }
}

#[tokio::test]
async fn a_role_that_does_not_own_realtime_is_told_what_its_owner_must_run() {
    let cluster = Cluster::start().await;
    cluster.batch(supabase::ROLES).await;
    cluster.batch(supabase::REALTIME).await;
    cluster
        .batch(
            "create role plain createrole replication; grant plain to postgres;
             grant create on database postgres to plain; grant create, usage on schema public to plain;
             grant select on realtime.messages to plain",
        )
        .await;
    let public = Ident::new("public").unwrap();
    let mut client = cluster.client().await;
    client.batch_execute("set role plain").await.unwrap();

    let report = apply(&mut client, &public).await.unwrap();

    let about: Vec<_> = report.advice.iter().filter(|it| it.contains("realtime")).collect();
    assert_eq!(about.len(), 5, "{:?}", report.advice);
    client.batch_execute("reset role").await.unwrap();
    for statement in about {
        client.batch_execute(statement).await.unwrap();
    }
    client.batch_execute("set role plain").await.unwrap();
    let report = apply(&mut client, &public).await.unwrap();
    assert!(!report.advice.iter().any(|it| it.contains("realtime")), "{:?}", report.advice);
}
