//! A Postgres with the real binary beside it, as an operator would run them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use projector::ident::Ident;
use projector::migrate;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::cluster::{Cluster, fresh_path};
use crate::support::eventually::eventually;

/// The read models that `reference.sql` describes.
const REFERENCES: [&str; 5] =
    ["run_status", "step_status", "run_log", "dead_runs", "workflow_stats"];

/// A migrated database and a folder of definitions; sidecars are started beside it.
pub(crate) struct App {
    pub(crate) cluster: Cluster,
    folder: PathBuf,
}

impl App {
    /// With the shipped definitions.
    pub(crate) async fn shipped() -> Self {
        Self::with(&[]).await
    }

    /// With the shipped definitions and further settings of the server.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::shipped_beside(Cluster::with(settings).await).await
    }

    /// With the shipped definitions, in a cluster that has something in it.
    pub(crate) async fn shipped_beside(cluster: Cluster) -> Self {
        let app = Self::migrated(cluster).await;
        for entry in shipped().read_dir().unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                let to = app.projections().join(entry.file_name());
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
        app
    }

    /// Without definitions.
    pub(crate) async fn bare(settings: &[(&str, &str)]) -> Self {
        Self::migrated(Cluster::with(settings).await).await
    }

    async fn migrated(cluster: Cluster) -> Self {
        migrate::apply(&mut cluster.client().await, &Ident::new("public").unwrap()).await.unwrap();
        Self::unmigrated(cluster)
    }

    /// Beside a cluster as it is.
    pub(crate) fn unmigrated(cluster: Cluster) -> Self {
        let folder = fresh_path().with_extension("app");
        std::fs::create_dir_all(folder.join("projections")).unwrap();
        Self { cluster, folder }
    }

    /// The folder of definitions.
    pub(crate) fn projections(&self) -> PathBuf {
        self.folder.join("projections")
    }

    /// Writes a definition, over one of the same name.
    pub(crate) fn define(&self, name: &str, text: &str) {
        std::fs::write(self.projections().join(format!("{name}.toml")), text).unwrap();
    }

    /// Takes a definition away.
    pub(crate) fn undefine(&self, name: &str) {
        std::fs::remove_file(self.projections().join(format!("{name}.toml"))).unwrap();
    }

    /// The binary with this database, and nothing of this machine's settings.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_projector"));
        command
            .arg(verb)
            .env_clear()
            .env("TERM", "dumb")
            .env("USER", "tester")
            .env("DATABASE_URL", self.cluster.url())
            .env("PROJECTOR_HTTP_LISTEN", "127.0.0.1:0")
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub(crate) async fn output(&self, mut command: Command) -> Output {
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Starts a sidecar, and waits until it follows the log.
    pub(crate) async fn run(&self) -> Sidecar {
        let sidecar = self.spawn();
        sidecar.says("\"ready\"").await;
        sidecar
    }

    /// Starts a sidecar.
    pub(crate) fn spawn(&self) -> Sidecar {
        Sidecar::spawn(self.command("run"))
    }

    /// A connection.
    pub(crate) async fn client(&self) -> Client {
        self.cluster.client().await
    }

    /// The only value of the only row, as text.
    pub(crate) async fn value(&self, sql: &str) -> Option<String> {
        let rows = self.client().await.simple_query(sql).await.unwrap();
        rows.iter().find_map(|it| match it {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    }

    /// Polls until the only value of the only row is this.
    pub(crate) async fn becomes(&self, sql: &str, wanted: &str) {
        eventually(&format!("`{wanted}` from: {sql}"), async || {
            let value = self.value(sql).await;
            if value.as_deref() == Some(wanted) { Ok(()) } else { Err(value) }
        })
        .await;
    }

    /// Waits until every live projection has counted each event of history once.
    pub(crate) async fn caught_up(&self) {
        let events = self.value("select count(*) from events").await.unwrap();
        let counted =
            "select coalesce(string_agg(distinct coalesce(c.events::text, 'none'), ' '), 'none')
             from projector.projections p left join projector.checkpoints c on c.projection = p.name
             where p.state not in ('failed', 'detached', 'paused')";
        self.becomes(counted, &events).await;
    }

    /// Compares each shipped read model with what plain SQL makes of history.
    pub(crate) async fn assert_rows_equal_history(&self) {
        assert_rows_equal_history(&self.client().await).await;
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Compares each shipped read model of a database with what plain SQL makes of its history.
pub(crate) async fn assert_rows_equal_history(client: &Client) {
    client.batch_execute(include_str!("../reference.sql")).await.unwrap();
    client.batch_execute("analyze events; set work_mem = '64MB'").await.unwrap();
    for table in REFERENCES {
        let columns = "select string_agg(quote_ident(attname), ', ' order by attnum)
             from pg_attribute where attrelid = $1::text::regclass and 0 < attnum";
        let view = format!("reference.{table}");
        let columns: String = client.query_one(columns, &[&view]).await.unwrap().get(0);
        let difference = format!(
            "with stored as materialized (select {columns} from {table}),
                  wanted as materialized (select {columns} from {view}),
                  extra as (select * from stored except all select * from wanted),
                  missing as (select * from wanted except all select * from stored)
             select (select count(*) from extra), (select count(*) from missing),
                    (select jsonb_agg(it) from (select * from extra limit 2) it)::text,
                    (select jsonb_agg(it) from (select * from missing limit 2) it)::text"
        );
        let row = client.query_one(&difference, &[]).await.unwrap();
        let (extra, missing): (i64, i64) = (row.get(0), row.get(1));
        let examples: [Option<String>; 2] = [row.get(2), row.get(3)];
        assert!(
            extra == 0 && missing == 0,
            "{table}: {extra} rows too many, {missing} missing: {examples:#?}"
        );
    }
}

/// The folder of the shipped definitions.
pub(crate) fn shipped() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/projections"))
}

/// A running `projector run`, killed when dropped.
pub(crate) struct Sidecar {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Sidecar {
    /// Starts a command and gathers what it logs.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, gathered) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                gathered.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits until it has logged a line with this text, and gives that line.
    pub(crate) async fn says(&self, text: &str) -> String {
        self.says_more(text, 0).await
    }

    /// Waits for a line with this text after the first `seen` lines.
    pub(crate) async fn says_more(&self, text: &str, seen: usize) -> String {
        eventually(&format!("a log line with `{text}`"), async || {
            let lines = self.lines.lock().unwrap();
            let found = lines.iter().skip(seen).find(|it| it.contains(text)).cloned();
            found.ok_or_else(|| lines.join("\n"))
        })
        .await
    }

    /// How many lines it has logged.
    pub(crate) fn lines(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Where its HTTP server answers.
    pub(crate) async fn address(&self) -> String {
        let started: Value = serde_json::from_str(&self.says("\"listen\"").await).unwrap();
        started["listen"].as_str().unwrap().to_owned()
    }

    /// Answers of its HTTP server: status code and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.get_with(path, "").await
    }

    /// The same, with further headers, each with its line's end.
    pub(crate) async fn get_with(&self, path: &str, headers: &str) -> (u16, String) {
        let address = self.address().await;
        let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n{headers}\r\n");
        tokio::task::spawn_blocking(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
        })
        .await
        .unwrap()
    }

    /// Kills it as the kernel would.
    pub(crate) fn kill9(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Asks it to end in good order, and waits.
    pub(crate) async fn terminate(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        eventually("the end of the process", async || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err(self.log()),
        })
        .await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The most memory that it has had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
