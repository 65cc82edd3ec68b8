//! The command line: verbs, help, output, errors, exit codes.
//!
//! [`start`] parses, reads the configuration, starts the log and the runtime, and hands a
//! [`Context`] to the verb. A verb is a module with one function `run(arguments, context)`; it
//! prints through [`out::Out`] only, and what it returns becomes the exit code in `fail`.

mod args;
pub mod out;
mod figure;
mod fail;
mod log;
mod context;

mod hub;
mod sidecar;
mod reload;
mod run;
mod dev;
mod migrate;
mod append;
mod progress;
mod status;
mod control;
mod rebuild;
mod verify;
mod pause;
mod wait;
mod plan;
mod prune;
mod dead_letters;
mod check;
mod test;
mod doctor;
mod tail;
mod replay;
mod explain;
mod completions;

use std::ffi::OsString;
use std::process::ExitCode;

pub use args::{
    AppendArgs, CheckArgs, Cli, Color, Command, CompletionsArgs, DeadLettersArgs,
    DeadLettersCommand, DevArgs, DoctorArgs, ExplainArgs, Format, Global, MigrateArgs, PauseArgs,
    PlanArgs, PruneArgs, RebuildArgs, ReplayArgs, ResumeArgs, RunArgs, StatusArgs, TailArgs,
    TestArgs, VerifyArgs, WaitArgs,
};
pub use context::Context;
pub use fail::{Exit, Failure};

use crate::cli::out::Out;
use crate::config::{self, Environment};

/// Runs the program: `arguments` with its own name first, and the environment as it was.
pub fn start(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let cli = match Cli::of(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Whoever asked for help and does not read it is no error.
            drop(error.print());
            return if error.use_stderr() { Exit::USAGE } else { Exit::DONE }.into();
        }
    };
    let global = &cli.global;
    let out = Out::new(global.output, global.color, global.quiet, &environment);
    let exit = begin(cli, out.clone(), environment);
    exit.unwrap_or_else(|error| fail::report(&error, &out)).into()
}

/// Everything before the verb itself.
fn begin(cli: Cli, out: Out, environment: Environment) -> anyhow::Result<Exit> {
    if let Command::Completions(args) = &cli.command {
        return completions::run(args, &out);
    }
    let loaded = config::load(cli.global.config.as_deref(), &environment, &cli.flags())?;
    log::start(&loaded, matches!(cli.command, Command::Run(_)), &out);
    let context = Context { out, loaded, environment };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(dispatch(cli.command, &context))
}

/// The verb.
async fn dispatch(command: Command, context: &Context) -> anyhow::Result<Exit> {
    match command {
        Command::Migrate(args) => migrate::run(&args, context).await,
        Command::Append(args) => append::run(args, context).await,
        Command::Status(args) => status::run(args, context).await,
        Command::Rebuild(args) => rebuild::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Pause(args) => pause::pause(&args, context).await,
        Command::Resume(args) => pause::resume(&args, context).await,
        Command::Wait(args) => wait::run(&args, context).await,
        Command::Plan(PlanArgs {}) => plan::run(context).await,
        Command::Prune(args) => prune::run(&args, context).await,
        Command::DeadLetters(args) => dead_letters::run(args, context).await,
        Command::Check(args) => check::run(&args, context),
        Command::Doctor(DoctorArgs {}) => doctor::run(context).await,
        Command::Tail(args) => tail::run(args, context).await,
        Command::Replay(args) => replay::run(&args, context).await,
        Command::Explain(args) => explain::run(&args, context).await,
        Command::Completions(args) => completions::run(&args, &context.out),
        Command::Run(_) => run::run(context).await,
        Command::Test(args) => test::run(&args, context).await,
        Command::Dev(args) => Box::pin(dev::run(args, context)).await,
    }
}
