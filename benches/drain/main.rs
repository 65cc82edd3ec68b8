//! How fast projector follows the log: against `pg_recvlogical` on the same slot position, and live.
//!
//! `cargo bench --bench drain -- --help` tells the options, docs/benchmarks.md the method.
//!
//! * `args`: the command line · `cluster`: throwaway servers · `load`: the events
//! * `process`: what a process uses · `sidecar`: the release binary as a child
//! * `drain`: a backlog against `pg_recvlogical` · `broadcasts`: with them and without
//! * `latency`: commit → visible
//! * `rebuild`: history against one statement a table
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
mod broadcasts;
mod latency;
mod rebuild;
mod report;

use anyhow::Context as _;
use clap::Parser as _;

use args::{Args, What};
use cluster::Scratch;
use report::Report;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // a client for HTTP asks for it; a second one is not needed
    drop(rustls::crypto::ring::default_provider().install_default());
    let scratch = Scratch::create(args.dir.as_deref())?;
    let mut report = Report::new(&args, scratch.postgres());
    if matches!(args.what, What::Drain | What::All) {
        for &transaction in &args.transactions {
            let drains = drain::measure(&args, &scratch, transaction).await;
            report.drains.extend(drains.with_context(|| format!("transactions of {transaction}"))?);
        }
    }
    if matches!(args.what, What::Latency | What::All) {
        for &rate in &args.rates {
            let latency = latency::measure(&args, &scratch, rate).await;
            report.latencies.extend(latency.with_context(|| format!("{rate} events/s"))?);
        }
    }
    if args.what == What::Broadcasts {
        for &transaction in &args.transactions {
            let measured = broadcasts::measure(&args, &scratch, transaction).await;
            report
                .broadcasts
                .push(measured.with_context(|| format!("transactions of {transaction}"))?);
        }
    }
    if args.what == What::Rebuild {
        report.rebuilds = rebuild::measure(&args, &scratch).await.context("rebuilds")?;
    }
    print!("{report}");
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).context("cannot write the report")?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
