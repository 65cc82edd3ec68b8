//! The log as a stream, from a real server.

use std::time::Duration;

use projector::ident::Ident;
use projector::lsn::Lsn;
use projector::pg::Class;
use projector::wal::slot::Ensured;
use projector::wal::{Frame, Reason, ReplicationConnection, Stream, StreamOptions, WalError};
use tokio::time::timeout;

use crate::pg::settings;
use crate::support::cluster::Cluster;
use crate::support::eventually::{eventually, limit};

pub(crate) const TABLE: &str =
    "create table events (position bigint generated always as identity, payload text);
                     create publication projector for table events;";
/// Longer than any test waits for a slot on purpose.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn name(text: &str) -> Ident {
    Ident::new(text).unwrap()
}

async fn replication(cluster: &Cluster) -> ReplicationConnection {
    ReplicationConnection::connect(&settings(cluster.socket_url()), "projector").await.unwrap()
}

async fn try_start(cluster: &Cluster, slot: &str) -> Result<Stream, WalError> {
    let options = StreamOptions::new(name("projector"));
    replication(cluster).await.start(&name(slot), Lsn::ZERO, &options).await
}

/// A stream from a new slot `s` on.
async fn stream(cluster: &Cluster) -> Stream {
    cluster.batch(TABLE).await;
    replication(cluster).await.ensure_slot(&name("s"), PATIENCE).await.unwrap();
    try_start(cluster, "s").await.unwrap()
}

/// The plugin's messages up to the first commit, and where that ends.
pub(crate) async fn transaction(stream: &mut Stream) -> (Vec<Vec<u8>>, Lsn) {
    timeout(limit(), async {
        let mut messages = Vec::new();
        loop {
            while let Some(frame) = stream.next().unwrap() {
                let Frame::Data { message, .. } = frame else { continue };
                messages.push(message.to_vec());
                if message[0] == b'C' {
                    let end = message[10..18].try_into().unwrap();
                    return (messages, Lsn(u64::from_be_bytes(end)));
                }
            }
            stream.fill().await.unwrap();
        }
    })
    .await
    .unwrap()
}

/// How the stream ends.
async fn end(stream: &mut Stream) -> WalError {
    timeout(limit(), async {
        loop {
            loop {
                match stream.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return error,
                }
            }
            if let Err(error) = stream.fill().await {
                return error;
            }
        }
    })
    .await
    .unwrap()
}

fn kinds(messages: &[Vec<u8>]) -> String {
    messages.iter().map(|it| char::from(it[0])).collect()
}

