//! The `projector` command.

use std::process::ExitCode;

use projector::cli;
use projector::config::Environment;

fn main() -> ExitCode {
    cli::start(std::env::args_os(), Environment::of_this_process())
}
