//! The real supabase-js, in a Node.js of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::eventually::eventually;
use crate::support::node::Node;

/// A client that does what a test says, and tells what it sees.
pub(crate) struct Js {
    child: Child,
    stdin: ChildStdin,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Js {
    /// One that has not connected.
    pub(crate) fn start() -> Self {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/js"));
        let node = Node::get();
        let packages = node.packages(folder);
        let mut command = node.command();
        command.arg(folder.join("client.mjs")).env("TEST_PACKAGES", packages);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let events = Arc::new(Mutex::new(Vec::new()));
        let gathered = Arc::clone(&events);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                gathered.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, stdin, events }
    }

    /// One that has connected, as the user of `token` if there is one.
    pub(crate) async fn connected(url: &str, key: &str, token: Option<&str>, vsn: &str) -> Self {
        let mut js = Self::start();
        if let Some(token) = token {
            js.run(json!({ "do": "token", "value": token })).await;
        }
        js.run(json!({ "do": "connect", "url": url, "key": key, "vsn": vsn })).await;
        js
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&mut self, command: Value) {
        let seen = self.seen();
        writeln!(self.stdin, "{command}").unwrap();
        let verb = command["do"].clone();
        let what = format!("the end of {verb}");
        let ended = self.sees_after(seen, &what, |it| {
            (it["kind"] == "done" || it["kind"] == "failed") && it["verb"] == verb
        });
        let ended = ended.await;
        assert_eq!(ended["kind"], "done", "{ended}");
    }

    /// How many events there are.
    pub(crate) fn seen(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// Waits for an event.
    pub(crate) async fn sees(&self, what: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
        self.sees_after(0, what, is_meant).await
    }

    /// Waits for one after the first `seen`.
    pub(crate) async fn sees_after(
        &self,
        seen: usize,
        what: &str,
        is_meant: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(what, async || {
            let events = self.events.lock().unwrap();
            events.iter().skip(seen).find(|it| is_meant(it)).cloned().ok_or_else(|| events.clone())
        })
        .await
    }

    /// Waits for a status of a channel after the first `seen` events.
    pub(crate) async fn status(&self, seen: usize, topic: &str, status: &str) -> Value {
        self.sees_after(seen, &format!("{status} of {topic}"), |it| {
            it["kind"] == "status" && it["topic"] == topic && it["status"] == status
        })
        .await
    }

    /// Waits for a message whose payload is this.
    pub(crate) async fn message(&self, payload: &Value) -> Value {
        self.sees(&format!("the message {payload}"), |it| {
            it["kind"] == "message" && it["payload"] == *payload
        })
        .await
    }

    /// All messages so far.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let events = self.events.lock().unwrap();
        events.iter().filter(|it| it["kind"] == "message").cloned().collect()
    }
}

impl Drop for Js {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
