//! The only place that prints.
//!
//! Results go to standard output as text or JSON, everything else to standard error. Colour is
//! dropped where nobody sees it. Lines and the bars that are drawn below them do not tear each other. A
//! reader that has gone away (`projector tail | head`) is reported as
//! [`OutError::Closed`], which ends the program without a complaint.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::cli::args::{Color, Format};
use crate::config::Environment;

/// Good news.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// A warning.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Bad news.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What may be overlooked.
pub const DIM: Style = Style::new().dimmed();
/// A heading.
pub const BOLD: Style = Style::new().bold();

/// How wide text is made.
pub const WIDTH: usize = 80;

/// Where results and remarks go.
#[derive(Clone, Debug)]
pub struct Out {
    format: Format,
    stdout: ColorChoice,
    stderr: ColorChoice,
    quiet: bool,
    draws: bool,
    /// What is drawn at the bottom of the terminal; nothing where it would disturb.
    bars: MultiProgress,
}

/// Standard output cannot be written to any more.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    /// The reader has gone away; that is its right.
    #[error("nobody reads standard output any more")]
    Closed,
    /// Anything else, such as a full disk.
    #[error("cannot write to standard output")]
    Failed(#[source] io::Error),
    /// A value that has no JSON form.
    #[error("cannot write JSON")]
    Json(#[source] serde_json::Error),
}

impl Out {
    /// Follows `--output`, `--color` and `--quiet`; bars need a terminal that can draw them.
    pub fn new(format: Format, color: Color, quiet: bool, environment: &Environment) -> Self {
        let choice = |detected: ColorChoice| match color {
            Color::Auto => detected,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        let plain = environment.get("CI").is_some() || environment.get("TERM") == Some("dumb");
        let draws = format == Format::Text && !quiet && !plain && io::stderr().is_terminal();
        let target =
            if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            format,
            stdout: choice(AutoStream::choice(&io::stdout())),
            stderr: choice(AutoStream::choice(&io::stderr())),
            quiet,
            draws,
            bars: MultiProgress::with_draw_target(target),
        }
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A line of text on standard output.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn line(&self, text: impl Display) -> Result<(), OutError> {
        self.write(format_args!("{text}\n"))
    }

    /// Text that has its own line ends, on standard output.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, text: impl Display) -> Result<(), OutError> {
        self.bars.suspend(|| {
            let mut stdout = AutoStream::new(io::stdout().lock(), self.stdout);
            write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(OutError::from)
        })
    }

    /// One object on a line of its own: a document, or one of many.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn json(&self, value: &impl Serialize) -> Result<(), OutError> {
        let mut line = serde_json::to_vec(value).map_err(OutError::Json)?;
        line.push(b'\n');
        // Bars and JSON never meet.
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line).and_then(|()| stdout.flush()).map_err(OutError::from)
    }

    /// A remark on standard error, which `--quiet` silences.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            self.complain(format_args!("{text}\n"));
        }
    }

    /// Something on standard error that nothing silences. Has its own line end.
    pub fn complain(&self, text: impl Display) {
        self.bars.suspend(|| {
            let mut stderr = AutoStream::new(io::stderr().lock(), self.stderr);
            // Where standard error is gone there is nobody left to tell.
            drop(write!(stderr, "{text}"));
        });
    }

    /// Standard error for who writes whole lines and has decided about colour: the log.
    pub(super) fn raw_stderr(&self) -> impl Write + use<> {
        Beside { bars: self.bars.clone() }
    }

    /// Whether bars can be seen: a terminal that can draw them, and nobody who wants none.
    pub fn draws(&self) -> bool {
        self.draws
    }

    /// A bar at the bottom of the terminal, as indicatif's `template` says; invisible where it would
    /// disturb.
    pub fn bar(&self, length: Option<u64>, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
        self.bars.add(bar.with_style(style))
    }

    /// A counter on standard error for long work; invisible where it would disturb.
    pub fn counter(&self, what: &str) -> ProgressBar {
        self.bar(None, "{spinner} {human_pos} {msg}  {per_sec}").with_message(what.to_owned())
    }

    /// `text` in a style, for a bar's message: plain where nobody wants colour.
    pub fn painted(&self, style: Style, text: impl Display) -> String {
        if self.stderr == ColorChoice::Never { text.to_string() } else { styled(style, text) }
    }
}

/// Standard error beside bars.
struct Beside {
    bars: MultiProgress,
}

impl Write for Beside {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().lock().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

impl From<io::Error> for OutError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}

/// `text` in a style, for a line that is printed here.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// `text` on one line of at most `width` characters. Control characters, which could drive the
/// terminal, become spaces.
pub fn cut(text: &str, width: usize) -> String {
    let mut clean = text.chars().map(|it| if it.is_control() { ' ' } else { it });
    let short: String = clean.by_ref().take(width).collect();
    match clean.next() {
        None => short,
        Some(_) => short.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_or_hostile_text_is_cut_to_one_line() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("a\u{1b}[31m\nb", 80), "a [31m b");
    }
}
