//! The schema is brought up to date once, whoever does it and however often.

use futures_util::future::join;
use projector::ident::Ident;
use projector::migrate::{MIGRATIONS, MigrateError, apply, plan, print, require_current};
use tokio_postgres::{Client, NoTls};

use crate::support::cluster::Cluster;

fn public() -> Ident {
    Ident::new("public").unwrap()
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_second_migrate_finds_nothing_to_do() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    assert_eq!(plan(&client).await.unwrap().len(), MIGRATIONS.len());
    let before = require_current(&client, &public()).await.unwrap_err();

    let first = apply(&mut client, &public()).await.unwrap();
    let second = apply(&mut client, &public()).await.unwrap();

    assert!(
        matches!(before, MigrateError::NotCurrent { missing, .. } if missing == MIGRATIONS.len())
    );
    assert_eq!(first.applied.len(), MIGRATIONS.len());
    assert_eq!(first.advice, Vec::<String>::new());
    assert!(second.applied.is_empty());
    assert!(plan(&client).await.unwrap().is_empty());
    require_current(&client, &public()).await.unwrap();
}

#[tokio::test]
async fn every_file_runs_again_without_harm() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    apply(&mut client, &public()).await.unwrap();
    client
        .batch_execute(
            "select append_events(gen_random_uuid(), gen_random_uuid(), 0, '[{\"type\": \"a\"}]')",
        )
        .await
        .unwrap();

    for migration in MIGRATIONS {
        client.batch_execute(migration.sql).await.unwrap();
    }

    assert_eq!(count(&client, "select count(*) from events").await, 1);
    require_current(&client, &public()).await.unwrap();
}

#[tokio::test]
async fn two_who_migrate_at_once_apply_each_file_once() {
    let cluster = Cluster::start().await;
    let (mut one, mut other) = (cluster.client().await, cluster.client().await);

    let schema = public();
    let (first, second) = join(apply(&mut one, &schema), apply(&mut other, &schema)).await;

    let mut versions: Vec<_> = first
        .unwrap()
        .applied
        .into_iter()
        .chain(second.unwrap().applied)
        .map(|it| it.version)
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, MIGRATIONS.iter().map(|it| it.version).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    apply(&mut client, &public()).await.unwrap();
    client
        .batch_execute("insert into projector.schema_migrations (version, name) values ('29990101000000', 'later')")
        .await
        .unwrap();

    let applied = apply(&mut client, &public()).await.unwrap_err();
    let running = require_current(&client, &public()).await.unwrap_err();

    assert!(matches!(applied, MigrateError::Newer { .. }), "{applied}");
    assert!(running.to_string().contains("29990101000000"), "{running}");
}

#[tokio::test]
async fn a_file_edited_after_it_was_applied_is_noticed() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    apply(&mut client, &public()).await.unwrap();
    client
        .batch_execute(
            "update projector.schema_migrations set checksum = 'other' where name = 'append_events'",
        )
        .await
        .unwrap();

    let error = plan(&client).await.unwrap_err();

    assert!(matches!(error, MigrateError::Edited { name: "append_events", .. }), "{error}");
}

#[tokio::test]
async fn files_applied_by_another_tool_are_adopted() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    client.batch_execute(&print(&public()).unwrap()).await.unwrap();
    require_current(&client, &public()).await.unwrap();

    let report = apply(&mut client, &public()).await.unwrap();

    assert!(report.applied.is_empty());
    let unchecked = "select count(*) from projector.schema_migrations where checksum is null";
    assert_eq!(count(&client, unchecked).await, 0);
}

#[tokio::test]
async fn a_failing_file_leaves_nothing_of_itself() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    client.batch_execute("create view public.events as select 1 as one").await.unwrap();

    let error = apply(&mut client, &public()).await.unwrap_err();

    assert!(matches!(error, MigrateError::Failed { name: "events", .. }), "{error}");
    assert_eq!(plan(&client).await.unwrap().len(), MIGRATIONS.len() - 1);
    let guard = "select count(*) from pg_proc where proname = 'refuse_change'";
    assert_eq!(count(&client, guard).await, 0);
}

#[tokio::test]
async fn events_can_live_in_another_schema() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    let schema = Ident::new("order").unwrap();

    apply(&mut client, &schema).await.unwrap();

    let position: i64 = client
        .query_one(
            "select position from \"order\".append_events(gen_random_uuid(), gen_random_uuid(), 0, '[{\"type\": \"a\"}]')",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(position, 1);
    require_current(&client, &schema).await.unwrap();
    let elsewhere = require_current(&client, &public()).await.unwrap_err();
    assert!(matches!(elsewhere, MigrateError::OtherSchema(_)), "{elsewhere}");
}

#[tokio::test]
async fn a_role_that_may_not_grant_replication_is_told_the_statement() {
    let cluster = Cluster::start().await;
    cluster.batch("create role deployer login createrole password 'd'").await;
    cluster.batch("create database app owner deployer").await;
    let mut config: tokio_postgres::Config = cluster.socket_url().parse().unwrap();
    config.user("deployer").password("d").dbname("app");
    let (mut client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);

    let report = apply(&mut client, &public()).await.unwrap();
    let advice = report.advice;
    assert_eq!(advice.len(), 1, "{advice:?}");
    assert!(advice[0].contains("role projector"), "{advice:?}");
    cluster.batch(&advice[0]).await;
    let again = apply(&mut client, &public()).await.unwrap();

    assert!(again.advice.is_empty());
    assert_eq!(
        count(&client, "select count(*) from pg_roles where rolname = 'projector' and rolreplication and rolcanlogin")
            .await,
        1
    );
}

#[tokio::test]
async fn a_publication_that_lost_the_table_or_publishes_too_much_is_mended() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    apply(&mut client, &public()).await.unwrap();
    client
        .batch_execute(
            "alter publication projector drop table public.events;
             alter publication projector set (publish = 'insert, update', publish_via_partition_root = false)",
        )
        .await
        .unwrap();

    apply(&mut client, &public()).await.unwrap();

    let sound =
        "select count(*) from pg_publication_tables as t join pg_publication as p using (pubname)
        where pubname = 'projector' and t.tablename = 'events' and pubinsert and not pubupdate
          and not pubdelete and not pubtruncate and pubviaroot";
    assert_eq!(count(&client, sound).await, 1);
}

#[tokio::test]
async fn a_replaced_can_read_survives_the_next_migrate() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client().await;
    apply(&mut client, &public()).await.unwrap();
    client
        .batch_execute(
            "create or replace function projector.can_read(project_id uuid) returns boolean
             language sql stable as 'select project_id is not null'",
        )
        .await
        .unwrap();

    for migration in MIGRATIONS {
        client.batch_execute(migration.sql).await.unwrap();
    }
    apply(&mut client, &public()).await.unwrap();

    let kept =
        "select count(*) from pg_proc where proname = 'can_read' and prosrc like '%is not null%'";
    assert_eq!(count(&client, kept).await, 1);
}
