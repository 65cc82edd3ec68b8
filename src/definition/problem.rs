//! What is wrong with a definition, and where.

use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// A mistake in a file, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// From 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// How many characters of the line are meant, at least 1.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What stands below the place: as a rule what was expected.
    pub label: String,
    /// What to do.
    pub hint: Option<String>,
    /// The line itself.
    pub excerpt: String,
}

impl Problem {
    /// About a file as a whole.
    pub fn of_file(file: &Path, message: String) -> Self {
        let (label, excerpt) = (String::new(), String::new());
        let file = file.to_owned();
        Self { file, line: 0, column: 0, length: 1, message, label, hint: None, excerpt }
    }

    /// As the compiler of Rust would show it, in plain text.
    pub fn render(&self) -> String {
        self.render_with(&Renderer::plain())
    }

    /// As [`render`](Self::render), in colour.
    pub fn render_styled(&self) -> String {
        self.render_with(&Renderer::styled())
    }

    fn render_with(&self, renderer: &Renderer) -> String {
        let path = self.file.display().to_string();
        let mut text = if self.line == 0 {
            let title = Level::ERROR.primary_title(self.message.as_str());
            let report = [title.element(
                Snippet::<annotate_snippets::Annotation<'_>>::source("").path(path.as_str()),
            )];
            renderer.render(&report)
        } else {
            let mark = AnnotationKind::Primary.span(self.bytes());
            let mark = if self.label.is_empty() { mark } else { mark.label(self.label.as_str()) };
            let place = Snippet::source(self.excerpt.as_str()).line_start(self.line);
            let place = place.path(path.as_str()).annotation(mark);
            renderer.render(&[Level::ERROR.primary_title(self.message.as_str()).element(place)])
        };
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
        text
    }

    /// The marked part of the line, in bytes.
    fn bytes(&self) -> Range<usize> {
        let at = |characters: usize| {
            let mut starts = self.excerpt.char_indices();
            starts.nth(characters).map_or(self.excerpt.len(), |(byte, _)| byte)
        };
        at(self.column - 1)..at(self.column - 1 + self.length)
    }
}

/// A file's text, and the problems found in it so far.
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, problems: Vec::new() }
    }

    /// The problems, in the order of their places.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|it| (it.line, it.column));
        self.problems.dedup();
        self.problems
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        1 + before.iter().filter(|it| **it == b'\n').count()
    }

    /// Notes a problem at `span`, cut to its first line.
    pub(super) fn problem(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: Option<String>,
    ) {
        let at = span.start.min(self.text.len());
        let at = (0..=at).rev().find(|it| self.text.is_char_boundary(*it)).unwrap_or_default();
        let (before, after) = self.text.split_at(at);
        let start = before.rfind('\n').map_or(0, |it| it + 1);
        let end = after.find('\n').map_or(self.text.len(), |it| at + it);
        let excerpt = self.text.get(start..end).unwrap_or_default().trim_end_matches('\r');
        let marked = self.text.get(at..span.end.min(end).max(at)).unwrap_or_default();
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: self.line(at),
            column: 1 + before.get(start..).unwrap_or_default().chars().count(),
            length: marked.chars().count().max(1),
            message: message.into(),
            label: label.into(),
            hint,
            excerpt: excerpt.to_owned(),
        });
    }
}
