//! The command line's grammar and its help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::config::{Flag, Period};
use crate::definition::parse_time;
use crate::event::Timestamp;
use crate::lsn::Lsn;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  bad usage or configuration
  3  a difference was found

Every key of projector.toml is also a variable: PROJECTOR_SECTION_KEY.";

/// Read models that follow an append-only Postgres table: exactly once, within milliseconds.
#[derive(Debug, Parser)]
#[command(name = "projector", version, max_term_width = 80, after_help = AFTER_HELP)]
#[command(
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that stand before or after any verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
#[expect(clippy::doc_markdown, reason = "these comments are the text of the help")]
pub struct Global {
    /// The database, as a URL [else DATABASE_URL, PGHOST, PGUSER …]
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// The configuration file [else PROJECTOR_CONFIG, projector.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder of the definitions [default: projections]
    #[arg(long, global = true, value_name = "DIR")]
    pub projections: Option<String>,
    /// How results are written to standard output
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
    /// When to use colour; NO_COLOR is heeded
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
    /// Only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// More of the log: -v debug, -vv trace
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How log lines are written: auto, text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people, within 80 columns
    #[default]
    Text,
    /// One document, or one object a line for what goes on
    Json,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal that can
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything here and now: a private Postgres, a sample workload, the console
    Dev(DevArgs),
    /// Bring the database's schema up to date; safe to repeat
    Migrate(MigrateArgs),
    /// Follow the events table and keep the read models in step
    Run(RunArgs),
    /// Append events, one JSON object a line on standard input
    #[command(long_about = APPEND)]
    Append(AppendArgs),
    /// Show each projection's state and lag, and the slot's health
    Status(StatusArgs),
    /// Make read models anew from history, while the present rows serve
    #[command(long_about = REBUILD)]
    Rebuild(RebuildArgs),
    /// Compare read models with history, row by row, while they go on
    #[command(long_about = VERIFY)]
    Verify(VerifyArgs),
    /// Stop projections where they are; their rows stay readable
    Pause(PauseArgs),
    /// Let paused projections go on
    #[command(long_about = RESUME)]
    Resume(ResumeArgs),
    /// Wait until a read model includes what has been committed
    Wait(WaitArgs),
    /// Say what the definitions would change in the database, and rebuild
    Plan(PlanArgs),
    /// Drop the rows of projections whose definition is gone
    #[command(long_about = PRUNE)]
    Prune(PruneArgs),
    /// See what was set aside because it cannot be applied, try it again or give it up
    #[command(long_about = DEAD_LETTERS)]
    DeadLetters(DeadLettersArgs),
    /// Check the definitions and the configuration, without a database
    Check(CheckArgs),
    /// Run the definitions' given/expect cases, without a database
    Test(TestArgs),
    /// Find out what keeps the database from being followed, and how to fix it
    Doctor(DoctorArgs),
    /// Follow the log of all runs, of a project or of one run
    #[command(long_about = TAIL)]
    Tail(TailArgs),
    /// Show what a run's read models said at an earlier moment, from history alone
    Replay(ReplayArgs),
    /// Show which events made a row what it is, column by column, and by which rules
    Explain(ExplainArgs),
    /// Write a shell's completion script
    Completions(CompletionsArgs),
}

/// `projector dev`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector dev
  projector dev --fresh --rate 500")]
pub struct DevArgs {
    /// Begin with an empty database
    #[arg(long)]
    pub fresh: bool,
    /// How many events a second the sample workload appends; 0 for none
    #[arg(long, value_name = "EVENTS", default_value_t = 20)]
    pub rate: u32,
    /// Where the private Postgres keeps its data [default: .projector]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The address of the console and the API [default: 127.0.0.1:4400]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

/// `projector migrate`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector migrate --dry-run
  projector migrate --print > supabase/migrations/20261123000000_projector.sql")]
pub struct MigrateArgs {
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with = "print")]
    pub dry_run: bool,
    /// Write the SQL to standard output, for another migration tool
    #[arg(long)]
    pub print: bool,
}

