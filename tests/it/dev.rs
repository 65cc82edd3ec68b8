//! `projector dev`, from nothing to live read models and back to nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use futures_util::{SinkExt, StreamExt};
use projector::workload::PROJECTS;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};
use tokio_tungstenite::tungstenite::Message;

use crate::support::app::assert_rows_equal_history;
use crate::support::cluster::{binaries, fresh_path, scratch};
use crate::support::eventually::eventually;

/// A folder for `--data`, gone when dropped.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        Self(fresh_path())
    }

    /// `projector dev` on the folder, on the Postgres under test and a free port.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_projector"));
        command.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(&self.0).args(arguments);
        command.env_clear().env("PG_BIN", binaries().folder());
        // There is no folder `projections`, so that the shipped definitions are used.
        command.current_dir(scratch()).stdin(Stdio::null());
        command
    }

    fn postmaster(&self) -> Option<Pid> {
        let lock = std::fs::read_to_string(self.0.join("data/postmaster.pid")).ok()?;
        Pid::from_raw(lock.lines().next()?.parse().ok()?)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// `projector dev --output json` while it runs.
struct Dev {
    child: Child,
    lines: BufReader<ChildStdout>,
    database_url: String,
    address: String,
}

impl Dev {
    /// Starts it and waits until it tells its addresses.
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut command = home.command(&["--output", "json", "--quiet"]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let started = find(&mut lines, |it| it["kind"] == "started");
        let text = |key: &str| started[key].as_str().unwrap().to_owned();
        let address = text("console_url").replace("http://", "");
        Self { child, lines, database_url: text("database_url"), address }
    }

    /// Reads what it tells until there is what is wanted.
    fn tells(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        find(&mut self.lines, wanted)
    }

    async fn client(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.database_url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        let host = &self.address;
        write!(socket, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Ctrl-C; gives the exit code and the last thing it tells.
    fn interrupt(mut self) -> (Option<i32>, Value) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let last = self.lines.by_ref().lines().last().unwrap().unwrap();
        (self.child.wait().unwrap().code(), serde_json::from_str(&last).unwrap())
    }

    fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A test that fails leaves none behind.
impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn find(lines: &mut impl BufRead, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut seen = Vec::new();
    for line in lines.lines() {
        let value = serde_json::from_str(&line.unwrap()).unwrap();
        if wanted(&value) {
            return value;
        }
        seen.push(value);
    }
    panic!("it ended before that; it told {seen:#?}")
}

fn run(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

async fn gone(pid: Pid) {
    eventually("postgres to end", async || match test_kill_process(pid) {
        Ok(()) => Err("it lives"),
        Err(_) => Ok(()),
    })
    .await;
}

#[tokio::test]
async fn from_nothing_to_read_models_that_equal_history() {
    let home = Home::new();
    let mut dev = Dev::start(&home, &["--rate", "200"]);
    let busy = |it: &Value| {
        500 <= it["events_total"].as_u64().unwrap_or(0) && it["runs"]["succeeded"].is_number()
    };
    dev.tells(busy);
    assert!(dev.get("/readyz").starts_with("HTTP/1.1 200 OK"));
    let url = dev.database_url.clone();

    let (code, last) = dev.interrupt();

    assert_eq!((code, &last["kind"]), (Some(0), &"stopped".into()));
    assert_eq!(home.postmaster(), None, "postgres has stopped in good order");

    let mut dev = Dev::start(&home, &["--rate", "0"]);
    assert_eq!(dev.database_url, url, "the address stays the same");
    dev.tells(|it| it["ready"] == true);
    assert_rows_equal_history(&dev.client().await).await;
    assert_eq!(dev.interrupt().0, Some(0));
}

#[tokio::test]
async fn runs_that_were_left_in_flight_are_ended_by_the_next_start() {
    let home = Home::new();
    let mut dev = Dev::start(&home, &["--rate", "100"]);
    dev.tells(|it| 5 <= it["runs"]["running"].as_u64().unwrap_or(0));
    dev.interrupt();

    let mut dev = Dev::start(&home, &["--rate", "100"]);

    dev.tells(|it| 5 <= it["runs"]["canceled"].as_u64().unwrap_or(0));
}

#[tokio::test]
async fn a_kill_leaves_no_postgres_and_fresh_begins_anew() {
    let home = Home::new();
    let dev = Dev::start(&home, &["--rate", "0"]);
    dev.client().await.batch_execute("create table kept ()").await.unwrap();
    let postmaster = home.postmaster().unwrap();

    dev.kill9();

    gone(postmaster).await;
    let kept = "select to_regclass('kept') is not null";
    let dev = Dev::start(&home, &["--rate", "0"]);
    assert!(dev.client().await.query_one(kept, &[]).await.unwrap().get::<_, bool>(0));
    dev.kill9();
    // At once, while the last one's server may still be about to end.
    let dev = Dev::start(&home, &["--rate", "0", "--fresh"]);
    assert!(!dev.client().await.query_one(kept, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn it_goes_on_when_postgres_is_killed() {
    let home = Home::new();
    let mut dev = Dev::start(&home, &["--rate", "100"]);
    let many = |it: &Value| it["events_total"].as_u64().filter(|_| it["ready"] == true);
    let before = many(&dev.tells(|it| 0 < many(it).unwrap_or(0))).unwrap();

    kill_process(home.postmaster().unwrap(), Signal::KILL).unwrap();

    dev.tells(|it| before + 300 < many(it).unwrap_or(0));
    assert_eq!(dev.interrupt().0, Some(0));
    assert_eq!(home.postmaster(), None);
}

#[tokio::test]
async fn an_interrupt_while_it_prepares_leaves_nothing_half_made() {
    let home = Home::new();
    let mut command = home.command(&["--output", "json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let creating = |it: &Value| it["text"].as_str().is_some_and(|it| it.starts_with("creating"));
    find(&mut lines, creating);

    kill_process(Pid::from_child(&child), Signal::INT).unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(0));
    let names = home.0.read_dir().unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|it| !it.contains(".new-")));
    assert_eq!(home.postmaster(), None);
}

#[tokio::test]
async fn what_cannot_be_shared_is_refused_by_name() {
    let home = Home::new();
    let dev = Dev::start(&home, &["--rate", "0"]);
    let pid = dev.child.id();

    let (code, said) = run(home.command(&["--fresh"]));
    assert_eq!(code, Some(1));
    assert!(said.starts_with("error: another `projector dev` uses "), "{said}");
    assert!(said.contains(&format!("stop it (process {pid})")), "{said}");

    let other = Home::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_projector"));
    command.env_clear().args(["dev", "--listen", &dev.address, "--data"]).arg(&other.0);
    let (code, said) = run(command);
    assert_eq!(code, Some(1));
    assert!(said.starts_with(&format!("error: cannot listen on {}\n", dev.address)), "{said}");
    assert!(said.contains("choose an address with --listen"), "{said}");
    assert!(dev.get("/healthz").starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn a_folder_that_is_not_ours_is_left_alone() {
    let home = Home::new();
    std::fs::create_dir_all(home.0.join("data")).unwrap();
    std::fs::write(home.0.join("data/thesis.txt"), "mine").unwrap();

    let (code, said) = run(home.command(&["--fresh"]));

    assert_eq!(code, Some(2));
    assert!(said.contains("was not made by `projector dev`"), "{said}");
    assert!(home.0.join("data/thesis.txt").exists());
}

#[test]
fn data_of_another_version_are_named_with_the_way_out() {
    let home = Home::new();
    std::fs::create_dir_all(home.0.join("data")).unwrap();
    std::fs::write(home.0.join("dev.json"), "{}").unwrap();
    std::fs::write(home.0.join("data/PG_VERSION"), "12\n").unwrap();

    let (code, said) = run(home.command(&[]));

    assert_eq!(code, Some(1));
    assert!(said.contains("was made by PostgreSQL 12"), "{said}");
    assert!(said.contains("hint: --fresh removes the data"), "{said}");
}

#[test]
fn another_database_is_for_another_verb() {
    let home = Home::new();

    let (code, said) = run(home.command(&["--database-url", "postgres://localhost/app"]));

    assert_eq!(code, Some(2));
    assert!(said.contains("`projector run`"), "{said}");
    assert!(!Path::new(&home.0).exists());
}

#[test]
fn without_a_terminal_it_is_plain_text_within_80_columns() {
    let home = Home::new();
    let mut command = home.command(&["--rate", "50"]);
    command.env("NO_COLOR", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = Vec::new();
    while !told.last().is_some_and(|it: &String| it.contains(" events  lag ")) {
        told.push(lines.next().unwrap());
    }

    kill_process(Pid::from_child(&child), Signal::INT).unwrap();

    told.extend(lines);
    let output = child.wait_with_output().unwrap();
    told.extend(String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned));
    assert_eq!(output.status.code(), Some(0), "{told:#?}");
    // The folder's name is as long as it is.
    let named = home.0.to_str().unwrap();
    for line in told.iter().filter(|it| !it.contains(named)) {
        assert!(!line.contains('\u{1b}') && line.chars().count() <= 80, "{line}");
    }
    assert!(told.iter().any(|it| it.starts_with("  psql     postgres://postgres:")), "{told:#?}");
    assert!(told.iter().any(|it| it.starts_with("  keys     ")), "{told:#?}");
    assert!(told.iter().any(|it| it == "stopping…"), "{told:#?}");
}

#[tokio::test]
async fn dev_serves_realtime_to_whoever_has_the_tokens_that_it_prints() {
    let home = Home::new();
    let mut command = home.command(&["--output", "json", "--quiet", "--rate", "200"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let started = find(&mut lines, |it| it["kind"] == "started");
    let text = |name: &str| started[name].as_str().unwrap().to_owned();
    let (anon, user) = (text("anon_key"), text("user_token"));
    for file in ["jwt_secret", "realtime.env"] {
        let file = std::fs::metadata(home.0.join(file)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
    let keys = std::fs::read_to_string(started["keys"].as_str().unwrap()).unwrap();
    assert!(keys.contains(&format!("SUPABASE_ANON_KEY={anon}\nUSER_TOKEN={user}\n")));
    let url = text("console_url").replace("http://", "ws://");
    let url = format!("{url}/realtime/v1/websocket?apikey={anon}&vsn=2.0.0");
    // nobody is let in before it follows the log; clients try again
    let (mut socket, _) =
        eventually("a socket", async || tokio_tungstenite::connect_async(&url).await).await;
    let topic = format!("realtime:project:{}", PROJECTS[0]);
    let config = json!({ "config": { "private": true }, "access_token": user });

    socket
        .send(Message::text(json!(["1", "1", topic, "phx_join", config]).to_string()))
        .await
        .unwrap();

    let mut next = async || socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
    let joined = next().await;
    assert!(joined.contains(r#""status":"ok""#), "{joined}");
    let broadcast: Value = serde_json::from_str(&next().await).unwrap();
    assert_eq!((&broadcast[2], &broadcast[3]), (&json!(topic), &json!("broadcast")));
    assert!(!broadcast[4]["payload"]["lines"].as_array().unwrap().is_empty(), "{broadcast}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    // Its last lines are read, so that it is not held up by a full pipe.
    std::io::copy(&mut lines, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
}
