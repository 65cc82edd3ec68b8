//! Who may do what: on stock Postgres, where Supabase's roles are, and as the sidecar.

use projector::ident::Ident;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::support::cluster::Cluster;
use crate::support::supabase;
use crate::write_side::{PROJECT, append, append_to, migrated, refused};

#[tokio::test]
async fn on_supabase_users_read_their_projects_and_only_the_service_writes() {
    let cluster = Cluster::start().await;
    cluster.batch(supabase::ROLES).await;
    let mut client = cluster.client().await;
    projector::migrate::apply(&mut client, &Ident::new("public").unwrap()).await.unwrap();
    let run = Uuid::now_v7();

    client.batch_execute("set role service_role").await.unwrap();
    append(&client, run, Some(0), r#"[{"type":"a"}]"#).await.unwrap();
    append_to(&client, Uuid::from_u128(0xb), Uuid::new_v4(), Some(0), r#"[{"type":"a"}]"#)
        .await
        .unwrap();

    for role in ["anon", "authenticated"] {
        client.batch_execute(&format!("set role {role}")).await.unwrap();
        for statement in [
            "insert into events (project_id, run_id, version, type) values (gen_random_uuid(), gen_random_uuid(), 1, 'a')",
            "update events set type = 'b'",
            "delete from events",
            "truncate events",
            "select append_events(gen_random_uuid(), gen_random_uuid(), 0, '[]')",
            "select nextval('events_position_seq')",
            "select * from projector.events_default",
            "select * from projector.checkpoints",
            "select projector.ensure_partitions()",
            "select projector.advance('{}', '{}', '0/0', now(), 0)",
            "select projector.drop_events_before(now())",
            "create table projector.mine ()",
        ] {
            assert_eq!(refused(&client, statement).await.0, "42501", "{role}: {statement}");
        }
    }

    let own = PROJECT.to_string();
    let cases = [
        ("anon", String::new(), 0),
        ("anon", r#"{"role":"anon"}"#.to_owned(), 0),
        ("authenticated", r#"{"role":"authenticated"}"#.to_owned(), 0),
        ("authenticated", format!(r#"{{"project_id":"{own}"}}"#), 1),
        ("authenticated", format!(r#"{{"project_ids":["{own}"]}}"#), 1),
        ("authenticated", format!(r#"{{"app_metadata":{{"projects":["x","{own}"]}}}}"#), 1),
        ("authenticated", format!(r#"{{"app_metadata":{{"project_id":"{own}"}}}}"#), 1),
        ("authenticated", format!(r#"{{"user_metadata":{{"projects":["{own}"]}}}}"#), 0),
        ("authenticated", r#"{"role":"service_role"}"#.to_owned(), 2),
    ];
    for (role, claims, expected) in cases {
        client
            .batch_execute(&format!("set role {role}; set request.jwt.claims = '{claims}'"))
            .await
            .unwrap();
        let seen: i64 = client.query_one("select count(*) from events", &[]).await.unwrap().get(0);
        assert_eq!(seen, expected, "{role} {claims}");
    }
}

#[tokio::test]
async fn without_supabase_claims_open_nothing_to_a_plain_role() {
    let (_cluster, client) = migrated().await;
    append(&client, Uuid::now_v7(), Some(0), r#"[{"type":"a"}]"#).await.unwrap();
    client
        .batch_execute(
            "create role report; grant select on events to report; set role report;
             set request.jwt.claims = '{\"role\": \"service_role\"}'",
        )
        .await
        .unwrap();

    let seen: i64 = client.query_one("select count(*) from events", &[]).await.unwrap().get(0);

    assert_eq!(seen, 0);
}

#[tokio::test]
async fn the_role_projector_can_do_its_work_and_no_more() {
    let (cluster, owner) = migrated().await;
    append(&owner, Uuid::now_v7(), Some(0), r#"[{"type":"a"}]"#).await.unwrap();
    owner.batch_execute("alter role projector password 'p'").await.unwrap();
    let mut config: tokio_postgres::Config = cluster.url().parse().unwrap();
    config.user("projector").password("p");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);

    for statement in [
        "create table public.read_model (run_id uuid) partition by list (run_id)",
        "create table projector.read_model_0 partition of public.read_model default",
        "insert into projector.read_model_0 values (gen_random_uuid())",
        "insert into projector.checkpoints (projection, lsn) values ('read_model', '0/1')",
        "select projector.advance('{read_model}', '{0/1}', '0/2', now(), 1)",
        "insert into projector.projections (name, table_name, definition_hash, state) values ('a', 'a', 'h', 'live')",
        "insert into projector.sources (slot, system_identifier, timeline) values ('s', '1', 1)",
        "insert into projector.audit_log (verb) values ('rebuild')",
        "delete from projector.audit_log",
        "select projector.ensure_partitions(4)",
        "select pg_create_logical_replication_slot('own', 'pgoutput')",
        "select pg_drop_replication_slot('own')",
    ] {
        client
            .batch_execute(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let seen: i64 = client.query_one("select count(*) from events", &[]).await.unwrap().get(0);
    assert_eq!(seen, 1);
    let schema = Ident::new("public").unwrap();
    projector::migrate::require_current(&client, &schema).await.unwrap();

    for statement in [
        "insert into events (project_id, run_id, version, type) values (gen_random_uuid(), gen_random_uuid(), 1, 'a')",
        "select append_events(gen_random_uuid(), gen_random_uuid(), 0, '[]')",
        "delete from events",
        "truncate events",
        "alter table events disable trigger all",
        "select projector.drop_events_before(now())",
        "drop table projector.events_default",
        "insert into projector.schema_migrations (version, name) values ('1', 'x')",
        "create role another",
    ] {
        assert_eq!(refused(&client, statement).await.0, "42501", "{statement}");
    }
}

#[tokio::test]
async fn a_worker_of_its_own_needs_what_the_migration_says() {
    let (_cluster, client) = migrated().await;
    client
        .batch_execute(
            "create role worker;
             grant select, insert on public.events to worker;
             grant execute on function public.append_events to worker;
             create policy worker on public.events to worker using (true) with check (true);
             set role worker",
        )
        .await
        .unwrap();
    let run = Uuid::now_v7();

    append(&client, run, Some(0), r#"[{"type":"a"},{"type":"b"}]"#).await.unwrap();
    append(&client, run, Some(2), r#"[{"type":"a"}]"#).await.unwrap();

    assert_eq!(refused(&client, "delete from events").await.0, "42501");
}
