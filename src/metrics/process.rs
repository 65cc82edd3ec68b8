//! What the process itself uses: memory, processor time, open files. Read from `/proc` when asked.
//!
//! On systems without `/proc` these metrics are absent, which Prometheus takes as "unknown".

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts};

use super::Described;

/// The unit of times in `/proc/self/stat`. The kernel shows 100 ticks a second to programs on every
/// architecture Rust builds for, whatever it uses itself.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process metrics, under the names that Prometheus' own clients give them.
pub(super) const ALL: &[Described] = &[CPU, MEMORY, FILES];

const CPU: Described = Described {
    name: "process_cpu_seconds_total",
    kind: "counter",
    labels: &[],
    help: "Processor time this process has used, in user and system mode.",
};
const MEMORY: Described = Described {
    name: "process_resident_memory_bytes",
    kind: "gauge",
    labels: &[],
    help: "Memory of this process that is in RAM.",
};
const FILES: Described = Described {
    name: "process_open_fds",
    kind: "gauge",
    labels: &[],
    help: "Files and sockets this process has open.",
};

/// Reads `/proc/self` each time the metrics are collected.
pub(super) struct Process;

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let cpu = cpu_seconds().and_then(|value| {
            let counter = Counter::with_opts(Opts::new(CPU.name, CPU.help)).ok()?;
            counter.inc_by(value);
            Some(counter.collect())
        });
        let families = [cpu, gauge(&MEMORY, resident_bytes()), gauge(&FILES, open_files())];
        families.into_iter().flatten().flatten().collect()
    }
}

fn gauge(about: &Described, value: Option<f64>) -> Option<Vec<MetricFamily>> {
    let gauge = Gauge::with_opts(Opts::new(about.name, about.help)).ok()?;
    gauge.set(value?);
    Some(gauge.collect())
}

fn cpu_seconds() -> Option<f64> {
    parse_cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The 14th and 15th field of `/proc/self/stat`. The second is the program's name in parentheses and
/// may hold anything, so counting starts after the last `)`.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    parse_resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(count).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100 1 1";

        assert_eq!(parse_cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(parse_resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n"), Some(12_288.0));
        assert_eq!(parse_resident_bytes("VmPeak:\t 9 kB\n"), None);
    }
}