/// `projector run`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector run --database-url postgres://projector@db.internal/app
  projector run --config /etc/projector.toml --log-format json")]
pub struct RunArgs {
    /// The address of health, metrics and API [default: 127.0.0.1:4400]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

const APPEND: &str = "\
Append events, one JSON object a line on standard input

A line is {\"project_id\", \"run_id\", \"type\", \"payload\"?, \"metadata\"?, \"event_id\"?, \
\"recorded_at\"?, \"expected_version\"?}. Lines of one run that follow each other go into one \
transaction. A bad line is reported with its number and left out; the others are appended. With \
event_ids of your own a file can be appended again without harm.";

/// `projector append`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector append < events.ndjson
  echo '{\"type\": \"run_started\"}' | projector append --project $P --run $R")]
pub struct AppendArgs {
    /// The most events in one transaction
    #[arg(long, value_name = "EVENTS", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub batch: u16,
    /// The project of lines that do not name one
    #[arg(long, value_name = "UUID")]
    pub project: Option<Uuid>,
    /// The run of lines that do not name one
    #[arg(long, value_name = "UUID")]
    pub run: Option<Uuid>,
    /// Stop at the first bad line
    #[arg(long)]
    pub strict: bool,
}

/// `projector status`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector status --watch
  projector status --check --quiet")]
pub struct StatusArgs {
    /// Show it again every second until Ctrl-C
    #[arg(long, conflicts_with = "check")]
    pub watch: bool,
    /// Exit with 0 when ready and with 1 when not, for a container's health check
    #[arg(long)]
    pub check: bool,
}

const REBUILD: &str = "\
Make read models anew from history, while the present rows serve

The running sidecar carries it out; where none runs, this command does. Readers see the present rows, \
which go on to follow, until the new ones take their place in one short transaction.";

/// `projector rebuild`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector rebuild run_status step_status
  projector rebuild --all --detach")]
pub struct RebuildArgs {
    /// The projections
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub names: Vec<String>,
    /// All that have a definition and are not paused
    #[arg(long)]
    pub all: bool,
    /// Ask for it and do not wait
    #[arg(long)]
    pub detach: bool,
    /// Give up the rebuild that was asked for or is under way
    #[arg(long, conflicts_with = "detach")]
    pub cancel: bool,
}

const VERIFY: &str = "\
Compare read models with history, row by row, while they go on

History is folded again beside the live rows, brought to exactly the position of one snapshot of them, \
and compared. Nothing is paused. Prints the keys that differ, with both values, and exits with 3 if \
there are any. Rows whose events are set aside (`projector dead-letters`) are left out and counted.";

/// `projector verify`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector verify run_status
  projector verify --all --output json
  projector verify --all --repair")]
pub struct VerifyArgs {
    /// The projections
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub names: Vec<String>,
    /// All that have a definition
    #[arg(long)]
    pub all: bool,
    /// How many differences of each to show; all are counted
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    pub limit: usize,
    /// Rebuild those that differ, and wait for it
    #[arg(long)]
    pub repair: bool,
}

/// `projector pause`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector pause workflow_stats
  projector pause run_log step_status --output json")]
pub struct PauseArgs {
    /// The projections
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

const RESUME: &str = "\
Let paused projections go on

They go on from where they were paused; where the slot does not reach back so far any more they are \
rebuilt, while their present rows serve.";

/// `projector resume`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector resume workflow_stats
  projector resume run_log step_status --output json")]
pub struct ResumeArgs {
    /// The projections
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// `projector wait`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector append < events.ndjson && projector wait run_status
  projector wait run_status --lsn 0/16B3748 --timeout 30s")]
pub struct WaitArgs {
    /// The projection
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A position of the server's log [default: where it ends now]
    #[arg(long, value_name = "LSN")]
    pub lsn: Option<Lsn>,
    /// Exit with 1 when it takes longer
    #[arg(long, value_name = "PERIOD", default_value = "10s")]
    pub timeout: Period,
}

/// `projector plan`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector plan
  projector plan --projections deploy/projections --output json")]
pub struct PlanArgs {}

const PRUNE: &str = "\
Drop the rows of projections whose definition is gone

Without --yes it only says what it would drop. What depends on the tables, such as a view, must go \
first.";

/// `projector prune`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector prune
  projector prune old_report --yes")]
pub struct PruneArgs {
    /// The projections [default: all whose definition is gone]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Drop them
    #[arg(long)]
    pub yes: bool,
}

const DEAD_LETTERS: &str = "\
See what was set aside because it cannot be applied, try it again or give it up

An event that a rule fails on parks its row: the row stays as it was, and the event and all later ones \
of the row are set aside. A changed definition is tried on all of history by itself.";

/// `projector dead-letters`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector dead-letters list run_status
  projector dead-letters retry run_status --all")]
#[command(disable_help_subcommand = true)]
pub struct DeadLettersArgs {
    /// What to do
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Show the rows that wait, and why, the oldest first
    #[command(after_long_help = "\
Examples:
  projector dead-letters list
  projector dead-letters list run_status --output json")]
    List {
        /// The projection [default: all]
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// The most rows
        #[arg(long, value_name = "ROWS", default_value_t = 100)]
        limit: u32,
    },
    /// Show the events of one row, with their payloads
    #[command(after_long_help = "\
Examples:
  projector dead-letters show run_status 0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10
  projector dead-letters show step_status '{\"run_id\": \"0198f2c1-…\", \"step_id\": \"pay\"}'")]
    Show {
        /// The projection
        #[arg(value_name = "NAME")]
        name: String,
        /// The row's key: column=value,…, a JSON object, or the value where the key is one column
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Fold rows again from history and free them, once the cause is mended
    #[command(after_long_help = "\
Examples:
  projector dead-letters retry run_status 0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10
  projector dead-letters retry run_status --all")]
    Retry {
        /// The projection
        #[arg(value_name = "NAME")]
        name: String,
        /// The row's key: column=value,…, a JSON object, or the value where the key is one column
        #[arg(value_name = "KEY", required_unless_present = "all", conflicts_with = "all")]
        key: Option<String>,
        /// All rows that wait
        #[arg(long)]
        all: bool,
    },
    /// Drop the events; their rows stay as they are and take those that come from now on
    #[command(after_long_help = "\
Examples:
  projector dead-letters discard run_status 0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10
  projector dead-letters discard run_status --all")]
    Discard {
        /// The projection
        #[arg(value_name = "NAME")]
        name: String,
        /// The row's key: column=value,…, a JSON object, or the value where the key is one column
        #[arg(value_name = "KEY", required_unless_present = "all", conflicts_with = "all")]
        key: Option<String>,
        /// All that is set aside
        #[arg(long)]
        all: bool,
    },
}

/// `projector check`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector check
  projector check --show-config --output json")]
pub struct CheckArgs {
    /// The folder of the definitions [default: as --projections]
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Print every configured value and where it comes from
    #[arg(long, conflicts_with = "folder")]
    pub show_config: bool,
}

/// `projector test`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector test
  projector test deploy/projections --output json
  projector test --sql --database-url postgres://localhost/scratch")]
pub struct TestArgs {
    /// The folder of the definitions; the cases are in its `tests` [default: as --projections]
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Run the cases of SQL projections too: in the database, in temporary tables and transactions
    /// that are rolled back
    #[arg(long)]
    pub sql: bool,
}

/// `projector doctor`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector doctor
  projector doctor --database-url postgres://projector@db.internal/app --output json")]
pub struct DoctorArgs {}

const TAIL: &str = "\
Follow the log of all runs, of a project or of one run

One run is shown from its first line on, in the order of its events. Several runs are shown from now \
on (or --since), in about the order in which their lines appear; within a run, each line's version \
tells its place. Lines appear when the read model `run_log` has them.";

/// `projector tail`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector tail --run 0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10
  projector tail --since 10m --output json | jq 'select(.level == \"error\")'")]
pub struct TailArgs {
    /// Only this run, from its beginning
    #[arg(long, value_name = "UUID")]
    pub run: Option<Uuid>,
    /// Only this project's runs
    #[arg(long, value_name = "UUID")]
    pub project: Option<Uuid>,
    /// Begin this long ago, such as 10m; looks at no more than the last 100,000 events
    #[arg(long, value_name = "PERIOD", conflicts_with = "run")]
    pub since: Option<Period>,
    /// Show what there is and end
    #[arg(long)]
    pub no_follow: bool,
}

/// `projector replay`
#[derive(Debug, Args)]
#[command(long_about = "\
Show what a run's read models said at an earlier moment, from history alone

The run's events are folded again, up to the moment that is asked for; no table is touched. Read
models whose rows gather events of many runs are left out.")]
#[command(after_long_help = "\
Examples:
  projector replay 0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10 --version 4
  projector replay 0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10 --diff --projection run_status")]
pub struct ReplayArgs {
    /// The run
    #[arg(value_name = "RUN_ID")]
    pub run: Uuid,
    /// Up to the event of this version [default: to the last event]
    #[arg(long, value_name = "N", conflicts_with = "until")]
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pub version: Option<i32>,
    /// Up to the last event before one that was recorded after this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Timestamp>,
    /// Only this read model
    #[arg(long, value_name = "NAME")]
    pub projection: Option<String>,
    /// Show what each event changed, one after the other
    #[arg(long)]
    pub diff: bool,
    /// The most rows of a read model, the last ones [default: 20; as JSON 1000]
    #[arg(long, value_name = "COUNT", conflicts_with = "diff")]
    pub rows: Option<usize>,
}

/// `projector explain`
#[derive(Debug, Args)]
#[command(long_about = "\
Show which events made a row what it is, column by column, and by which rules

KEY is the row's key: column=value,column=value, or a JSON object; or the value alone where the key
has one column. The row is made again from history and compared with the one in the table.")]
#[command(after_long_help = "\
Examples:
  projector explain run_status 0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10
  projector explain step_status run_id=0198f2c1-7d3e-7a40-9c55-3f1d2b6a8e10,step_id=charge")]
pub struct ExplainArgs {
    /// The read model
    #[arg(value_name = "TABLE")]
    pub table: String,
    /// The row
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The most events that are shown, the last ones
    #[arg(long, value_name = "EVENTS", default_value_t = 20)]
    pub limit: usize,
}

/// `projector completions`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector completions bash > /etc/bash_completion.d/projector
  projector completions zsh > ~/.zfunc/_projector")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

fn moment(text: &str) -> Result<Timestamp, &'static str> {
    parse_time(text).ok_or("expected a time like 2026-11-23T09:00:00Z")
}

impl Cli {
    /// The configuration's keys that options set.
    pub(super) fn flags(&self) -> Vec<Flag> {
        let global = &self.global;
        let listen = match &self.command {
            Command::Dev(args) => args.listen.as_deref(),
            Command::Run(args) => args.listen.as_deref(),
            _ => None,
        };
        let (option, level) = match global.verbose {
            0 if global.quiet => ("--quiet", Some("warn")),
            0 => ("--verbose", None),
            1 => ("--verbose", Some("debug")),
            _ => ("--verbose", Some("trace")),
        };
        let flags = [
            ("--database-url", "", "database_url", global.database_url.as_deref()),
            ("--projections", "", "projections", global.projections.as_deref()),
            ("--log-format", "log", "format", global.log_format.as_deref()),
            ("--listen", "http", "listen", listen),
            (option, "log", "level", level),
        ];
        let given = flags.into_iter().filter_map(|(option, section, key, value)| {
            Some(Flag { option, section, key, value: value?.to_owned() })
        });
        given.collect()
    }

    /// Parses arguments, the program's name first.
    ///
    /// # Errors
    /// What clap has to say: a mistake, or the help that was asked for.
    pub fn of(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }
}
