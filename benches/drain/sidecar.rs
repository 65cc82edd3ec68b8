//! The release binary as a child process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::process;

/// A running `projector run`; killed when dropped.
pub(crate) struct Sidecar {
    child: Child,
    /// When the process was started.
    pub(crate) started: Instant,
    ready: Option<oneshot::Receiver<Instant>>,
}

impl Sidecar {
    /// Starts it on the definitions in `projections`. Its warnings go to our standard error.
    pub(crate) fn start(url: &str, projections: &Path) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut child = projector(url)
            .args(["run", "--listen", "127.0.0.1:0", "--log-format", "json", "--projections"])
            .arg(projections)
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start projector")?;
        let log = child.stderr.take().context("projector has no standard error")?;
        let (sender, ready) = oneshot::channel();
        std::thread::spawn(move || follow(log, sender));
        Ok(Self { child, started, ready: Some(ready) })
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
fn follow(log: ChildStderr, ready: oneshot::Sender<Instant>) {
    let mut ready = Some(ready);
    for line in BufReader::new(log).lines().map_while(Result::ok) {
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
