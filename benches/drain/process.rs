//! What a process uses, read from `/proc`.

use std::fs;
use std::process::Child;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// The kernel shows 100 ticks a second to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process so far, in seconds.
pub(crate) fn cpu_seconds(pid: i32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is the program's name in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(')').with_context(|| format!("{path} is odd"))?;
    let ticks: Vec<u32> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.into_iter().map(f64::from).sum::<f64>() / TICKS_PER_SECOND)
}

/// The most memory a process has had in RAM, in MiB.
pub(crate) fn peak_mib(pid: i32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|it| it.trim().strip_suffix("kB")).context("no VmHWM")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}

/// Waits for a child's success and returns the processor time it has used, in seconds.
pub(crate) fn wait(child: &mut Child) -> anyhow::Result<f64> {
    let pid = Pid::from_child(child);
    // Its times can be read until somebody takes notice of its end.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let cpu = cpu_seconds(pid.as_raw_nonzero().get())?;
    let status = child.wait()?;
    ensure!(status.success(), "a child ended with {status}");
    Ok(cpu)
}

/// Whether a child has ended; without taking notice of it, see [`wait`].
pub(crate) fn has_ended(child: &Child) -> anyhow::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(Pid::from_child(child)), options)?.is_some())
}
