//! How one value is read and shown.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::config::secret::Secret;
use crate::config::units::{Period, Size};
use crate::ident::Ident;

/// A value before its type is known. The environment and flags give only text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Number(String),
    Switch(bool),
    List(Vec<String>),
    Table(Vec<(String, String)>),
    /// Nothing that any key takes: what it is called.
    Other(&'static str),
}

impl Raw {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "an integer",
            Self::Switch(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// What the user is to write, in words.
    const KIND: &'static str;
    /// Whether the value may be shown, and whether it can be read from a file of its own.
    const SECRET: bool = false;

    /// From the environment, a flag, or a default.
    fn from_text(text: &str) -> Result<Self, String>;

    /// From the file, where values have types.
    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::from_text(text),
            other => Err(format!("expected {}, found {}", Self::KIND, other.kind())),
        }
    }

    /// The value in TOML; empty when there is none.
    fn show(&self) -> String;
}

/// `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

impl Setting for Ident {
    const KIND: &'static str = "a name";

    fn from_text(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|error| error.to_string())
    }

    fn show(&self) -> String {
        quoted(self.as_str())
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "a path";

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path must not be empty".to_owned()) } else { Ok(text.into()) }
    }

    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Setting for Secret {
    const KIND: &'static str = "a string";
    const SECRET: bool = true;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self::new(text))
    }

    fn show(&self) -> String {
        "***".to_owned()
    }
}

impl Setting for Size {
    const KIND: &'static str = "a size such as `64MiB`";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: crate::config::units::UnitError| error.to_string())
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Setting for Period {
    const KIND: &'static str = "a span of time such as `200ms`";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: crate::config::units::UnitError| error.to_string())
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Setting for String {
    const KIND: &'static str = "a string";

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for SocketAddr {
    const KIND: &'static str = "an address such as `127.0.0.1:4400`";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not {}", Self::KIND))
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Setting for NonZeroUsize {
    const KIND: &'static str = "a whole number from 1";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not {}", Self::KIND))
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Number(text) => Self::from_text(text),
            other => Err(format!("expected {}, found {}", Self::KIND, other.kind())),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    const KIND: &'static str = "true or false";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not {}", Self::KIND))
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Switch(value) => Ok(*value),
            other => Err(format!("expected {}, found {}", Self::KIND, other.kind())),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// In the environment the items are separated by commas.
impl Setting for Vec<String> {
    const KIND: &'static str = "a list of strings";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect())
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::List(items) => Ok(items.clone()),
            other => Err(format!("expected {}, found {}", Self::KIND, other.kind())),
        }
    }

    fn show(&self) -> String {
        let items: Vec<_> = self.iter().map(|it| quoted(it)).collect();
        format!("[{}]", items.join(", "))
    }
}

/// Empty text is no value.
impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    const SECRET: bool = T::SECRET;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::from_text(text),
            other => T::from_raw(other).map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

/// Where broadcasts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RealtimeMode {
    /// Nowhere.
    Off,
    /// To a Supabase Realtime, through its HTTP API.
    Http,
    /// Into the table that a Supabase Realtime follows.
    Sql,
    /// To the clients of this process.
    Embedded,
}

impl RealtimeMode {
    /// The word that is written in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Http => "http",
            Self::Sql => "sql",
            Self::Embedded => "embedded",
        }
    }
}

impl Setting for RealtimeMode {
    const KIND: &'static str = "one of off, http, sql, embedded";

    fn from_text(text: &str) -> Result<Self, String> {
        let known = [Self::Off, Self::Http, Self::Sql, Self::Embedded];
        let found = known.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is not {}", Self::KIND))
    }

    fn show(&self) -> String {
        quoted(self.as_str())
    }
}

/// The address of a server that speaks HTTP, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// The address, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for HttpUrl {
    const KIND: &'static str = "an address such as `https://project.supabase.co`";

    // the text is not repeated in an error: it may hold a password
    fn from_text(text: &str) -> Result<Self, String> {
        let url = reqwest::Url::parse(text);
        let url = url.map_err(|error| format!("not {} ({error})", Self::KIND))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(format!("`{}:` is not {}", url.scheme(), Self::KIND));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "no name and password in the address; `realtime.key` is for that".to_owned()
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("no `?` and no `#`: {}", Self::KIND));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    fn show(&self) -> String {
        quoted(&self.0)
    }
}

/// The size of a message: what every Realtime takes, and enough for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageSize(Size);

impl MessageSize {
    const LIMITS: (Size, Size) = (Size::from_bytes(1 << 10), Size::from_bytes(2 << 20));

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0.bytes()
    }
}

impl Setting for MessageSize {
    const KIND: &'static str = "a size from `1KiB` to `2MiB`";

    fn from_text(text: &str) -> Result<Self, String> {
        let size = Size::from_text(text)?;
        let (least, most) = Self::LIMITS;
        if size < least || most < size {
            return Err(format!("`{text}` is not {}", Self::KIND));
        }
        Ok(Self(size))
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    Auto,
    /// For people.
    Text,
    /// An object a line.
    Json,
}

impl Setting for LogFormat {
    const KIND: &'static str = "one of auto, text, json";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is not {}", Self::KIND)),
        }
    }

    fn show(&self) -> String {
        let name = match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        };
        quoted(name)
    }
}

/// Directives that say which log lines are written; checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives, as `tracing_subscriber::EnvFilter` reads them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for LogFilter {
    const KIND: &'static str = "a level such as `info`";

    fn from_text(text: &str) -> Result<Self, String> {
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("`{text}` is not {}: {error}", Self::KIND)),
        }
    }

    fn show(&self) -> String {
        quoted(&self.0)
    }
}
