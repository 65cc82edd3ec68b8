//! The command line's grammar and its help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::config::{Flag, Period};

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
    Append(AppendArgs),
    /// Show each projection's state and lag, and the slot's health
    Status(StatusArgs),
    /// Check the definitions and the configuration, without a database
    Check(CheckArgs),
    /// Run the definitions' given/expect cases, without a database
    Test(TestArgs),
    /// Find out what keeps the database from being followed, and how to fix it
    Doctor(DoctorArgs),
    /// Follow the log of all runs, of a project or of one run
    Tail(TailArgs),
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

/// `projector append`
#[derive(Debug, Args)]
#[command(long_about = "\
Append events, one JSON object a line on standard input

A line is {\"project_id\", \"run_id\", \"type\", \"payload\"?, \"metadata\"?, \"event_id\"?,
\"recorded_at\"?, \"expected_version\"?}. Lines of one run that follow each other go into one
transaction. A bad line is reported with its number and left out; the others are appended. With
event_ids of your own a file can be appended again without harm.")]
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
  projector test deploy/projections --output json")]
pub struct TestArgs {
    /// The folder of the definitions; the cases are in its `tests` [default: as --projections]
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// `projector doctor`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  projector doctor
  projector doctor --database-url postgres://projector@db.internal/app --output json")]
pub struct DoctorArgs {}

/// `projector tail`
#[derive(Debug, Args)]
#[command(long_about = "\
Follow the log of all runs, of a project or of one run

One run is shown from its first line on, in the order of its events. Several runs are shown from now
on (or --since), in about the order in which their lines appear; within a run, each line's version
tells its place. Lines appear when the read model `run_log` has them.")]
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
