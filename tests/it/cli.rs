//! The command line, driven as its users drive it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use clap::CommandFactory;
use projector::cli::Cli;
use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::supabase;

const PROJECT: &str = "0198f2c1-0000-7000-8000-000000000001";
const RUN: &str = "0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10";

/// The binary without this machine's settings.
fn projector(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_projector"));
    command.args(arguments).env_clear().env("TERM", "dumb").env("USER", "tester");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

fn with_input(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that stops early closes the pipe.
    drop(stdin.write_all(input));
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_page_is_as_reviewed_and_fits_80_columns() {
    let verbs: Vec<_> =
        Cli::command().get_subcommands().map(|it| it.get_name().to_owned()).collect();
    let pages = std::iter::once(vec!["--help"])
        .chain(verbs.iter().map(|verb| vec![verb.as_str(), "--help"]))
        .collect::<Vec<_>>();

    for arguments in pages {
        let output = projector(&arguments).output().unwrap();

        assert_eq!(code(&output), 0, "{arguments:?}");
        let page = stdout(&output);
        for line in page.lines() {
            // An example is one line, to be copied as one.
            let example = line.starts_with("  projector ") || line.starts_with("  echo ");
            assert!(example || line.chars().count() <= 80, "{arguments:?}: {line}");
        }
        let name = arguments.join("_").replace("--", "");
        insta::assert_snapshot!(name, page);
    }
}

#[test]
fn bad_usage_ends_with_2_and_says_what_was_meant() {
    for (arguments, said) in [
        (vec!["statsu"], "similar subcommand exists: 'status'"),
        (vec!["append", "--batch", "0"], "0 is not in 1..=1000"),
        (vec!["tail", "--since", "5"], "`5` is not a span of time"),
        (vec!["migrate", "--print", "--dry-run"], "cannot be used with"),
        (vec!["status", "--database-url", "mysql://x"], "cannot tell which database to use"),
        (vec!["status", "--config", "/nowhere.toml"], "cannot read `/nowhere.toml`"),
        (vec!["run", "--log-format", "xml"], "--log-format: `log.format`: `xml` is not one of"),
    ] {
        let output = projector(&arguments).output().unwrap();

        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn an_unreachable_database_is_one_clear_error() {
    let url = "postgres://nobody:sesame@127.0.0.1:1/none";

    let output = projector(&["doctor", "--database-url", url]).output().unwrap();

    assert_eq!(code(&output), 1);
    insta::assert_snapshot!("unreachable", stderr(&output));
}

#[test]
fn an_error_for_a_machine_is_an_object() {
    let url = "postgres://nobody:sesame@127.0.0.1:1/none";

    let output =
        projector(&["doctor", "--output", "json", "--database-url", url]).output().unwrap();

    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"], "cannot connect to the database");
    assert_eq!(error["causes"][0], "cannot reach Postgres at `127.0.0.1:1`");
    assert!(error["hint"].is_string());
}

#[test]
fn a_problem_in_the_file_is_pointed_at() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("pointed-at.toml");
    std::fs::write(&path, "[source]\nslott = 'a'\n").unwrap();

    let output = projector(&["check", "--config", path.to_str().unwrap()]).output().unwrap();

    std::fs::remove_file(&path).unwrap();
    assert_eq!(code(&output), 2);
    let said = stderr(&output).replace(path.to_str().unwrap(), "projector.toml");
    insta::assert_snapshot!("problem_in_file", said);
}

#[test]
fn the_configuration_is_shown_with_origins_and_without_secrets() {
    let output = projector(&["check", "--show-config"])
        .env("DATABASE_URL", "postgres://u:sesame@h/d")
        .env("PROJECTOR_HTTP_LISTEN", "127.0.0.1:1")
        .output()
        .unwrap();

    assert_eq!(code(&output), 0, "{}", stderr(&output));
    insta::assert_snapshot!("show_config", stdout(&output));
}

#[test]
fn the_shipped_definitions_are_sound() {
    let output = projector(&["check"]).output().unwrap();

    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("projections/run_status.toml"), "{}", stdout(&output));
}

#[test]
fn colour_is_left_out_when_nobody_wants_it() {
    let coloured = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let output = projector(arguments).envs(variable).output().unwrap();
        stdout(&output).contains('\u{1b}')
    };

    assert!(coloured(&["check", "--color", "always"], None));
    assert!(!coloured(&["check"], None));
    assert!(!coloured(&["check", "--color", "never"], Some(("CLICOLOR_FORCE", "1"))));
    assert!(!coloured(&["check"], Some(("NO_COLOR", "1"))));
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = projector(&["completions", shell]).output().unwrap();

        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("append"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut command = projector(&["completions", "bash"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();

    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
}

#[tokio::test]
async fn migrate_tells_what_it_does_and_then_that_there_is_nothing_to_do() {
    let cluster = Cluster::start().await;
    let migrate = |arguments: &[&str]| {
        let mut all = vec!["migrate", "--database-url", cluster.socket_url()];
        all.extend(arguments);
        projector(&all).output().unwrap()
    };

    let dry = migrate(&["--dry-run"]);
    let first = migrate(&[]);
    let second = migrate(&[]);
    let printed = migrate(&["--print"]);

    assert!(stdout(&dry).contains("would apply "), "{}", stderr(&dry));
    assert!(stdout(&first).contains("applied "), "{}", stderr(&first));
    assert_eq!((code(&second), stdout(&second)), (0, "up to date\n".to_owned()));
    assert!(stdout(&printed).contains("create"), "{}", stderr(&printed));
}

#[tokio::test]
async fn doctor_names_each_problem_with_its_fix() {
    let cluster = Cluster::with(&[("wal_level", "replica")]).await;

    let output = projector(&["doctor", "--database-url", cluster.socket_url()]).output().unwrap();

    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let said = stdout(&output);
    assert!(said.contains("problem  wal_level"), "{said}");
    assert!(said.contains("fix: alter system set wal_level = logical"), "{said}");
    assert!(said.contains("problem  schema"), "{said}");
}

#[tokio::test]
async fn doctor_tries_the_login_that_follows_the_log() {
    let cluster = Cluster::start().await;
    cluster.batch("create role reader login").await;
    let url = cluster.socket_url().replace("postgres://postgres", "postgres://reader");
    assert_ne!(url, cluster.socket_url());

    let output = projector(&["doctor", "--database-url", &url]).output().unwrap();
    let said = stdout(&output);
    assert!(said.contains("problem  replication login"), "{said}");
    assert!(said.contains("fix: alter role \"reader\" replication"), "{said}");

    let output = projector(&["doctor", "--database-url", cluster.socket_url()]).output().unwrap();
    let said = stdout(&output);
    assert!(said.contains("ok       replication login"), "{said}");
}

#[tokio::test]
async fn doctor_tells_when_realtime_is_not_bound() {
    let cluster = Cluster::start().await;
    let url = cluster.socket_url();
    let doctor = || stdout(&projector(&["doctor", "--database-url", url]).output().unwrap());
    let migrate = || projector(&["migrate", "--database-url", url]).output().unwrap();
    assert_eq!(code(&migrate()), 0);
    assert!(doctor().contains("ok       realtime           no realtime.messages here"));

    cluster.batch(supabase::ROLES).await;
    cluster.batch(supabase::REALTIME).await;
    let said = doctor();
    assert!(said.contains("problem  realtime "), "{said}");
    assert!(said.contains("found: 5 missing"), "{said}");
    assert!(
        said.contains("create policy projector_members_receive on realtime.messages"),
        "{said}"
    );

    assert_eq!(code(&migrate()), 0);
    assert!(doctor().contains("ok       realtime           realtime.messages has projector's"));
}

#[tokio::test]
async fn what_the_server_remarks_is_in_the_report_of_migrate() {
    let store = Store::start().await;
    // a run of a month whose partition is missing keeps that partition from being made
    store
        .0
        .batch(
            "do $$ declare
               last timestamp := date_trunc('month', now() at time zone 'UTC') + interval '3 months';
             begin
               execute format('drop table projector.%I', to_char(last, '\"events_\"YYYY_MM'));
               insert into events (project_id, run_id, version, type, payload, metadata)
               values (gen_random_uuid(), projector.first_uuid_at(last at time zone 'UTC'), 1, 'log', '{}', '{}');
             end $$",
        )
        .await;

    let url = store.0.socket_url();
    let output =
        projector(&["migrate", "--output", "json", "--database-url", url]).output().unwrap();

    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let warnings = report["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|it| it.as_str().unwrap().contains("is left out")), "{report}");
}

/// A migrated database and its events.
struct Store(Cluster);

impl Store {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let output =
            projector(&["migrate", "--database-url", cluster.socket_url()]).output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        Self(cluster)
    }

    fn append(&self, arguments: &[&str], lines: &str) -> Output {
        let mut all = vec!["append", "--database-url", self.0.socket_url()];
        all.extend(arguments);
        with_input(projector(&all), lines.as_bytes())
    }

    async fn types(&self) -> Vec<String> {
        let sql = "select type from events order by run_id, version";
        let rows = self.0.client().await.query(sql, &[]).await.unwrap();
        rows.iter().map(|it| it.get(0)).collect()
    }
}

#[tokio::test]
async fn bad_lines_are_named_and_the_others_are_appended() {
    let store = Store::start().await;
    let lines = r#"{"type": "one"}
not json
{"type": "two", "payload": {"a": 1}}

{"type": ""}
{"type": "three", "payload": [1]}
{"typo": "four"}
{"type": "five", "payload": {"nul": "\u0000"}}
{"type": "six", "recorded_at": "yesterday"}
{"type": "seven", "expected_version": 9}
{"type": "eight"}
{"type": "nine", "expected_version": 2}
"#;

    let output = store.append(&["--project", PROJECT, "--run", RUN], lines);

    assert_eq!(code(&output), 1);
    insta::assert_snapshot!("append_bad_lines", stderr(&output));
    assert_eq!(stdout(&output), "3 events appended, 8 refused; 12 lines read\n");
    assert_eq!(store.types().await, ["one", "two", "nine"]);
}

#[tokio::test]
async fn strict_stops_at_the_first_bad_line() {
    let store = Store::start().await;
    let lines = "{\"type\": \"one\"}\n{\n{\"type\": \"two\"}\n";

    let output = store.append(&["--project", PROJECT, "--run", RUN, "--strict"], lines);

    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("line 2: not JSON"), "{}", stderr(&output));
    assert_eq!(stdout(&output), "1 events appended, 1 refused; 2 lines read\n");
    assert_eq!(store.types().await, ["one"]);
}

#[tokio::test]
async fn many_runs_are_appended_in_the_order_of_their_lines() {
    let store = Store::start().await;
    let mut lines = String::new();
    for version in 1..=20 {
        for run in 0..50 {
            lines += &format!(
                "{{\"type\": \"e{version:02}\", \"run_id\": \"00000000-0000-4000-8000-{run:012}\"}}\n"
            );
        }
    }

    let output = store.append(&["--project", PROJECT, "--output", "json"], &lines);

    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["appended"], 1000, "{}", stderr(&output));
    let expected: Vec<_> =
        (0..50).flat_map(|_| (1..=20).map(|version| format!("e{version:02}"))).collect();
    assert_eq!(store.types().await, expected);
}

#[tokio::test]
async fn a_file_with_event_ids_can_be_appended_again() {
    let store = Store::start().await;
    let line = |id: u32| {
        format!("{{\"type\": \"e{id}\", \"event_id\": \"00000000-0000-4000-8000-{id:012}\"}}\n")
    };
    let arguments = ["--project", PROJECT, "--run", RUN];
    store.append(&arguments, &(line(1) + &line(2)));

    let output = store.append(&arguments, &(line(1) + &line(2) + &line(3)));

    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    assert_eq!(store.types().await, ["e1", "e2", "e3"]);
}

#[tokio::test]
async fn appending_before_migrating_says_what_to_do() {
    let cluster = Cluster::start().await;

    let command = projector(&["append", "--database-url", cluster.socket_url()]);
    let output = with_input(command, b"{}\n");

    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("hint: bring the schema up to date with `projector migrate`"));
}

/// A stand-in for the read model, which the sidecar makes from its definition.
const RUN_LOG: &str = "
    create table run_log (
      run_id uuid, version int, project_id uuid, at timestamptz, type text, level text,
      step_id text, message text, fields jsonb, primary key (run_id, version));
    create function log_it() returns trigger language plpgsql as $$
    begin
      insert into public.run_log values (new.run_id, new.version, new.project_id, new.recorded_at, new.type,
        'info', new.payload ->> 'step_id', new.payload ->> 'message', new.payload -> 'fields');
      return new;
    end $$;
    create trigger log_it after insert on events for each row execute function log_it();";

/// `projector tail` while it runs.
struct Tail {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Tail {
    fn start(store: &Store, arguments: &[&str]) -> Self {
        let mut all = vec!["tail", "--database-url", store.0.socket_url()];
        all.extend(arguments);
        let mut child = projector(&all).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    fn interrupt(&mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

/// A test that fails leaves none behind.
impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn a_run_is_shown_from_its_beginning_and_followed() {
    let store = Store::start().await;
    store.0.batch(RUN_LOG).await;
    let arguments = ["--project", PROJECT, "--run", RUN];
    let event = r#"{"type": "log", "recorded_at": "2026-11-23T09:00:00.5Z", "payload": {"message": "hello", "step_id": "pay"}}"#;
    store.append(&arguments, event);

    let mut tail = Tail::start(&store, &["--run", RUN]);
    let first = tail.next();
    store.append(&arguments, r#"{"type": "run_succeeded"}"#);
    let second = tail.next();

    assert_eq!(first, "09:00:00.500 info     1  pay  hello\n");
    assert!(second.ends_with("   2  run_succeeded\n"), "{second}");
    assert_eq!(tail.interrupt(), 0);
}

#[tokio::test]
async fn an_event_that_commits_late_is_followed_too() {
    let store = Store::start().await;
    store.0.batch(RUN_LOG).await;
    store.append(&["--project", PROJECT, "--run", RUN], r#"{"type": "before"}"#);
    let late = store.0.client().await;
    let append = |id: u8, kind: &str| {
        format!(
            "select append_events('{PROJECT}', '00000000-0000-4000-8000-00000000000{id}', 0, '[{{\"type\": \"{kind}\"}}]')"
        )
    };
    late.batch_execute(&format!("begin; {}", append(1, "late"))).await.unwrap();

    let mut tail = Tail::start(&store, &["--since", "1d", "--output", "json"]);
    let first: Value = serde_json::from_str(&tail.next()).unwrap();
    store.0.batch(&append(2, "early")).await;
    let second: Value = serde_json::from_str(&tail.next()).unwrap();
    late.batch_execute("commit").await.unwrap();
    let third: Value = serde_json::from_str(&tail.next()).unwrap();

    let kinds = [&first["type"], &second["type"], &third["type"]];
    assert_eq!(kinds, ["before", "early", "late"]);
    assert_eq!(tail.interrupt(), 0);
}
