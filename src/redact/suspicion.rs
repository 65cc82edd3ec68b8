//! Whether a text may hold a secret: one pass, before anything is taken apart.

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::detect::{address, cards, named, shapes};
use super::{RedactError, RedactRules};
use crate::redact::keys::Keys;

/// Finds every text that something could be masked in, and some others.
#[derive(Debug)]
pub(super) struct Suspicion {
    automaton: AhoCorasick,
    /// The first patterns are names, which count when a sign stands behind.
    names: usize,
    /// Whether card numbers and the passwords of URLs are looked for.
    detects: bool,
}

impl Suspicion {
    pub(super) fn new(rules: &RedactRules, keys: &Keys) -> Result<Self, RedactError> {
        let mut patterns = keys.patterns().names.clone();
        let names = patterns.len();
        patterns.extend(keys.patterns().hints.iter().cloned());
        if rules.defaults {
            patterns.extend(shapes::patterns().map(str::to_owned));
        }
        if rules.email {
            patterns.push("@".to_owned());
        }
        // No rule, no suspicion: an escape only hides what a rule looks for.
        if !patterns.is_empty() {
            patterns.push(r"\u".to_owned());
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&patterns)?;
        Ok(Self { automaton, names, detects: rules.defaults })
    }

    /// Whether `text`, in JSON or as it is, may hold a secret.
    pub(super) fn falls_on(&self, text: &str) -> bool {
        (self.automaton.is_match(text) && self.counts(text))
            || (self.detects && (address::may_hold_password(text) || cards::may_hold_card(text)))
    }

    /// Whether what the automaton finds is more than a name in prose. Slower, because one name may be
    /// the start of another.
    fn counts(&self, text: &str) -> bool {
        self.automaton.find_overlapping_iter(text).any(|found| {
            if self.names <= found.pattern().as_usize() {
                return true;
            }
            let rest = text.get(found.end()..).unwrap_or_default();
            let sign = rest.trim_start_matches(named::BLANKS).bytes().next();
            sign.is_some_and(|it| matches!(it, b'"' | b'\'' | b'\\' | b'=' | b':'))
        })
    }
}
