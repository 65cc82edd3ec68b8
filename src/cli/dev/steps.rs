//! What is shown until everything runs: on a terminal a line that changes, otherwise a line a step.

use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;

use crate::cli::out::{Out, WARN, styled};
use crate::embedded::{Progress, Received};

/// Steps on the way to a running demo.
pub(super) struct Steps {
    out: Out,
    spinner: ProgressBar,
    download: ProgressBar,
}

impl Steps {
    /// Shows nothing yet.
    pub(super) fn new(out: &Out) -> Self {
        let spinner = out.bar(None, "{spinner} {wide_msg}");
        let download = out.bar(None, "  {bar:40} {bytes}/{total_bytes}  {bytes_per_sec}");
        Self { out: out.clone(), spinner, download }
    }

    /// What is being done now, in a few words.
    pub(super) fn step(&self, text: &str) {
        if self.out.is_json() {
            // That nobody reads it will be noticed when there is something to tell.
            drop(self.out.json(&json!({ "kind": "step", "text": text })));
        } else if self.out.draws() {
            self.spinner.set_message(text.to_owned());
            self.spinner.enable_steady_tick(Duration::from_millis(100));
        } else {
            self.out.note(text);
        }
    }

    /// How a Postgres is got.
    pub(super) fn obtaining(&self, progress: Progress<'_>) {
        match progress {
            Progress::Fetching { version } => {
                self.step(&format!("no PostgreSQL on this machine: fetching {version}"));
            }
            Progress::Received(Received { bytes, total }) => {
                if let Some(total) = total {
                    self.download.set_length(total);
                }
                self.download.set_position(bytes);
                if total == Some(bytes) {
                    self.download.finish_and_clear();
                }
            }
            Progress::FetchFailed(error) => {
                self.download.finish_and_clear();
                self.remark(&format!("{:#}", anyhow::anyhow!("{error}")));
            }
            Progress::Installing { command } => self.step(&format!("installing: {command}")),
            Progress::InstallFailed { why } => self.remark(&format!("that failed: {why}")),
        }
    }

    /// Something that stays to be read.
    pub(super) fn remark(&self, text: &str) {
        self.out.note(styled(WARN, text));
    }

    /// The way is gone.
    pub(super) fn done(&self) {
        self.spinner.finish_and_clear();
    }
}

/// An error on the way is told below nothing.
impl Drop for Steps {
    fn drop(&mut self) {
        self.download.finish_and_clear();
        self.done();
    }
}
