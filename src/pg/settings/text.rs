//! The two forms of a connection string, taken apart into parameters.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::pg::settings::SettingsError;

/// What a connection string may say.
pub(crate) const KNOWN: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "channel_binding",
    "passfile",
    "application_name",
    "fallback_application_name",
    "connect_timeout",
    "options",
    "client_encoding",
    "sslnegotiation",
    "target_session_attrs",
];

/// What libpq knows beyond that, so that the error can tell a typing mistake from a missing feature.
const LIBPQ_ONLY: &[&str] = &[
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
    "sslsni",
    "tcp_user_timeout",
];

pub(crate) type Parameters = BTreeMap<String, String>;

/// Takes a connection string apart; the last mention of a parameter counts.
pub(crate) fn parameters(text: &str) -> Result<Parameters, SettingsError> {
    let text = text.trim();
    let url = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    let parameters = match url {
        Some(rest) => from_url(rest)?,
        None if text.contains("://") => {
            return Err(SettingsError::Syntax("a URL begins with postgres:// or postgresql://"));
        }
        None => from_pairs(text)?,
    };
    match parameters.keys().find(|it| !KNOWN.contains(&it.as_str())) {
        None => Ok(parameters),
        Some(it) if LIBPQ_ONLY.contains(&it.as_str()) => {
            Err(SettingsError::Unsupported(it.clone()))
        }
        Some(it) => Err(SettingsError::Unknown(it.clone())),
    }
}

/// `user:password@host:port,host:port/database?parameter=value&…`, each part optional.
fn from_url(rest: &str) -> Result<Parameters, SettingsError> {
    let mut parameters = Parameters::new();
    let mut put = |name: &str, value: &str| -> Result<(), SettingsError> {
        if !value.is_empty() {
            parameters.insert(name.to_owned(), decode(value)?);
        }
        Ok(())
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    put("dbname", database)?;
    // The last `@`: a password that should have been encoded still works.
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    put("user", user)?;
    put("password", password)?;

    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = host_and_port(host)?;
        names.push(name);
        ports.push(port);
    }
    if ports.iter().all(|it| it.is_empty()) {
        ports.clear();
    }
    if names.iter().any(|it| !it.is_empty()) {
        put("host", &names.join(","))?;
    }
    put("port", &ports.join(","))?;

    for pair in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or(SettingsError::Syntax("a parameter after `?` has no `=`"))?;
        match (name, value) {
            ("ssl", "true") => put("sslmode", "require")?,
            _ => put(&decode(name)?, value)?,
        }
    }
    Ok(parameters)
}

/// `host`, `host:port`, `[::1]:port`, or nothing.
fn host_and_port(text: &str) -> Result<(&str, &str), SettingsError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (name, after) =
            rest.split_once(']').ok_or(SettingsError::Syntax("an IPv6 address has no `]`"))?;
        let port = after.strip_prefix(':').unwrap_or(after);
        return Ok((name, port));
    }
    Ok(text.split_once(':').unwrap_or((text, "")))
}

fn decode(text: &str) -> Result<String, SettingsError> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| SettingsError::Syntax("a part is not UTF-8 after decoding"))?;
    if text.contains('\0') {
        return Err(SettingsError::Syntax("a part contains a NUL byte"));
    }
    Ok(text.into_owned())
}

/// `key = value key='quoted value'`, where a backslash takes the next character as it is.
fn from_pairs(text: &str) -> Result<Parameters, SettingsError> {
    let mut parameters = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest
            .split_once('=')
            .ok_or(SettingsError::Syntax("expected a URL, or pairs such as host=localhost"))?;
        let (value, after) = value(after.trim_start())?;
        if value.contains('\0') {
            return Err(SettingsError::Syntax("a part contains a NUL byte"));
        }
        parameters.insert(name.trim().to_owned(), value);
        rest = after.trim_start();
    }
    Ok(parameters)
}

fn value(text: &str) -> Result<(String, &str), SettingsError> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = text.chars();
    loop {
        let rest = characters.as_str();
        match characters.next() {
            Some('\'') if quoted => return Ok((value, characters.as_str())),
            Some(it) if !quoted && it.is_whitespace() => return Ok((value, rest)),
            Some('\\') => value.extend(characters.next()),
            Some(it) => value.push(it),
            None if quoted => return Err(SettingsError::Syntax("a quoted value has no end")),
            None => return Ok((value, "")),
        }
    }
}
