//! What the documents say is so: links lead somewhere, commands exist, messages are ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use projector::cli::Cli;
use projector::definition::{self, case};
use projector::fold::cases;
use projector::redact::Redactor;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every file below `folder` whose name ends like that.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found
}

fn documents() -> Vec<PathBuf> {
    let mut list = files("docs", ".md");
    list.extend([root().join("README.md"), root().join("CHANGELOG.md")]);
    list
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|it| it.split_once(')')).map(|(target, _)| target)
}

/// A heading as GitHub names it.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|it| it.starts_with('#'));
    let name = |it: &str| {
        let words = it.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|it| it.is_alphanumeric() || "-_".contains(*it)).collect()
    };
    headings.map(name).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_of_it() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text).filter(|it| !it.starts_with("http")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let found = target.exists() && anchor.is_empty()
                || fs::read_to_string(&target).is_ok_and(|it| anchors(&it).contains(anchor));
            if !found {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_command_in_the_documents_exists() {
    let cli = Cli::command();
    let verbs: BTreeSet<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let options: BTreeSet<String> = cli
        .get_subcommands()
        .chain([&cli])
        .flat_map(clap::Command::get_arguments)
        .filter_map(|it| it.get_long())
        .map(|it| format!("--{it}"))
        .collect();
    let mut unknown = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let commands = code(&text).filter_map(|it| it.strip_prefix("projector "));
        for command in commands {
            let mut words = command.split([' ', '\t', ';', '|']);
            let verb = words.next().unwrap();
            let is_verb = verbs.contains(verb) || !verb.starts_with(|it: char| it.is_lowercase());
            let strange = words
                .take_while(|it| *it != "#" && *it != "&&")
                .filter(|it| it.starts_with("--") && !options.contains(*it))
                .count();
            if !is_verb || 0 < strange {
                unknown.push(format!("{}: projector {command}", document.display()));
            }
        }
    }
    assert_eq!(unknown, Vec::<String>::new());
}

/// Code in backticks, and the lines of shell blocks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let mut block = None;
    text.lines().flat_map(move |line| {
        let mut found = Vec::new();
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language) };
        } else {
            match block {
                Some("sh") => found.push(line),
                Some(_) => {}
                None => found.extend(line.split('`').skip(1).step_by(2)),
            }
        }
        found
    })
}

#[test]
fn every_message_in_the_errors_page_is_one_of_ours() {
    let mut sources = String::new();
    for path in files("src", ".rs").into_iter().chain(files("migrations", ".sql")) {
        sources.push_str(&fs::read_to_string(path).unwrap());
    }
    let page = read("docs/reference/errors.md");
    let mut unknown = Vec::new();
    for row in page.lines().filter(|it| it.starts_with("| ")) {
        let Some(message) = row.split("``").nth(1) else { continue };
        for part in message.split('…').map(|it| it.trim_matches([' ', '`', ',', ':'])) {
            if 2 < part.len() && !sources.contains(part) {
                unknown.push(part.to_owned());
            }
        }
    }
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn every_code_of_the_api_is_in_the_errors_page() {
    let page = read("docs/reference/errors.md");
    let source = read("src/http/error.rs");
    let words = source.split('"').skip(1).step_by(2);
    let is_code =
        |it: &&str| 3 < it.len() && it.chars().all(|it| it.is_ascii_lowercase() || it == '_');
    let of_json = ["error", "code", "message", "hint"];
    let codes: Vec<_> = words.filter(is_code).filter(|it| !of_json.contains(it)).collect();

    let missing: Vec<_> = codes.iter().filter(|it| !page.contains(&format!("`{it}`"))).collect();

    assert!(5 < codes.len(), "{codes:?}");
    assert_eq!(missing, Vec::<&&str>::new());
}

#[test]
fn the_projection_of_the_readme_makes_the_row_it_shows() {
    let readme = read("README.md");
    let toml = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let definition = definition::parse(Path::new("orders.toml"), toml).unwrap();
    let text = r#"
[[case]]
name   = "the events of the README"
given  = [
  { type = "item_added", payload = { sku = "cup" } },
  { type = "item_added", payload = { sku = "pot", quantity = 2 } },
  { type = "order_shipped" },
]
expect = [{ status = "shipped", items = 3 }]
"#;
    let case = case::parse(Path::new("orders.toml"), text).unwrap().remove(0);

    let differences = cases::run(&definition, &case, &Redactor::default()).unwrap();

    assert_eq!(differences, []);
    assert!(readme.contains("| shipped | 3 |"));
}

#[test]
fn the_first_page_stays_short_and_every_test_it_names_exists() {
    let readme = read("README.md");
    let row = |it: &&str| it.starts_with('|') && it.contains("[`");
    let named: Vec<_> = readme.lines().filter(row).collect();

    assert!(readme.lines().count() < 200);
    for line in named {
        for (file, test) in tests_in(line) {
            let text = read(file);
            assert!(text.contains(&format!("fn {test}(")), "{file} has no test `{test}`");
        }
    }
}

/// The pairs of ``[`test`](file)``.
fn tests_in(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split("[`").skip(1).filter_map(|it| {
        let (test, rest) = it.split_once("`](")?;
        Some((rest.split_once(')')?.0, test))
    })
}
