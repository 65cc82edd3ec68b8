//! The `projector` command.

use std::process::ExitCode;

use projector::cli;
use projector::config::Environment;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    allocator::use_one_arena();
    cli::start(std::env::args_os(), Environment::of_this_process())
}

/// glibc gives each thread an arena of its own. What one thread decodes another frees, so that each
/// arena keeps holes as large as a batch; with one arena a process that catches up takes a quarter
/// less memory, and is no slower (docs/benchmarks.md).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod allocator {
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    /// Where glibc reads, before `main`, how many arenas it may make.
    const ARENAS: &str = "MALLOC_ARENA_MAX";

    /// Starts this program anew, in the same process, unless the environment says how many arenas it
    /// has. Where that cannot be done, or something else has loaded it (`ld.so projector`), it goes on
    /// with what it has.
    pub(super) fn use_one_arena() {
        if std::env::var_os(ARENAS).is_some() {
            return;
        }
        let mut args = std::env::args_os();
        let (Some(name), Ok(program)) = (args.next(), std::env::current_exe()) else { return };
        if program.file_name() != Path::new(&name).file_name() {
            return;
        }
        let _error = Command::new(program).arg0(name).args(args).env(ARENAS, "1").exec();
    }
}
