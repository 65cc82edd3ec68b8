//! The release binary as a child process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::process;
use crate::report::Told;

/// A running `projector run`; killed when dropped.
pub(crate) struct Sidecar {
    child: Child,
    /// When the process was started.
    pub(crate) started: Instant,
    ready: Option<oneshot::Receiver<Instant>>,
    /// Where it answers, once it has said so.
    address: Arc<OnceLock<String>>,
}

impl Sidecar {
    /// Starts it on the definitions in `projections`, with the embedded Realtime if there are to be
    /// broadcasts. Its warnings go to our standard error.
    pub(crate) fn start(url: &str, projections: &Path, broadcasts: bool) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut command = projector(url);
        if broadcasts {
            command.env("PROJECTOR_REALTIME_MODE", "embedded");
            command.env("PROJECTOR_REALTIME_JWT_SECRET", "a secret that signs no token at all");
        }
        let mut child = command
            .args(["run", "--listen", "127.0.0.1:0", "--log-format", "json", "--projections"])
            .arg(projections)
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start projector")?;
        let log = child.stderr.take().context("projector has no standard error")?;
        let (sender, ready) = oneshot::channel();
        let address = Arc::<OnceLock<String>>::default();
        let said = Arc::clone(&address);
        std::thread::spawn(move || follow(log, sender, &said));
        Ok(Self { child, started, ready: Some(ready), address })
    }

    /// Waits until it streams.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<Instant> {
        let ready = self.ready.take().context("waited for before")?;
        ready.await.context("projector ended before it was ready")
    }

    /// The process id.
    pub(crate) fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    /// What it has broadcast so far.
    pub(crate) async fn told(&self) -> anyhow::Result<Told> {
        let address = self.address.get().context("it has not said where it listens")?;
        let answer = reqwest::get(format!("http://{address}/api/projections")).await?;
        let status: Value = serde_json::from_slice(&answer.bytes().await?)?;
        let count = |name: &str| {
            status
                .pointer(&format!("/broadcasts/{name}"))
                .and_then(Value::as_u64)
                .context("no status")
        };
        Ok(Told {
            messages: count("sent_total")?,
            skipped: count("skipped_total")?,
            waiting: count("backlog_lines")?,
        })
    }

    /// An error once the process has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("projector ended with {status}"),
            None => Ok(()),
        }
    }

    /// Ends it in good order.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        process::wait(&mut self.child).map(drop)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Creates everything in an empty database.
pub(crate) fn migrate(url: &str) -> anyhow::Result<()> {
    let output = projector(url).args(["migrate", "--quiet"]).output()?;
    ensure!(output.status.success(), "migrate: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn projector(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_projector"));
    command.env("DATABASE_URL", url).env_remove("RUST_LOG").current_dir("/");
    command
}

/// Reads the log to its end; passes on what is worse than information.
fn follow(log: ChildStderr, ready: oneshot::Sender<Instant>, address: &OnceLock<String>) {
    let mut ready = Some(ready);
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        let said = serde_json::from_str::<Value>(&line).unwrap_or_default();
        if let Some(listen) = said.get("listen").and_then(Value::as_str) {
            address.get_or_init(|| listen.to_owned());
        }
        if line.contains("\"ready\"")
            && let Some(ready) = ready.take()
        {
            if ready.send(Instant::now()).is_err() {
                eprintln!("projector was ready after nobody waited for it any more");
            }
        } else if !line.contains("\"INFO\"") {
            eprintln!("{line}");
        }
    }
}
