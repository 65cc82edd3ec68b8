//! What there is to look at, told once.

use serde::Serialize;
use serde_json::json;

use crate::cli::dev::home::Home;
use crate::cli::dev::postgres::Postgres;
use crate::cli::out::{BOLD, DIM, Out, OutError, styled};
use crate::cli::sidecar::Sidecar;

/// Addresses of the running demo.
#[derive(Debug, Serialize)]
pub(super) struct Banner {
    kind: &'static str,
    /// Over TCP, with the password.
    database_url: String,
    /// Where the HTTP server answers.
    console_url: String,
    /// The folder with everything.
    data: String,
    /// The version of Postgres.
    postgres: String,
}

impl Banner {
    pub(super) fn new(sidecar: &Sidecar, home: &Home, postgres: &Postgres) -> Self {
        Self {
            kind: "started",
            database_url: postgres.url(),
            console_url: format!("http://{}", sidecar.address()),
            data: home.folder().display().to_string(),
            postgres: postgres.version().to_owned(),
        }
    }

    /// Shows it: a few lines within 80 columns, or an object.
    pub(super) fn show(&self, out: &Out) -> Result<(), OutError> {
        if out.is_json() {
            return out.json(self);
        }
        let Self { database_url, console_url, data, postgres, .. } = self;
        let title = styled(BOLD, "projector dev");
        out.line(format_args!("{title}  a sample workload on PostgreSQL {postgres}\n"))?;
        for (name, value) in [
            ("console", console_url.clone()),
            ("API", format!("{console_url}/api/runs")),
            ("metrics", format!("{console_url}/metrics")),
            ("psql", database_url.clone()),
            ("data", data.clone()),
        ] {
            let name = styled(DIM, format_args!("{name:<9}"));
            out.line(format_args!("  {name}{value}"))?;
        }
        let end = "Ctrl-C stops it all; the data stay until --fresh.";
        out.line(format_args!("\n{}\n", styled(DIM, end)))
    }

    /// The last line.
    pub(super) fn farewell(&self, out: &Out) -> Result<(), OutError> {
        if out.is_json() {
            return out.json(&json!({ "kind": "stopped" }));
        }
        out.note(format_args!("stopped; the data are in {}", self.data));
        Ok(())
    }
}
