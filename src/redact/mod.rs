//! Secrets kept out of what leaves: values in JSON text are masked by `***`.
//!
//! What is masked, whatever else is around it:
//!
//! * the whole value, of any kind but null, under a key that names a secret (`password`, `api_key`,
//!   …), compared without case, with `-` and `_` equal or left out, so that
//!   `apiKey` is `api_key`;
//! * the whole value at a configured path;
//! * within strings, what looks like a secret: bearer and basic credentials, JWTs, private keys in
//!   PEM, keys with a well-known prefix, card numbers.
//!
//! Nearly all events hold nothing of the kind. One pass of an automaton over the text and a scan for
//! digits find that out, and the text is handed back as it came. Only otherwise is it taken apart,
//! as a stream of tokens: no tree, no recursion, no number parsed, so that depth and size of a
//! document do not matter and all that is not masked stays as it is, byte for byte.
//!
//! A mask is only as good as its rules. A secret under a harmless name and without a known shape
//! passes.

mod detect;
mod keys;
mod rewrite;

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use self::keys::Keys;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// What to mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactRules {
    /// Whether the built-in key names and shapes of secrets apply.
    pub defaults: bool,
    /// More names of keys whose values are masked.
    pub keys: Vec<String>,
    /// Paths whose values are masked: names joined by dots, `*` for any name or array index, as in
    /// `payload.customer.ssn`. An array's elements may be named by `*` or left out.
    ///
    /// A path is compared from its end, and what lies above the text at hand counts as agreeing:
    /// whether a payload or only its `customer` is redacted, `ssn` is found.
    pub paths: Vec<String>,
}

impl Default for RedactRules {
    fn default() -> Self {
        Self { defaults: true, keys: Vec::new(), paths: Vec::new() }
    }
}

/// The rules cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// A key of separators alone, or of nothing.
    #[error("`{0}` is not a key name to redact")]
    Key(String),
    /// A path that is empty, has an empty name in it, or ends in `*`.
    #[error("`{0}` is not a path to redact; one looks like payload.customer.ssn")]
    Path(String),
    /// Too many rules for an automaton.
    #[error("too many rules to redact by")]
    TooMany(#[from] aho_corasick::BuildError),
}

/// Masks secrets in JSON text by compiled [`RedactRules`].
#[derive(Debug)]
pub struct Redactor {
    keys: Keys,
    detects: bool,
    /// Finds every text that [`rewrite`] could change, and some others.
    suspicious: AhoCorasick,
}

impl Default for Redactor {
    /// Follows the built-in rules.
    fn default() -> Self {
        Self::new(RedactRules::default()).expect("the built-in rules compile")
    }
}

impl Redactor {
    /// Compiles `rules`.
    ///
    /// # Errors
    /// When a key or a path is empty.
    #[expect(clippy::needless_pass_by_value, reason = "rules are compiled once and then done with")]
    pub fn new(rules: RedactRules) -> Result<Self, RedactError> {
        let keys = Keys::new(&rules)?;
        let mut patterns = keys.patterns().to_vec();
        if rules.defaults {
            patterns.extend(detect::patterns().map(str::to_owned));
        }
        // No rule, no suspicion: an escape only hides what a rule looks for.
        if !patterns.is_empty() {
            patterns.push(r"\u".to_owned());
        }
        let suspicious = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&patterns)?;
        Ok(Self { keys, detects: rules.defaults, suspicious })
    }

    /// `json` with its secrets masked; borrowed when there are none.
    ///
    /// Text that is not JSON and looks suspicious is masked altogether.
    pub fn apply<'a>(&self, json: &'a str) -> Cow<'a, str> {
        if !self.is_suspicious(json) {
            return Cow::Borrowed(json);
        }
        match rewrite::rewrite(json, &self.keys, self.detects) {
            Ok(redacted) => redacted,
            Err(rewrite::NotJson) => Cow::Owned(format!("\"{MASK}\"")),
        }
    }

    fn is_suspicious(&self, json: &str) -> bool {
        self.suspicious.is_match(json) || (self.detects && detect::may_hold_card(json))
    }
}

#[cfg(test)]
mod tests;
