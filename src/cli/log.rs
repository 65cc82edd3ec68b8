//! Where log lines go: standard error, as text or as an object a line.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::cli::out::Out;
use crate::config::{Loaded, LogFormat, Origin};

/// What verbs that are not services log when nobody asked for more.
const QUIET: &str = "warn";

/// Starts the log. A service tells of its life; other verbs have results to show instead.
pub(super) fn start(loaded: &Loaded, service: bool, out: &Out) {
    let log = &loaded.config.log;
    let asked = loaded.shown.iter().any(|it| it.key == "log.level" && it.origin != Origin::Default);
    let level = if service || asked { log.level.as_str() } else { QUIET };
    let terminal = io::stderr().is_terminal();
    let text = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // One line is one write, which steps around what is drawn on the terminal.
    let out = out.clone();
    let lines = fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(BoxMakeWriter::new(move || out.raw_stderr()))
        .with_ansi(
            terminal && anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never,
        )
        .with_target(false);
    // Only a second start in one process can fail, and then the first one's log is in place.
    drop(if text { lines.try_init() } else { lines.json().flatten_event(true).try_init() });
}
