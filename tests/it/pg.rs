//! Getting in: every way to log in, over every kind of socket, and what is said when it fails. Each is
//! tried on both kinds of connection, because both have their own log-in.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use projector::ident::QualifiedName;
use projector::lsn::Lsn;
use projector::pg::facts::{Wanted, gather};
use projector::pg::findings::{FindingKind, findings};
use projector::pg::{Class, ConnectError, Settings, SharedClient, connect};
use projector::wal::{ReplicationConnection, StreamOptions};

use crate::support::cluster::Cluster;
use crate::support::eventually::eventually;
use crate::wal::{PATIENCE, TABLE, name, transaction};

/// Roles named after how they log in; the password of each is `secret`.
const ROLES: &str = "
    set password_encryption = 'md5';
    create role digest login replication password 'secret';
    set password_encryption = 'scram-sha-256';
    create role scram login replication password 'secret';
    create role plain login replication password 'secret';
    create role trusted login replication;
    create role overtls login replication password 'secret';
    create role nowhere login replication password 'secret';";

const HBA: &str = "
host    all digest  127.0.0.1/32 md5
host    all scram   127.0.0.1/32 scram-sha-256
host    all plain   127.0.0.1/32 password
host    all trusted 127.0.0.1/32 trust
hostssl all overtls 127.0.0.1/32 scram-sha-256
host    all overtls 127.0.0.1/32 reject
host    all nowhere 127.0.0.1/32 reject
";

pub(crate) fn settings(text: &str) -> Settings {
    Settings::parse(text, |name| (name == "USER").then(|| "nobody".to_owned())).unwrap()
}

/// Tries both kinds of connection; they must agree.
async fn enter(text: &str) -> Result<(), ConnectError> {
    let settings = settings(text);
    let sql = connect(&settings, "test").await.map(|_| ());
    let wal = ReplicationConnection::connect(&settings, "test").await.map(|_| ());
    let (shown, also) = (format!("{sql:?}"), format!("{wal:?}"));
    match (&sql, &wal) {
        (Ok(()), Ok(())) => {}
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string(), "{shown} {also}");
            assert_eq!(one.class(), other.class());
            assert_eq!(one.hint(), other.hint(), "{shown} {also}");
        }
        _ => panic!("{text}: {shown}, but {also}"),
    }
    sql
}

async fn refusal(text: &str) -> (String, String, Class) {
    let error = enter(text).await.expect_err(text);
    (error.to_string(), error.hint().unwrap_or_default(), error.class())
}

struct Fortress {
    cluster: Cluster,
    data: PathBuf,
}

