//! How fast projector follows the log: against `pg_recvlogical` on the same slot position, and live.
//!
//! `cargo bench --bench drain -- --help` tells the options, docs/benchmarks.md the method.
//!
//! * `args`: the command line · `cluster`: throwaway servers · `load`: the events
//! * `process`: what a process uses · `sidecar`: the release binary as a child
//! * `drain`: a backlog against `pg_recvlogical` · `latency`: commit → visible
//! * `report`: tables and JSON
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints what it measured"
)]

mod args;
mod cluster;
mod load;
mod process;
mod sidecar;
mod drain;
mod latency;
mod report;

use anyhow::Context as _;
use clap::Parser as _;

use args::{Args, What};
use cluster::Scratch;
use report::Report;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let scratch = Scratch::create(args.dir.as_deref())?;
    let mut report = Report::new(&args, scratch.postgres());
    if args.what != What::Latency {
        for &transaction in &args.transactions {
            let drains = drain::measure(&args, &scratch, transaction).await;
            report.drains.extend(drains.with_context(|| format!("transactions of {transaction}"))?);
        }
    }
    if args.what != What::Drain {
        for &rate in &args.rates {
            let latency = latency::measure(&args, &scratch, rate).await;
            report.latencies.push(latency.with_context(|| format!("{rate} events/s"))?);
        }
    }
    print!("{report}");
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).context("cannot write the report")?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
