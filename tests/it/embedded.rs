//! A private Postgres: its life, and that nothing of it stays behind.

use crate::support::cluster::Cluster;

#[tokio::test]
async fn a_cluster_restarted_after_a_kill_keeps_its_data_and_its_addresses() {
    let mut cluster = Cluster::start().await;
    cluster.batch("create table kept (n int); insert into kept values (1)").await;
    let url = cluster.url().to_owned();

    cluster.kill9();
    cluster.restart().await;

    let rows = cluster.client().await.query("select n from kept", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(cluster.url(), url);
}
