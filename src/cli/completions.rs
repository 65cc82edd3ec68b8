//! `projector completions`: a script for the shell.

use clap::CommandFactory;

use crate::cli::Exit;
use crate::cli::args::{Cli, CompletionsArgs};
use crate::cli::out::Out;

pub(super) fn run(args: &CompletionsArgs, out: &Out) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "projector", &mut script);
    out.write(String::from_utf8_lossy(&script))?;
    Ok(Exit::DONE)
}