async fn confirmed(cluster: &Cluster) -> Lsn {
    let sql = "select confirmed_flush_lsn from pg_replication_slots where slot_name = 's'";
    cluster.client().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_is_inserted_arrives() {
    let cluster = Cluster::start().await;
    let mut stream = stream(&cluster).await;

    cluster.batch("insert into events (payload) values ('one'), ('two')").await;
    let (messages, _) = transaction(&mut stream).await;

    assert_eq!(kinds(&messages), "BRIIC");
    assert!(messages[3].ends_with(b"two"));
}

#[tokio::test]
async fn a_row_larger_than_the_buffer_arrives_whole() {
    let cluster = Cluster::start().await;
    let mut stream = stream(&cluster).await;

    cluster.batch("insert into events (payload) select repeat('x', 5000000)").await;
    let (messages, _) = transaction(&mut stream).await;

    assert_eq!(kinds(&messages), "BRIC");
    assert!(5_000_000 < messages[2].len());
}

#[tokio::test]
async fn what_is_acknowledged_does_not_come_again() {
    let cluster = Cluster::start().await;
    let mut first = stream(&cluster).await;
    cluster.batch("insert into events (payload) values ('one')").await;
    let (_, lsn) = transaction(&mut first).await;
    cluster.batch("insert into events (payload) values ('two')").await;
    let _seen = transaction(&mut first).await;

    first.send_status(lsn, lsn, lsn, false).await.unwrap();
    first.finish().await.unwrap();
    let mut second = try_start(&cluster, "s").await.unwrap();
    let (messages, _) = transaction(&mut second).await;

    assert_eq!(confirmed(&cluster).await, lsn);
    assert!(messages[2].ends_with(b"two"));
}

#[tokio::test]
async fn a_request_for_an_answer_is_answered() {
    let cluster = Cluster::start().await;
    let mut stream = stream(&cluster).await;
    let sql = "select pg_current_wal_flush_lsn()";
    let head: Lsn = cluster.client().await.query_one(sql, &[]).await.unwrap().get(0);

    stream.send_status(Lsn::ZERO, Lsn::ZERO, Lsn::ZERO, true).await.unwrap();

    timeout(limit(), async {
        loop {
            while let Some(frame) = stream.next().unwrap() {
                if let Frame::Keepalive { end, .. } = frame
                    && head <= end
                {
                    return;
                }
            }
            stream.fill().await.unwrap();
            stream.send_status(Lsn::ZERO, Lsn::ZERO, Lsn::ZERO, true).await.unwrap();
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_server_that_asks_is_content_with_a_status() {
    let cluster = Cluster::with(&[("wal_sender_timeout", "500ms")]).await;
    let mut stream = stream(&cluster).await;

    // Each request comes after half the limit; unanswered, the third would never come.
    timeout(limit(), async {
        let mut requests = 0;
        while requests < 4 {
            stream.fill().await.unwrap();
            let mut position = None;
            while let Some(frame) = stream.next().unwrap() {
                if let Frame::Keepalive { end, reply_requested: true } = frame {
                    position = Some(end);
                }
            }
            if let Some(end) = position {
                requests += 1;
                stream.send_status(end, end, end, false).await.unwrap();
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_slot_is_made_once() {
    let cluster = Cluster::start().await;
    let mut connection = replication(&cluster).await;

    let first = connection.ensure_slot(&name("s"), PATIENCE).await.unwrap();
    let again = connection.ensure_slot(&name("s"), PATIENCE).await.unwrap();

    let Ensured::Created { consistent_point } = first else { panic!("{first:?}") };
    assert_eq!(again, Ensured::Existed { confirmed_flush: consistent_point });
    connection.drop_slot(&name("s")).await.unwrap();
    connection.drop_slot(&name("s")).await.unwrap();
    assert!(matches!(
        connection.ensure_slot(&name("s"), PATIENCE).await,
        Ok(Ensured::Created { .. })
    ));
}

#[tokio::test]
async fn an_open_transaction_in_the_way_is_named() {
    let cluster = Cluster::start().await;
    let open = cluster.client().await;
    open.batch_execute("set application_name = 'sleeper'; begin; select txid_current()")
        .await
        .unwrap();
    let mut connection = replication(&cluster).await;

    let error = connection.ensure_slot(&name("s"), Duration::from_millis(200)).await.unwrap_err();

    assert_eq!(error.class(), Class::Transient);
    let shown = error.to_string();
    assert!(
        shown.starts_with("creating slot `s` waits for an open transaction: process "),
        "{shown}"
    );
    assert!(shown.contains("application sleeper, idle in transaction"), "{shown}");
    open.batch_execute("commit").await.unwrap();
    connection.ensure_slot(&name("s"), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_shows_what_the_slot_will_not_send() {
    let cluster = Cluster::start().await;
    cluster.batch(TABLE).await;
    cluster.batch("insert into events (payload) values ('before')").await;
    let mut connection = replication(&cluster).await;

    let snapshot = connection.create_temporary_slot(&name("t"), PATIENCE).await.unwrap();
    cluster.batch("insert into events (payload) values ('after')").await;
    let reader = cluster.client().await;
    reader
        .batch_execute(&format!(
            "begin isolation level repeatable read; set transaction snapshot '{}'",
            snapshot.name
        ))
        .await
        .unwrap();
    let seen = reader.query("select payload from events", &[]).await.unwrap();
    let options = StreamOptions::new(name("projector"));
    let mut stream =
        connection.start(&name("t"), snapshot.consistent_point, &options).await.unwrap();
    let (messages, _) = transaction(&mut stream).await;

    let seen: Vec<String> = seen.iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, ["before"]);
    assert_eq!(kinds(&messages), "BRIC");
    assert!(messages[2].ends_with(b"after"));
    drop(stream);
    eventually("the slot's end", async || {
        let rows =
            cluster.client().await.query("select from pg_replication_slots", &[]).await.unwrap();
        if rows.is_empty() { Ok(()) } else { Err(rows.len()) }
    })
    .await;
}

#[tokio::test]
async fn a_slot_has_one_reader() {
    let cluster = Cluster::start().await;
    let first = stream(&cluster).await;

    let error = try_start(&cluster, "s").await.unwrap_err();

    assert_eq!(error.reason(), Some(Reason::SlotActive { pid: first.process() }));
    assert_eq!(error.class(), Class::Transient);
    first.finish().await.unwrap();
    eventually("the slot", async || try_start(&cluster, "s").await.map_err(|it| it.to_string()))
        .await;
}

#[tokio::test]
async fn a_slot_that_is_not_there_is_lost() {
    let cluster = Cluster::start().await;
    cluster.batch(TABLE).await;

    let error = try_start(&cluster, "s").await.unwrap_err();

    assert_eq!(error.reason(), Some(Reason::SlotMissing));
    assert_eq!(error.class(), Class::Lost);
}

#[tokio::test]
async fn a_slot_whose_log_is_gone_is_lost() {
    let cluster = Cluster::with(&[("max_slot_wal_keep_size", "1MB")]).await;
    stream(&cluster).await.finish().await.unwrap();
    let client = cluster.client().await;
    eventually("the slot's loss", async || {
        client
            .batch_execute("select pg_logical_emit_message(false, 'fill', repeat('x', 500000))")
            .await
            .unwrap();
        client.batch_execute("select pg_switch_wal()").await.unwrap();
        client.batch_execute("checkpoint").await.unwrap();
        let row =
            client.query_one("select wal_status from pg_replication_slots", &[]).await.unwrap();
        match row.get::<_, String>(0).as_str() {
            "lost" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;

    let error = try_start(&cluster, "s").await.unwrap_err();

    assert_eq!(error.reason(), Some(Reason::SlotLost), "{error:?}");
    assert_eq!(error.class(), Class::Lost);
}

#[tokio::test]
async fn a_missing_publication_is_told_in_the_stream() {
    let cluster = Cluster::start().await;
    cluster.batch("create table events (payload text)").await;
    replication(&cluster).await.ensure_slot(&name("s"), PATIENCE).await.unwrap();
    let mut stream = try_start(&cluster, "s").await.unwrap();

    cluster.batch("insert into events values ('x')").await;
    let version = cluster.client().await.query_one("show server_version_num", &[]).await.unwrap();
    if "180000" <= version.get::<_, &str>(0) {
        // from 18 on the server passes over what it cannot publish; the engine's monitor notices
        return;
    }
    let error = end(&mut stream).await;

    assert_eq!(error.reason(), Some(Reason::PublicationMissing), "{error:?}");
    assert_eq!(error.class(), Class::Refused);
}

#[tokio::test]
async fn a_server_without_logical_decoding_says_so() {
    let cluster = Cluster::with(&[("wal_level", "replica")]).await;

    let error = replication(&cluster).await.ensure_slot(&name("s"), PATIENCE).await.unwrap_err();

    assert_eq!(error.reason(), Some(Reason::WalLevel));
    assert_eq!(error.class(), Class::Refused);
    assert!(error.hint().unwrap().contains("wal_level"));
}

#[tokio::test]
async fn a_full_server_says_what_is_full() {
    let cluster = Cluster::with(&[("max_replication_slots", "1")]).await;
    let mut connection = replication(&cluster).await;
    connection.ensure_slot(&name("s"), PATIENCE).await.unwrap();

    let error = connection.ensure_slot(&name("t"), PATIENCE).await.unwrap_err();

    assert_eq!(error.reason(), Some(Reason::SlotsFull));
    assert_eq!(error.class(), Class::Refused);
}

#[tokio::test]
async fn a_role_without_replication_says_so() {
    let cluster = Cluster::start().await;
    cluster.batch("create role reader login").await;
    let mut settings = settings(cluster.socket_url());
    settings.user = "reader".to_owned();

    let error = ReplicationConnection::connect(&settings, "projector").await.unwrap_err();

    assert_eq!(error.class(), Class::Refused, "{error:?}");
    assert!(error.hint().unwrap().contains("replication"), "{error:?}");
}

#[tokio::test]
async fn a_terminated_walsender_leaves_a_transient_error() {
    let cluster = Cluster::start().await;
    let mut stream = stream(&cluster).await;

    cluster.batch("select pg_terminate_backend(active_pid) from pg_replication_slots").await;
    let error = end(&mut stream).await;

    assert_eq!(error.reason(), Some(Reason::Shutdown), "{error:?}");
    assert_eq!(error.class(), Class::Transient);
}

#[tokio::test]
async fn a_killed_server_leaves_a_transient_error() {
    let mut cluster = Cluster::start().await;
    let mut stream = stream(&cluster).await;

    cluster.kill9();
    let error = end(&mut stream).await;

    assert_eq!(error.class(), Class::Transient, "{error:?}");
}

#[tokio::test]
async fn a_connection_introduces_its_server() {
    let cluster = Cluster::start().await;
    let mut connection = replication(&cluster).await;

    let system = connection.identify_system().await.unwrap();
    let rows = connection.simple_query("select 1, null; show timezone").await.unwrap();
    let error = connection.simple_query("nonsense").await.unwrap_err();

    assert_eq!(system.database, "postgres");
    assert!(Lsn::ZERO < system.position);
    assert_eq!(rows, [vec![Some("1".to_owned()), None], vec![Some("UTC".to_owned())]]);
    assert_eq!(error.reason(), Some(Reason::Unsupported));
    connection.close().await.unwrap();
}
