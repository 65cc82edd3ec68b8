//! Viewers with the real supabase-js, in processes of Node.js.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Heard;
use crate::node::Node;

/// A process with some viewers.
pub(crate) struct Viewers {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What a process has to say at the end.
#[derive(Deserialize)]
pub(crate) struct Report {
    /// Processor time since its viewers had joined, in seconds.
    pub(crate) cpu: f64,
    /// What each viewer has heard.
    pub(crate) heard: Vec<Heard>,
}

#[derive(Deserialize)]
struct Joined {
    joined: usize,
}

/// Starts a process whose clients have all joined.
pub(crate) async fn start(
    url: &str,
    key: &str,
    topic: &str,
    clients: usize,
) -> anyhow::Result<Viewers> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = tokio::task::spawn_blocking(|| {
        let node = Node::get();
        (node.command(), node.packages(&root.join("tests/it/js")))
    });
    let (node, packages) = found.await?;
    let mut command = Command::from(node);
    let what = json!({ "url": url, "key": key, "topic": topic, "clients": clients });
    command.arg(root.join("benches/viewers/clients.mjs")).arg(what.to_string());
    command.env("TEST_PACKAGES", packages).kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let orders = child.stdin.take().context("no stdin")?;
    let answers = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let mut viewers = Viewers { _child: child, orders, answers };
    let Joined { joined } = serde_json::from_str(&viewers.next().await?)?;
    ensure!(joined == clients, "{joined} of {clients} have joined");
    Ok(viewers)
}

impl Viewers {
    /// Waits until all have heard the last version.
    pub(crate) async fn report(&mut self, last: i32) -> anyhow::Result<Report> {
        self.orders.write_all(format!("{last}\n").as_bytes()).await?;
        Ok(serde_json::from_str(&self.next().await?)?)
    }

    async fn next(&mut self) -> anyhow::Result<String> {
        self.answers.next_line().await?.context("the clients have ended")
    }
}
