//! The pages for `SvelteKit` in `docs/live-logs.md`: as they are printed there, built and looked at.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::browser::Browser;
use crate::support::hub::{Live, anon, member};
use crate::support::node::Node;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The numbers of a log's lines, as the page shows them.
const SHOWN: &str =
    r"[...document.querySelectorAll('p')].map((it) => Number(it.textContent.split('#')[1]))";

/// A built application that is served.
struct Site {
    child: Child,
    folder: PathBuf,
    url: String,
}

impl Site {
    /// What the document prints, in an application that has what a Supabase would bring.
    fn build(settings: &[(&str, String)]) -> Self {
        let node = Node::get();
        let fixture = Path::new(ROOT).join("tests/it/svelte");
        let packages = node.packages(&fixture);
        let folder = packages.join(format!("app-{}", Uuid::new_v4()));
        copy(&fixture.join("app"), &folder);
        let recipe = Path::new(ROOT).join("examples/live-log.mjs");
        fs::copy(recipe, folder.join("src/lib/live-log.mjs")).unwrap();
        let document = fs::read_to_string(Path::new(ROOT).join("docs/live-logs.md")).unwrap();
        let files = snippets(&document);
        let names: Vec<_> = files.iter().map(|it| it.0).collect();
        let page = "src/routes/runs/[id]";
        let (server, page) = (format!("{page}/+page.server.js"), format!("{page}/+page.svelte"));
        assert_eq!(names, ["src/lib/run-log.js", &server, &page]);
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let vite = |verb: &str| {
            let mut command: Command = node.command();
            command.arg(packages.join("node_modules/vite/bin/vite.js")).arg(verb);
            command.current_dir(&folder).env("NO_COLOR", "1").stdin(Stdio::null());
            command
        };
        let built = vite("build").output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{said}");
        assert!(!said.contains("svelte.dev/e/"), "the compiler warns: {said}");

        let mut command = vite("preview");
        command.args(["--host", "127.0.0.1", "--port", "0"]).envs(settings.iter().cloned());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let at = line.find("http://")?;
            Some(line[at..].trim().trim_end_matches('/').to_owned())
        });
        // it must not wait for somebody to read
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, folder, url: url.expect("an address") }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// The files that a document prints: blocks that begin with a comment with a path below `src`.
fn snippets(document: &str) -> Vec<(&str, &str)> {
    let blocks = document.split("\n```").skip(1).step_by(2);
    blocks
        .filter_map(|block| {
            let (_language, text) = block.split_once('\n')?;
            let first = text.lines().next()?;
            let comment = first.strip_prefix("// ").or_else(|| first.strip_prefix("<!-- "))?;
            let name = comment.split([' ', ':']).next()?;
            name.starts_with("src/").then_some((name, text))
        })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// Lines of a log, with these numbers.
fn lines(numbers: std::ops::Range<usize>) -> Value {
    numbers.map(|it| json!({ "type": "log", "payload": { "message": format!("#{it}") } })).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_for_sveltekit_show_every_line_of_the_run_that_is_looked_at() {
    let mut live = Live::start().await;
    let (project, one, other) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    // more than the server renders
    live.append(project, one, &lines(0..700)).await;
    live.append(project, other, &lines(0..3)).await;
    live.app.caught_up().await;
    let settings = [
        ("PUBLIC_PROJECTOR", live.url()),
        ("PUBLIC_ANON", anon()),
        ("PUBLIC_USER", member(&[project])),
        ("PUBLIC_RUNS", format!("{one} {other}")),
    ];
    let site = tokio::task::spawn_blocking(move || Site::build(&settings)).await.unwrap();
    let url = format!("{}/runs/{one}", site.url);

    let rendered = reqwest::get(&url).await.unwrap().text().await.unwrap();
    assert_eq!(rendered.matches("<p>").count(), 500, "{rendered}");

    let mut browser = Browser::open(&url, (1000, 800)).await;
    let shows = |browser: &mut Browser, count: usize| {
        browser.holds(&format!("{SHOWN}.length === {count}"));
        let wanted: Vec<_> = (0..count).collect();
        assert_eq!(browser.value(SHOWN), json!(wanted));
    };
    shows(&mut browser, 700);
    live.append(project, one, &lines(700..705)).await;
    shows(&mut browser, 705);

    // another run in the same page: its log, and no line of the first one
    browser.click(&format!("a[href='/runs/{other}']"));
    shows(&mut browser, 3);
    live.append(project, one, &lines(705..710)).await;
    live.append(project, other, &lines(3..5)).await;
    shows(&mut browser, 5);
    assert_eq!(live.metric("projector_realtime_channels").await, Some(1.0));

    browser.click(&format!("a[href='/runs/{one}']"));
    shows(&mut browser, 710);
    live = live.crash().await;
    live.append(project, one, &lines(710..715)).await;
    shows(&mut browser, 715);
}
