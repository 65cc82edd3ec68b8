//! What there is to look at, told once.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use crate::cli::dev::home::Home;
use crate::cli::dev::keys::{SampleTokens, write_down};
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
    /// The key for supabase-js, where the embedded Realtime runs on a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    anon_key: Option<String>,
    /// The token of a user who may read the sample projects.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_token: Option<String>,
    /// The file with both.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<PathBuf>,
}

impl Banner {
    /// # Errors
    /// When the tokens cannot be written down.
    pub(super) fn new(
        sidecar: &Sidecar,
        home: &Home,
        postgres: &Postgres,
        tokens: Option<SampleTokens>,
    ) -> anyhow::Result<Self> {
        let console_url = format!("http://{}", sidecar.address());
        let write = |it| write_down(it, &console_url, home);
        let keys = tokens.as_ref().map(write).transpose()?;
        let (anon_key, user_token) = tokens.map(|it| (it.anon, it.user)).unzip();
        Ok(Self {
            kind: "started",
            database_url: postgres.url(),
            console_url,
            data: home.folder().display().to_string(),
            postgres: postgres.version().to_owned(),
            anon_key,
            user_token,
            keys,
        })
    }

    /// Shows it: a few lines within 80 columns, or an object.
    pub(super) fn show(&self, out: &Out) -> Result<(), OutError> {
        if out.is_json() {
            return out.json(self);
        }
        let Self { database_url, console_url, data, postgres, .. } = self;
        let title = styled(BOLD, "projector dev");
        out.line(format_args!("{title}  a sample workload on PostgreSQL {postgres}\n"))?;
        let keys = self.keys.as_ref().map(|it| ("keys", it.display().to_string()));
        let lines = [
            ("console", console_url.clone()),
            ("API", format!("{console_url}/api/runs")),
            ("metrics", format!("{console_url}/metrics")),
            ("psql", database_url.clone()),
            ("data", data.clone()),
        ];
        for (name, value) in lines.into_iter().chain(keys) {
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
