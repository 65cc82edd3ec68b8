//! The order of the modules is the order of the data: a module may use the ones before it, never one
//! after it.

use std::path::{Path, PathBuf};

const ORDER: &[&str] = &[
    "lsn",
    "ident",
    "event",
    "redact",
    "metrics",
    "config",
    "pg",
    "migrate",
    "wal",
    "pgoutput",
    "assembler",
    "definition",
    "fold",
    "apply",
    "history",
    "replay",
    "verify",
    "realtime",
    "engine",
    "http",
    "embedded",
    "workload",
    "cli",
];

#[test]
fn modules_use_only_the_ones_before_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rank = |name: &str| ORDER.iter().position(|it| *it == name);
    let mut wrong = Vec::new();
    for file in sources(&root) {
        let within = file.strip_prefix(&root).unwrap();
        let module = within.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(own) = rank(module) else { continue };
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                assert!(!used.is_empty(), "{}:{}: one root per `use`", file.display(), number + 1);
                if rank(used).is_some_and(|it| own < it) {
                    let at = within.display();
                    wrong.push(format!("{at}:{}: uses `{used}`, which comes later", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = std::fs::read_to_string(root.join("lib.rs")).unwrap();
    let modules: Vec<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(modules, ORDER);
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
    found
}
