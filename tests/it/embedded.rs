//! A private Postgres: its life, and that nothing of it stays behind.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use projector::embedded::{EmbeddedError, Options, Server};
use tokio_postgres::{Client, NoTls};

use crate::support::cluster::{Cluster, binaries, fresh_path};
use crate::support::eventually::eventually;

/// A folder for a data directory, gone when dropped.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        Self(fresh_path())
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.0.join("data"), binaries().clone());
        options.fsync = false;
        options
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn show(client: &Client, setting: &str) -> String {
    client.query_one(&format!("show {setting}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_server_starts_from_nothing_and_keeps_its_data_when_it_is_stopped() {
    let home = Home::new();
    let server = Server::start(home.options()).await.unwrap();
    let client = connect(&server.url()).await;
    assert_eq!(show(&client, "wal_level").await, "logical");
    assert_eq!(show(&client, "track_commit_timestamp").await, "on");
    client.batch_execute("create table kept as select 42 as n").await.unwrap();

    server.stop().await.unwrap();
    assert!(!home.0.join("data/postmaster.pid").exists());
    let server = Server::start(home.options()).await.unwrap();

    let row = connect(&server.url()).await.query_one("select n from kept", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
}

#[tokio::test]
async fn over_tcp_a_server_asks_for_the_password_that_its_url_holds() {
    let home = Home::new();
    let options = Options { port: Some(0), ..home.options() };
    let server = Server::start(options).await.unwrap();

    let port = server.port().unwrap();
    let wrong = format!("postgres://postgres:guess@127.0.0.1:{port}/postgres");
    let refused = tokio_postgres::connect(&wrong, NoTls).await.err().unwrap();
    let welcome = connect(&server.url()).await;

    assert_eq!(refused.code().unwrap().code(), "28P01", "invalid_password");
    assert_eq!(show(&welcome, "listen_addresses").await, "127.0.0.1");
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_and_the_first_one_named() {
    let home = Home::new();
    let first = Server::start(home.options()).await.unwrap();

    let error = Server::start(home.options()).await.unwrap_err();

    let EmbeddedError::InUse { pid, .. } = error else { panic!("{error}") };
    assert_eq!(pid, first.pid().as_raw_nonzero().to_string());
    connect(&first.url()).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();

    let options = Options { port: Some(port), ..home.options() };
    let error = Server::start(options).await.unwrap_err();

    assert_eq!(error.to_string(), format!("port {port} on 127.0.0.1 is taken"));
}

#[tokio::test]
async fn a_data_directory_of_another_version_is_left_alone() {
    let home = Home::new();
    std::fs::create_dir_all(home.0.join("data")).unwrap();
    std::fs::write(home.0.join("data/PG_VERSION"), "12\n").unwrap();

    let error = Server::start(home.options()).await.unwrap_err();

    assert!(matches!(error, EmbeddedError::OtherVersion { made_by: 12, .. }), "{error}");
}

#[tokio::test]
async fn a_setting_that_postgres_refuses_is_told_in_its_own_words() {
    let home = Home::new();
    let settings = vec![("work_mem".to_owned(), "plenty".to_owned())];

    let error = Server::start(Options { settings, ..home.options() }).await.unwrap_err();

    assert!(error.to_string().contains("invalid value for parameter \"work_mem\""), "{error}");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_one_elsewhere() {
    let home = Home::new();
    let data = home.0.join("deep".repeat(25)).join("data");

    let server = Server::start(Options { data, ..home.options() }).await.unwrap();

    connect(&server.url()).await;
}

#[tokio::test]
async fn a_path_may_hold_any_character() {
    let home = Home::new();
    let data = home.0.join("it's, \"50 %\" ü");

    let server = Server::start(Options { data, ..home.options() }).await.unwrap();

    connect(&server.socket_url()).await;
}

/// Set for the process that is to be killed: where its data directory is.
const SERVE: &str = "PROJECTOR_TEST_SERVE";

/// The test starts itself once more, as the process that is killed.
#[tokio::test]
async fn a_process_that_is_killed_leaves_no_server_behind() {
    if let Some(data) = std::env::var_os(SERVE) {
        return serve(Path::new(&data)).await;
    }
    let home = Home::new();
    let options = home.options();
    let name = "embedded::a_process_that_is_killed_leaves_no_server_behind";
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(SERVE, &options.data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line.contains("serving")));

    process.kill().unwrap();
    process.wait().unwrap();

    let lock = options.data.join("postmaster.pid");
    eventually("the server to end", async || match std::fs::read_to_string(&lock) {
        Ok(held) => Err(held),
        Err(_) => Ok(()),
    })
    .await;
    let again = Server::start(options).await.unwrap();
    connect(&again.url()).await;
}

#[allow(clippy::print_stdout, reason = "the test that started us waits for the line")]
async fn serve(data: &Path) {
    let server = Server::start(Options::new(data, binaries().clone())).await.unwrap();
    // The harness may have begun the line.
    println!("\nserving {}", server.url());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_cluster_restarted_after_a_kill_keeps_its_data_and_its_addresses() {
    let mut cluster = Cluster::start().await;
    cluster.batch("create table kept (n int); insert into kept values (1)").await;
    let (url, port) = (cluster.url().to_owned(), cluster.port());

    cluster.kill9();
    assert_eq!(cluster.pid(), None);
    cluster.restart().await;

    assert_eq!((cluster.url(), cluster.port()), (url.as_str(), port));
    let rows = connect(&url).await.query("select n from kept", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn clusters_side_by_side_share_nothing() {
    let settings = [("max_slot_wal_keep_size", "4MB")];
    let (one, other) = tokio::join!(Cluster::with(&settings), Cluster::start());

    one.batch("select pg_create_logical_replication_slot('projector', 'pgoutput')").await;

    assert_eq!(show(&one.client().await, "max_slot_wal_keep_size").await, "4MB");
    let slots = "select 1 from pg_replication_slots";
    assert!(connect(other.socket_url()).await.query(slots, &[]).await.unwrap().is_empty());
}