impl Fortress {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        cluster.batch(ROLES).await;
        let client = cluster.client().await;
        let data: String = client.query_one("show data_directory", &[]).await.unwrap().get(0);
        let fortress = Self { cluster, data: PathBuf::from(data) };
        let hba = fortress.data.join("pg_hba.conf");
        let local = fs::read_to_string(&hba).unwrap();
        fs::write(&hba, format!("{HBA}{local}")).unwrap();
        fortress.reload().await;
        fortress
    }

    /// Starts TLS with a certificate for the name `localhost` alone.
    async fn with_tls() -> Self {
        let fortress = Self::start().await;
        let data = &fortress.data;
        openssl(
            data,
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem",
        );
        openssl(
            data,
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem",
        );
        openssl(
            data,
            "req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr",
        );
        fs::write(data.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
        openssl(
            data,
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -sha384 -extfile names -out server.crt",
        );
        let owner = fs::metadata(data).unwrap();
        for file in ["server.key", "server.crt"] {
            let file = data.join(file);
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
            fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        }
        fortress.cluster.batch("alter system set ssl = on").await;
        fortress.reload().await;
        fortress
    }

    async fn reload(&self) {
        const LOADED: &str = "select pg_conf_load_time()::text";
        let client = self.cluster.client().await;
        let before: String = client.query_one(LOADED, &[]).await.unwrap().get(0);
        client.execute("select pg_reload_conf()", &[]).await.unwrap();
        eventually("the new configuration", async || {
            let client = self.cluster.client().await;
            let now: String = client.query_one(LOADED, &[]).await.unwrap().get(0);
            if before < now { Ok(()) } else { Err(now) }
        })
        .await;
    }

    fn url(&self, user: &str, more: &str) -> String {
        let port = self.cluster.port();
        format!("host=127.0.0.1 port={port} dbname=postgres user={user} {more}")
    }

    fn file(&self, name: &str) -> String {
        self.data.join(name).display().to_string()
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn every_way_to_log_in_leads_in() {
    let fortress = Fortress::start().await;

    for user in ["digest", "scram", "plain", "trusted"] {
        enter(&fortress.url(user, "password=secret")).await.unwrap();
    }
    enter(fortress.cluster.socket_url()).await.unwrap();
    enter(fortress.cluster.url()).await.unwrap();
}

#[tokio::test]
async fn a_refused_log_in_says_why_and_what_to_do() {
    let fortress = Fortress::start().await;
    let port = fortress.cluster.port();

    for user in ["digest", "scram", "plain"] {
        let (error, hint, class) = refusal(&fortress.url(user, "password=wrong")).await;
        assert_eq!(
            error,
            format!(
                "Postgres at `127.0.0.1:{port}` refuses the log-in of `{user}` to database `postgres`"
            )
        );
        assert!(hint.starts_with("wrong password"), "{hint}");
        assert_eq!(class, Class::Config);

        let (error, hint, _) = refusal(&fortress.url(user, "")).await;
        assert!(error.contains("asks for a password for"), "{error}");
        assert!(hint.contains("PGPASSWORD"), "{hint}");
    }
    let (_, hint, class) = refusal(&fortress.url("scram", "password=secret dbname=lost")).await;
    assert_eq!(
        (hint.as_str(), class),
        ("there is no database `lost`: create it, or name another", Class::Config)
    );
    let (_, hint, _) = refusal(&fortress.url("nowhere", "password=secret")).await;
    assert!(hint.contains("pg_hba.conf"), "{hint}");
    let (error, hint, class) = refusal(&fortress.url("scram", "sslmode=require")).await;
    assert_eq!(error, format!("`127.0.0.1:{port}` does not speak TLS, and sslmode is `require`"));
    assert!(hint.contains("ssl = on"), "{hint}");
    assert_eq!(class, Class::Config);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    // Bound and not listening: nobody can take the port meanwhile, and nobody answers.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = taken.local_addr().unwrap().port();

    let (error, hint, class) = refusal(&format!("host=127.0.0.1 port={port}")).await;
    assert_eq!(error, format!("cannot reach Postgres at `127.0.0.1:{port}`"));
    assert!(hint.contains("is Postgres running"), "{hint}");
    assert_eq!(class, Class::Transient);

    let (error, ..) = refusal("host=nowhere.invalid").await;
    assert_eq!(error, "cannot resolve the host name `nowhere.invalid`");
    let (_, hint, _) = refusal("host=/nowhere").await;
    assert!(hint.contains("no such socket"), "{hint}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();

    let (error, _, class) = refusal(&format!("host=127.0.0.1 port={port} connect_timeout=1")).await;

    assert_eq!(error, format!("no answer from Postgres at `127.0.0.1:{port}` within 1 s"));
    assert_eq!(class, Class::Transient);
}

#[tokio::test]
async fn the_next_host_is_tried() {
    let cluster = Cluster::start().await;
    let good = settings(cluster.socket_url());

    let mut both = good.clone();
    both.hosts.insert(0, settings("host=/nowhere").hosts.remove(0));

    connect(&both, "test").await.unwrap();
    ReplicationConnection::connect(&both, "test").await.unwrap();
}

#[tokio::test]
async fn certificates_are_checked_as_sslmode_says() {
    let fortress = Fortress::with_tls().await;
    let (ca, other) = (fortress.file("ca.pem"), fortress.file("other.pem"));
    let enter_with = |user: &str, more: String| {
        let text = fortress.url(user, &format!("password=secret {more}"));
        async move { enter(&text).await }
    };

    for more in [
        "sslmode=require".to_owned(),
        format!("sslmode=require sslrootcert={ca}"),
        format!("sslmode=verify-ca sslrootcert={ca}"),
        format!("host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={ca}"),
        // The very certificate of the server, in place of its authority.
        format!("sslmode=verify-ca sslrootcert={}", fortress.file("server.crt")),
        "sslmode=prefer".to_owned(),
        // The server lets this role in over TLS only; the first attempt goes without.
        "sslmode=allow".to_owned(),
    ] {
        enter_with("overtls", more.clone()).await.unwrap_or_else(|it| panic!("{more}: {it:?}"));
    }
    for (more, hint) in [
        (format!("sslmode=verify-full sslrootcert={ca}"), "bears another name"),
        (format!("sslmode=verify-ca sslrootcert={other}"), "is not trusted"),
        (format!("sslmode=require sslrootcert={other}"), "is not trusted"),
        (
            format!("host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={other}"),
            "is not trusted",
        ),
        ("sslmode=disable".to_owned(), "pg_hba.conf"),
    ] {
        let error = enter_with("overtls", more.clone()).await.expect_err(&more);
        assert!(error.hint().unwrap().contains(hint), "{more}: {error:?}");
        assert_eq!(error.class(), Class::Config);
    }
}

#[tokio::test]
async fn a_log_in_can_be_tied_to_the_certificate() {
    let fortress = Fortress::with_tls().await;
    let bound = "password=secret channel_binding=require";

    enter(&fortress.url("scram", &format!("{bound} sslmode=require"))).await.unwrap();
    enter(&fortress.url("scram", "password=secret channel_binding=disable sslmode=require"))
        .await
        .unwrap();

    for (user, more) in
        [("scram", "sslmode=disable"), ("digest", "sslmode=require"), ("plain", "sslmode=require")]
    {
        let (error, _, class) =
            refusal_of_either(&fortress.url(user, &format!("{bound} {more}"))).await;
        assert!(error.contains("cannot authenticate"), "{error}");
        assert_eq!(class, Class::Config);
    }
}

/// As [`refusal`], where the two connections have their own words.
async fn refusal_of_either(text: &str) -> (String, String, Class) {
    let settings = settings(text);
    assert!(connect(&settings, "test").await.is_err());
    let error = ReplicationConnection::connect(&settings, "test").await.expect_err(text);
    (error.to_string(), error.hint().unwrap_or_default(), error.class())
}

#[tokio::test]
async fn the_log_streams_over_tls() {
    let fortress = Fortress::with_tls().await;
    fortress.cluster.batch(TABLE).await;
    let settings = settings(&fortress.url("scram", "password=secret sslmode=require"));
    let mut connection = ReplicationConnection::connect(&settings, "test").await.unwrap();
    connection.ensure_slot(&name("s"), PATIENCE).await.unwrap();
    let options = StreamOptions::new(name("projector"));
    let mut stream = connection.start(&name("s"), Lsn::ZERO, &options).await.unwrap();

    fortress.cluster.batch("insert into events (payload) select repeat('x', 3000000)").await;
    let (messages, end) = transaction(&mut stream).await;
    stream.send_status(end, end, end, false).await.unwrap();
    stream.finish().await.unwrap();

    assert!(3_000_000 < messages[2].len());
}

#[tokio::test]
async fn a_shared_client_comes_back_after_a_restart() {
    let mut cluster = Cluster::start().await;
    let shared = SharedClient::new(settings(cluster.socket_url()), "test");
    let first = shared.get().await.unwrap();
    let row = first.query_one("show timezone", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "UTC");

    cluster.restart().await;
    let row = eventually("a new connection", async || {
        shared
            .get()
            .await
            .map_err(|it| it.to_string())?
            .query_one("select 1", &[])
            .await
            .map_err(|it| it.to_string())
    })
    .await;

    assert_eq!(row.get::<_, i32>(0), 1);
    assert!(first.is_closed());
}

#[tokio::test]
async fn a_server_is_judged_by_its_facts() {
    let cluster = Cluster::with(&[("wal_level", "replica"), ("max_replication_slots", "0")]).await;
    cluster
        .batch(
            "create table events (position bigint, type int) partition by range (position);
             create table events_1 partition of events for values from (0) to (10);
             create publication p for table events;
             create role reader login;",
        )
        .await;
    let (slot, publication) = (name("s"), name("p"));
    let table = QualifiedName { schema: name("public"), name: name("events") };
    let columns = [("position", "bigint"), ("type", "text"), ("payload", "jsonb")];
    let wanted =
        Wanted { slot: &slot, publication: &publication, table: &table, columns: &columns };
    let client = cluster.client().await;
    client.batch_execute("set role reader").await.unwrap();

    let facts = gather(&client, &wanted).await.unwrap();
    let found = findings(&facts, &wanted);

    let kinds: Vec<_> = found.iter().map(|it| it.kind).collect();
    assert_eq!(
        kinds,
        [
            FindingKind::WalLevel,
            FindingKind::Privilege,
            FindingKind::SlotsFull,
            FindingKind::Table,
            FindingKind::Table,
            FindingKind::Publication,
        ]
    );
    assert_eq!(
        found[3].to_string(),
        "column `type` of `public.events` must be text\n  found: integer"
    );
    assert_eq!(
        found[5].to_string(),
        "publication `p` does not publish `public.events`\n  found: tables public.events_1"
    );
}

#[tokio::test]
async fn a_server_that_is_ready_has_no_findings() {
    let cluster = Cluster::start().await;
    cluster.batch(TABLE).await;
    let mut connection =
        ReplicationConnection::connect(&settings(cluster.socket_url()), "test").await.unwrap();
    connection.ensure_slot(&name("s"), PATIENCE).await.unwrap();
    let options = StreamOptions::new(name("projector"));
    let stream = connection.start(&name("s"), Lsn::ZERO, &options).await.unwrap();
    let (slot, publication) = (name("s"), name("projector"));
    let table = QualifiedName { schema: name("public"), name: name("events") };
    let columns = [("position", "bigint"), ("payload", "text")];
    let wanted =
        Wanted { slot: &slot, publication: &publication, table: &table, columns: &columns };

    let facts = gather(&cluster.client().await, &wanted).await.unwrap();

    assert_eq!(findings(&facts, &wanted), []);
    let slot = facts.slot.unwrap();
    assert_eq!(slot.active_pid, stream.process());
    assert_eq!(slot.wal_status.as_deref(), Some("reserved"));
    assert!(slot.retained_bytes.is_some() && slot.restart_lsn < slot.confirmed_flush);
}

#[tokio::test]
async fn connecting_can_be_left_to_another_task() {
    let cluster = Cluster::start().await;
    let settings = settings(cluster.socket_url());
    let shared = SharedClient::new(settings.clone(), "test");

    let sql = tokio::spawn(async move { shared.get().await.is_ok() });
    let wal = tokio::spawn(async move {
        let mut connection = ReplicationConnection::connect(&settings, "test").await.unwrap();
        connection.ensure_slot(&name("s"), PATIENCE).await.is_ok()
    });

    assert!(sql.await.unwrap());
    assert!(wal.await.unwrap());
}
