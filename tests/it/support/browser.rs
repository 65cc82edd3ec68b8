//! A real browser, driven by Playwright: a Chromium without a window, of this machine or installed.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::support::cluster::fresh_path;
use crate::support::eventually::limit;
use crate::support::node::Node;

/// The driver and the packages it needs.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/browser");

/// A browser with one page; ended when dropped.
pub(crate) struct Browser {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
    profile: PathBuf,
}

impl Browser {
    /// Opens a page of this size.
    pub(crate) async fn open(url: &str, (width, height): (u32, u32)) -> Self {
        let mut browser = tokio::task::spawn_blocking(Self::start).await.unwrap();
        browser.ask(json!({ "do": "open", "url": url, "width": width, "height": height }));
        browser
    }

    fn start() -> Self {
        let folder = Path::new(FOLDER);
        let node = Node::get();
        let profile = fresh_path().with_extension("browser");
        std::fs::create_dir_all(&profile).unwrap();
        let mut command = node.command();
        command.arg(folder.join("driver.mjs")).arg(chromium()).arg(&profile);
        command.arg(limit().as_millis().to_string()).env("TEST_PACKAGES", node.packages(folder));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (orders, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, orders, answers, profile }
    }

    /// Asks the driver for something, and waits for its answer.
    fn ask(&mut self, order: Value) -> Value {
        let answer = tokio::task::block_in_place(|| {
            writeln!(self.orders, "{order}").unwrap();
            // the driver's own limit comes first, and says more
            self.answers.recv_timeout(limit() * 2).unwrap()
        });
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["error"].is_null(), "{order}: {}", answer["error"].as_str().unwrap());
        answer["value"].clone()
    }

    /// Waits until something that the selector finds is seen.
    pub(crate) fn sees(&mut self, selector: &str) {
        self.ask(json!({ "do": "sees", "on": selector }));
    }

    /// Waits until something that the selector finds is seen, with this text in it.
    pub(crate) fn reads(&mut self, selector: &str, text: &str) {
        self.ask(json!({ "do": "sees", "on": selector, "text": text }));
    }

    /// Waits until nothing that the selector finds is seen.
    pub(crate) fn misses(&mut self, selector: &str) {
        self.ask(json!({ "do": "misses", "on": selector }));
    }

    pub(crate) fn click(&mut self, selector: &str) {
        self.ask(json!({ "do": "click", "on": selector }));
    }

    pub(crate) fn fill(&mut self, selector: &str, text: &str) {
        self.ask(json!({ "do": "fill", "on": selector, "text": text }));
    }

    /// Presses keys one after the other, wherever the focus is: `Enter`, `j`.
    pub(crate) fn press(&mut self, keys: &[&str]) {
        for key in keys {
            self.ask(json!({ "do": "press", "key": key }));
        }
    }

    /// What an expression of JavaScript gives in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        self.ask(json!({ "do": "value", "expression": expression }))
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn holds(&mut self, expression: &str) {
        self.ask(json!({ "do": "holds", "expression": expression }));
    }

    /// Goes to an address, or anew to the same.
    pub(crate) fn goes(&mut self, url: &str) {
        self.ask(json!({ "do": "goes", "url": url }));
    }

    pub(crate) fn goes_back(&mut self) {
        self.ask(json!({ "do": "back" }));
    }

    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        self.ask(json!({ "do": "resize", "width": width, "height": height }));
    }

    /// `light` or `dark`, as the system would say.
    pub(crate) fn prefers(&mut self, colours: &str) {
        self.ask(json!({ "do": "prefers", "colours": colours }));
    }

    /// Cuts the network off, or lets it be there again.
    pub(crate) fn offline(&mut self, is_offline: bool) {
        self.ask(json!({ "do": "offline", "is": is_offline }));
    }

    /// What axe finds wrong with the page as it is: rule and places.
    pub(crate) fn faults(&mut self) -> Vec<String> {
        let faults = self.ask(json!({ "do": "axe" }));
        serde_json::from_value(faults).unwrap()
    }

    /// What the browser complained of since the start: exceptions, refused scripts, failed requests.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let complaints = self.ask(json!({ "do": "complaints" }));
        serde_json::from_value(complaints).unwrap()
    }

    /// Keeps a picture of the page in the folder that `PROJECTOR_TEST_SHOTS` names, if it does.
    pub(crate) fn shoot(&mut self, name: &str) {
        if let Some(folder) = std::env::var_os("PROJECTOR_TEST_SHOTS") {
            let path = Path::new(&folder).join(format!("{name}.png"));
            self.ask(json!({ "do": "shoot", "path": path }));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // its driver ends the browser when nobody gives orders any more
        drop(writeln!(self.orders, "{}", json!({ "do": "end" })));
        drop(self.answers.recv_timeout(limit()));
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.profile));
    }
}

/// The browser's program: one of this machine, or Debian's package where it may be installed, or one
/// that is packed for npm.
fn chromium() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let known = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
        let find = || known.iter().find_map(|it| in_path(it));
        // one test process installs, and the others find it done
        let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chromium.lock");
        let lock = std::fs::File::create(lock).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let installed = || if install() { find() } else { None };
        find().or_else(installed).unwrap_or_else(packed)
    })
}

fn in_path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).map(|it| it.join(program)).find(|it| it.is_file())
}

/// As root, or through sudo where that asks for no password; says whether that went well.
#[allow(clippy::print_stderr, reason = "whoever waits wants to know for what")]
fn install() -> bool {
    if in_path("apt-get").is_none() {
        return false;
    }
    let is_root = rustix::process::geteuid().is_root();
    let apt = |arguments: &[&str]| {
        let mut command = Command::new(if is_root { "apt-get" } else { "sudo" });
        if !is_root {
            command.args(["-n", "apt-get"]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments).arg("-qq");
        command.output().is_ok_and(|it| it.status.success())
    };
    eprintln!("no browser here: installing chromium for the tests");
    apt(&["update"]) && apt(&["install", "-y", "--no-install-recommends", "chromium"])
}

/// The one of npm, unpacked.
fn packed() -> PathBuf {
    let node = Node::get();
    let packages = node.packages(&Path::new(FOLDER).join("packed"));
    let script = "import('@sparticuz/chromium').then(async (it) =>
         console.log(await it.default.executablePath()))";
    let output = node.command().args(["-e", script]).current_dir(packages).output().unwrap();
    let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    assert!(path.is_file(), "there is no browser; try: sudo apt-get install chromium");
    path
}
