//! The keys of the embedded Realtime, made for one data directory.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::Context;
use crate::cli::dev::home::Home;
use crate::config::{Config, RealtimeMode, Secret};
use crate::realtime::hub::sign;
use crate::workload::PROJECTS;

/// The file with the secret.
const FILE: &str = "jwt_secret";

/// The file with the tokens, as an environment: for copying, since no terminal is as wide as they are.
const TOKENS: &str = "realtime.env";

/// How long the shown tokens count: whoever tries something out should not have to look up another.
const DAYS: u64 = 30;

/// The user that the sample token is about.
const USER: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0001);

/// Two tokens for trying out supabase-js.
#[derive(Debug)]
pub(super) struct SampleTokens {
    /// The key to connect with.
    pub(super) anon: String,
    /// Of a user who may read all projects of the sample workload.
    pub(super) user: String,
}

/// The configuration with what it leaves open: an embedded Realtime, and a secret kept in `home`.
///
/// # Errors
/// When the secret can neither be read nor be written.
pub(super) fn complete(context: &Context, home: &Home) -> anyhow::Result<Context> {
    let mut context = context.clone();
    let realtime = &mut context.loaded.config.realtime;
    realtime.mode.get_or_insert(RealtimeMode::Embedded);
    if realtime.jwt_secret.is_none() && realtime.jwks.is_none() {
        realtime.jwt_secret = Some(Secret::new(secret(home)?));
    }
    Ok(context)
}

/// Tokens to show; none where this process does not sign them.
///
/// # Errors
/// When they cannot be written.
pub(super) fn samples(config: &Config) -> anyhow::Result<Option<SampleTokens>> {
    let Some(secret) = &config.realtime.jwt_secret else { return Ok(None) };
    if config.realtime.mode != Some(RealtimeMode::Embedded) {
        return Ok(None);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (issuer, expires) = ("projector dev", now + DAYS * 86_400);
    let signed = |claims: &Value| sign(secret.expose(), claims).context("cannot sign a token");
    Ok(Some(SampleTokens {
        anon: signed(&json!({ "role": "anon", "iss": issuer, "iat": now, "exp": expires }))?,
        user: signed(&json!({
            "role": "authenticated",
            "sub": USER,
            "app_metadata": { "projects": PROJECTS },
            "iss": issuer,
            "iat": now,
            "exp": expires,
        }))?,
    }))
}

/// Writes the tokens down for supabase-js at `url`, readable by the owner only; returns where.
///
/// # Errors
/// When that cannot be done.
pub(super) fn write_down(tokens: &SampleTokens, url: &str, home: &Home) -> anyhow::Result<PathBuf> {
    let path = home.folder().join(TOKENS);
    let SampleTokens { anon, user } = tokens;
    let text = format!(
        "# createClient(SUPABASE_URL, SUPABASE_ANON_KEY, {{ accessToken: async () => USER_TOKEN }})\n\
         SUPABASE_URL={url}\nSUPABASE_ANON_KEY={anon}\nUSER_TOKEN={user}"
    );
    keep_to_owner(&path, &text)?;
    Ok(path)
}

/// The secret of an earlier start, or a new one.
fn secret(home: &Home) -> anyhow::Result<String> {
    let path = home.folder().join(FILE);
    match fs::read_to_string(&path) {
        Ok(secret) if !secret.trim().is_empty() => return Ok(secret.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read `{}`", path.display()));
        }
        // One that was cut short when the machine went down.
        Ok(_) | Err(_) => {}
    }
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    keep_to_owner(&path, &secret)?;
    Ok(secret)
}

fn keep_to_owner(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut it| writeln!(it, "{text}"));
    written.with_context(|| format!("cannot write `{}`", path.display()))
}
