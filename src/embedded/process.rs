//! The server's process, tied to this one.
//!
//! ```text
//! this process ──pipe──▶ watchdog (sh)         reads until the pipe closes, then SIGINT to postgres
//!      └──child────────▶ postgres              SIGINT: fast shutdown; SIGQUIT: immediate
//! ```
//!
//! The watchdog is why `kill -9` of this process leaves no server behind: the kernel closes the
//! pipe. It works on every Unix; Linux' parent-death signal would follow the spawning *thread*.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::error::{EmbeddedError, io};
use super::log::Log;
use super::user::Account;

/// Started by `sh`: `$$` is the shell's process id, which `exec` makes the server's. The watchdog
/// is nobody's child (two levels of parentheses), as Postgres takes every child for its own. A line
/// in the pipe tells the watchdog that the server has ended in good order.
const WATCHED: &str = r#"( ( read -r _ <&3 || kill -INT $$ ) & ) 3<&0; exec "$@" </dev/null"#;

/// The postmaster, which ends with this value.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    leash: Option<ChildStdin>,
}

impl Process {
    /// Starts `command`, a program and its arguments, in the data directory.
    pub(super) fn spawn(
        command: &[OsString],
        data: &Path,
        account: Option<&Account>,
        log: &Log,
    ) -> Result<Self, EmbeddedError> {
        let output = || log.file.try_clone().map_err(io("open", data));
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", WATCHED, "sh"])
            .args(command)
            .env("LC_ALL", "C")
            .current_dir(data)
            .stdin(Stdio::piped())
            .stdout(output()?)
            .stderr(output()?)
            // Ctrl-C in a terminal goes to the whole process group; the server is to end last.
            .process_group(0);
        if let Some(account) = account {
            account.run(&mut shell);
        }
        let mut child = shell.spawn().map_err(io("start", "/bin/sh"))?;
        let leash = child.stdin.take();
        Ok(Self { child, leash })
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it has.
    pub(super) fn exited(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    pub(super) fn signal(&self, which: Signal) {
        // Not yet waited for, so the number still is this process'.
        signal(self.pid(), which);
    }

    pub(super) fn wait(&mut self) {
        // The one error is that it has been waited for already.
        drop(self.child.wait());
        if let Some(mut leash) = self.leash.take() {
            // Lets the watchdog go; if it is gone already, all the better.
            drop(leash.write_all(b"\n"));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.leash.is_some() {
            if self.exited().is_none() {
                self.signal(Signal::QUIT);
            }
            self.wait();
        }
    }
}

pub(super) fn signal(pid: Pid, which: Signal) {
    if let Err(error) = kill_process(pid, which) {
        // It has ended already, which is what signals are sent for here.
        tracing::debug!(pid = pid.as_raw_nonzero(), %error, "postgres is gone");
    }
}
