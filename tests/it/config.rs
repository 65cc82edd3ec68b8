//! The configuration as its users meet it, and its reference page.

use std::path::{Path, PathBuf};

use projector::config::{Config, ConfigError, Environment, Flag, Loaded, Size, load, reference};

/// A file of its own, gone with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().copied().collect()
}

fn config(toml: &str, pairs: &[(&str, &str)], flags: &[Flag]) -> Result<Loaded, ConfigError> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let file = File::new(&format!("{number}.toml"), toml);
    load(Some(&file.0), &environment(pairs), flags)
}

fn problems(toml: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let ConfigError(problems) = config(toml, pairs, &[]).unwrap_err();
    // The file's folder is this machine's business.
    problems.iter().map(|it| it.to_string().rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let toml = "[http]\nlisten = '127.0.0.1:1'\n[limits]\nmemory = '1MiB'\n[source]\nslot = 'a'\n";
    let pairs = [("PROJECTOR_HTTP_LISTEN", "127.0.0.1:2"), ("PROJECTOR_LIMITS_MEMORY", "2MiB")];
    let flag = Flag {
        option: "--listen",
        section: "http",
        key: "listen",
        value: "127.0.0.1:3".to_owned(),
    };

    let loaded = config(toml, &pairs, &[flag]).unwrap();

    let Config { http, limits, source, .. } = &loaded.config;
    assert_eq!(http.listen.port(), 3);
    assert_eq!(limits.memory, Size::from_bytes(2 << 20));
    assert_eq!(source.slot.as_str(), "a");
    assert_eq!(limits.batch_events.get(), 20_000);
    let of = |key: &str| loaded.shown.iter().find(|it| it.key == key).unwrap().origin.to_string();
    assert_eq!(of("http.listen"), "--listen");
    assert_eq!(of("limits.memory"), "PROJECTOR_LIMITS_MEMORY");
    assert!(of("source.slot").ends_with(".toml:6"), "{}", of("source.slot"));
    assert_eq!(of("limits.batch_events"), "default");
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_name() {
    let found = problems("[limits]\nbatch_event = 3\n[sorce]\nslot = 'a'\n", &[]);

    assert_eq!(found.len(), 2);
    assert!(
        found[0].contains(
            ".toml:2:1: unknown key `batch_event` in [limits]; did you mean `batch_events`?"
        ),
        "{found:?}"
    );
    assert!(
        found[1].contains(".toml:3:2: unknown section `[sorce]`; did you mean `[source]`?"),
        "{found:?}"
    );
}

#[test]
fn an_unknown_variable_is_refused_when_it_can_only_be_ours() {
    let found = problems("", &[("PROJECTOR_HTTP_LISTN", "x"), ("PROJECTOR_LIMIT_MEMORY", "1MiB")]);

    assert_eq!(
        found,
        [
            "PROJECTOR_HTTP_LISTN: unknown variable `PROJECTOR_HTTP_LISTN`; did you mean `PROJECTOR_HTTP_LISTEN`?",
            "PROJECTOR_LIMIT_MEMORY: unknown variable `PROJECTOR_LIMIT_MEMORY`; did you mean `PROJECTOR_LIMITS_MEMORY`?",
        ]
    );
}

#[test]
fn the_variables_that_kubernetes_makes_for_a_service_are_left_alone() {
    let pairs = [
        ("PROJECTOR_SERVICE_HOST", "10.0.0.1"),
        ("PROJECTOR_PORT", "tcp://10.0.0.1:4400"),
        ("PROJECTOR_PORT_4400_TCP_ADDR", "10.0.0.1"),
    ];

    assert!(config("", &pairs, &[]).is_ok());
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place() {
    let found = problems("[limits]\nmemory = 64\nbatch_bytes = '4MB'\n", &[]);

    assert!(
        found[0].contains(".toml:3:15: `limits.batch_bytes`: `4MB` is not a size"),
        "{found:?}"
    );
    assert!(found[1].contains(".toml:2:10: `limits.memory`: expected a size"), "{found:?}");
}

#[test]
fn a_secret_comes_from_a_file_and_is_never_shown() {
    let token = File::new("token", "sesame\n");
    let path = token.0.to_str().unwrap();
    let pairs =
        [("PROJECTOR_HTTP_ADMIN_TOKEN_FILE", path), ("DATABASE_URL", "postgres://u:pw@h/d")];

    let loaded = config("", &pairs, &[]).unwrap();

    assert_eq!(loaded.config.http.admin_token.as_ref().unwrap().expose(), "sesame");
    let seen = format!("{loaded:?}");
    assert!(!seen.contains("sesame") && !seen.contains("pw@"), "{seen}");
}

#[test]
fn columns_are_renamed_one_by_one() {
    let toml = "[source]\ncolumns = { run_id = 'stream_id' }\n";

    let loaded = config(toml, &[], &[]).unwrap();

    let pairs = loaded.config.source.columns.pairs();
    assert_eq!(pairs[2].1.as_str(), "stream_id");
    assert_eq!(pairs[3].1.as_str(), "version");
    assert!(config("", &[("PROJECTOR_SOURCE_COLUMNS", "run=stream_id")], &[]).is_err());
}

#[test]
fn what_no_realtime_could_take_is_refused() {
    let toml = "[realtime]\nmode = 'on'\nurl = 'ftp://u:sesame@h'\nmessage_bytes = '3MiB'\n";

    let found = problems(toml, &[("PROJECTOR_REALTIME_URL", "https://u:sesame@h")]);

    assert!(found[0].contains("`on` is not one of off, http, sql, embedded"), "{found:?}");
    assert!(found[1].contains("no name and password in the address"), "{found:?}");
    assert!(found[2].contains("`3MiB` is not a size from `1KiB` to `2MiB`"), "{found:?}");
    assert!(!found.concat().contains("sesame"), "{found:?}");
}

/// `PROJECTOR_UPDATE_DOCS=1 cargo test` writes it.
#[test]
fn the_reference_page_is_the_doc_comments() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/configuration.md");
    if std::env::var_os("PROJECTOR_UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, reference()).unwrap();
    }

    let page = std::fs::read_to_string(&path).unwrap_or_default();

    assert!(page == reference(), "{} is out of date; see this test", path.display());
}
