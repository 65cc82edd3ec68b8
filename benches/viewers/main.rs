//! Viewers of a live log: how many the embedded Realtime holds, and how late they hear.
//!
//! `cargo bench --bench viewers -- --sockets 5000 --rate 100 --seconds 20`, beside a running
//! `projector dev --data FOLDER --rate 1`, which has the addresses and the secret in its folder and on its
//! first line: `--address`, `--database-url`, `--secret-file`.
//!
//! Every viewer has joined one run as a private topic. Events are appended to that run one by one at the
//! rate, each in a transaction of its own; from the moment the append has returned until a viewer has
//! the line is the delay, by the machine's clock. Viewers are
//!
//! * sockets in this process, which read the frame; or
//! * with `--supabase-js`, clients as users have them, in `--processes` of Node.js, up to the callback:
//!   with one socket of this process beside them, which tells how much of the delay is the client's.
//!
//! All of them share the machine's processors with the server.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark prints and stops"
)]

mod js;
mod raw;
#[path = "../../tests/it/support/node.rs"]
mod node;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use projector::realtime::hub::sign;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

#[derive(Parser)]
struct Args {
    /// Where the sidecar answers: 127.0.0.1:4400.
    #[arg(long)]
    address: String,
    /// Its database.
    #[arg(long)]
    database_url: String,
    /// The file with the secret of tokens.
    #[arg(long)]
    secret_file: std::path::PathBuf,
    /// Viewers.
    #[arg(long, default_value_t = 100)]
    sockets: usize,
    /// Events a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// How long events are appended.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Viewers are supabase-js.
    #[arg(long)]
    supabase_js: bool,
    /// Over so many processes.
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Versions of the run, and when a viewer had each, in milliseconds since 1970.
type Heard = Vec<(i32, f64)>;

/// How long the last line may take to everybody.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let secret = std::fs::read_to_string(&args.secret_file).context("no secret")?;
    let (client, connection) = tokio_postgres::connect(&args.database_url, NoTls).await?;
    tokio::spawn(connection);
    let run = Run { project: Uuid::new_v4(), id: Uuid::now_v7(), client };
    run.append(&json!([{ "type": "run_started", "payload": { "workflow": "viewers" } }])).await?;
    let claims =
        json!({ "role": "authenticated", "exp": 99_999_999_999_u64, "project_id": run.project });
    let token = sign(secret.trim(), &claims)?;
    let socket = format!("ws://{}/realtime/v1/websocket?vsn=2.0.0&apikey={token}", args.address);
    let topic = format!("run:{}", run.id);

    let began = Instant::now();
    let (mut processes, mut sockets) = (Vec::new(), args.sockets);
    if args.supabase_js {
        let url = format!("http://{}", args.address);
        let of = |number: usize| {
            args.sockets * (number + 1) / args.processes - args.sockets * number / args.processes
        };
        for number in 0..args.processes {
            processes.push(js::start(&url, &token, &topic, of(number)).await?);
        }
        sockets = 1;
    }
    let viewers: Vec<_> = stream::iter(0..sockets)
        .map(|_| raw::start(socket.clone(), topic.clone()))
        .buffer_unordered(50)
        .try_collect()
        .await?;
    println!("{} viewers joined in {:.1} s", args.sockets, began.elapsed().as_secs_f64());

    let began = Instant::now();
    let commits = run.fill(&args).await?;
    let last = i32::try_from(commits.len() + 1)?;

    let raw = timeout(LIMIT, async {
        let mut heard = Vec::new();
        for viewer in viewers {
            heard.push(viewer.report(last).await);
        }
        heard
    });
    let raw = raw.await.context("not all sockets heard the last line")?;
    if !args.supabase_js {
        return show("commit to frame", &raw, &commits);
    }
    let (mut cpu, mut clients) = (0.0, Vec::new());
    for process in &mut processes {
        let report = process.report(last).await?;
        cpu += report.cpu;
        clients.extend(report.heard);
    }
    show("commit to callback of supabase-js", &clients, &commits)?;
    show("commit to frame, a socket beside them", &raw, &commits)?;
    println!("processors used by the clients: {:.2}", cpu / began.elapsed().as_secs_f64());
    Ok(())
}

/// The run that all look at.
struct Run {
    project: Uuid,
    id: Uuid,
    client: Client,
}

impl Run {
    async fn append(&self, events: &serde_json::Value) -> anyhow::Result<()> {
        let append = self.client.prepare("select append_events($1, $2, null, $3)").await?;
        self.client.execute(&append, &[&self.project, &self.id, events]).await?;
        Ok(())
    }

    /// Appends line by line at the rate: when each was committed, from version 2 on.
    async fn fill(&self, args: &Args) -> anyhow::Result<Vec<f64>> {
        let append = self.client.prepare("select append_events($1, $2, null, $3)").await?;
        let payload = json!({ "level": "info", "message": "a line of a log" });
        let line = json!([{ "type": "log", "payload": payload }]);
        let mut ticks = interval(Duration::from_secs(1) / args.rate);
        // what was late is made up for, as from workers that do not wait for each other
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let began = Instant::now();
        let mut commits = Vec::new();
        while began.elapsed() < Duration::from_secs(args.seconds) {
            ticks.tick().await;
            self.client.execute(&append, &[&self.project, &self.id, &line]).await?;
            commits.push(now());
        }
        let appended = commits.len() as f64 / began.elapsed().as_secs_f64();
        println!("{appended:.0} events/s appended");
        Ok(commits)
    }
}

/// Prints how late the viewers were; one that is heard before its append has returned took no time.
fn show(what: &str, viewers: &[Heard], commits: &[f64]) -> anyhow::Result<()> {
    let last = i32::try_from(commits.len() + 1)?;
    let ended = viewers.iter().filter(|it| it.last().is_some_and(|it| it.0 == last)).count();
    let delay = |&(version, at): &(i32, f64)| {
        let commit = usize::try_from(version - 2).ok().and_then(|it| commits.get(it));
        commit.map(|commit| (at - commit).max(0.0))
    };
    let mut delays: Vec<_> = viewers.iter().flatten().filter_map(delay).collect();
    ensure!(!delays.is_empty(), "nobody heard anything");
    delays.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| delays[(delays.len() - 1) * share / 1000];
    println!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms; {} lines; viewers that heard the last: \
         {ended} of {}",
        at(500),
        at(990),
        at(1000),
        delays.len(),
        viewers.len()
    );
    Ok(())
}

/// Milliseconds since 1970, as `performance.timeOrigin + performance.now()` has them.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}
