//! `projector status`, the real binary against a real database.

use std::process::Output;

use projector::ident::Ident;
use projector::migrate;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::cluster::Cluster;

/// A projection that is live and one that is being rebuilt.
const PROJECTIONS: &str = "
    insert into projector.projections (name, table_name, definition_hash, state)
    values ('run_status', 'run_status', '', 'live'), ('dead_runs', 'dead_runs', '', 'rebuilding');
    insert into projector.checkpoints (projection, lsn, events)
    values ('run_status', pg_current_wal_lsn(), 7);
    insert into projector.rebuilds (projection, generation, phase, events_done, events_total)
    values ('dead_runs', 1, 'copy', 25, 100);
";

/// Runs `projector status` with nothing else configured than where the database is, and where the
/// sidecar would listen.
async fn status(database_url: &str, listen: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_projector"))
        .arg("status")
        .args(arguments)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env("DATABASE_URL", database_url)
        .env("PROJECTOR_HTTP_LISTEN", listen)
        .output()
        .await
        .unwrap()
}

/// Nothing listens there.
const NOWHERE: &str = "127.0.0.1:1";

#[tokio::test]
async fn the_database_alone_says_where_each_projection_and_the_slot_stand() {
    let cluster = Cluster::with(&[("max_slot_wal_keep_size", "64MB")]).await;
    migrate::apply(&mut cluster.client().await, &Ident::new("public").unwrap()).await.unwrap();
    cluster.batch(PROJECTIONS).await;
    // Not among writes: a slot starts where no transaction is under way.
    cluster.batch("select pg_create_logical_replication_slot('projector', 'pgoutput')").await;

    let output = status(cluster.url(), NOWHERE, &["--output", "json"]).await;

    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [dead_runs, run_status] = &report["projections"].as_array().unwrap()[..] else {
        panic!("{report}")
    };
    assert_eq!((&dead_runs["state"], &dead_runs["progress"]), (&"rebuilding".into(), &0.25.into()));
    assert_eq!(dead_runs["checkpoint"], Value::Null);
    assert_eq!((&run_status["state"], &run_status["events_total"]), (&"live".into(), &7.into()));
    assert!(run_status["lag_bytes"].is_u64(), "{run_status}");
    assert_eq!(report["slot"]["active"], false);
    assert_eq!(report["slot"]["limit_bytes"], 64 << 20, "the server's limit is the lesser one");
    assert_eq!(report["ready"], Value::Null);

    let output = status(cluster.url(), NOWHERE, &[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("slot projector  nobody reads  keeps "), "{text}");
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_said_so() {
    let cluster = Cluster::start().await;

    let output = status(cluster.url(), NOWHERE, &[]).await;

    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("`projector migrate`"), "{text}");
}

#[tokio::test]
async fn check_needs_no_database_and_passes_on_the_reasons() {
    let output = status("postgres://nobody@127.0.0.1:1/nothing", NOWHERE, &["--check"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"nothing answers at http://127.0.0.1:1\n");

    for (answer, code, said) in [
        ("200 OK\r\ncontent-length: 6\r\n\r\nready\n", 0, ""),
        ("503 No\r\ncontent-length: 9\r\n\r\nstarting\n", 1, "starting\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answering = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _read = socket.read(&mut [0; 1024]).await.unwrap();
            socket.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
        });

        let output = status("postgres://nobody@127.0.0.1:1/nothing", &address, &["--check"]).await;

        answering.await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(output.stderr, said.as_bytes());
    }
}
