//! Secrets kept out of what leaves: values in JSON text and in texts are masked by `***`, or by a tag
//! by which equal secrets are known to be equal.
//!
//! What is masked, whatever else is around it:
//!
//! * the whole value, of any kind but null, under a key that names a secret (`password`, `api_key`,
//!   …), compared without case, with `-` and `_` equal or left out, so that
//!   `apiKey` is `api_key`;
//! * the whole value at a configured path;
//! * within strings, what looks like a secret: bearer and basic credentials, JWTs, private keys in
//!   PEM, keys with a well-known prefix, card numbers, passwords of URLs; e-mail addresses on request;
//! * within strings, what stands beside the name of a secret: `"password": "x"`, `password=x`,
//!   `Cookie: a=b`.
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
mod mark;
mod rewrite;
mod suspicion;

use std::borrow::Cow;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use self::keys::{Keys, Place};
use self::mark::Mark;
pub use self::mark::{HashKey, MASK};
use self::suspicion::Suspicion;

/// What to mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactRules {
    /// Whether the built-in key names and shapes of secrets apply.
    pub defaults: bool,
    /// More names of keys whose values are masked.
    pub keys: Vec<String>,
    /// Names of keys whose values are not masked for their name.
    pub except: Vec<String>,
    /// Paths whose values are masked: names joined by dots, `*` for any name or array index, as in
    /// `payload.customer.ssn`. An array's elements may be named by `*` or left out.
    ///
    /// A path is compared from its end, and what lies above the text at hand counts as agreeing:
    /// whether a payload or only its `customer` is redacted, `ssn` is found.
    pub paths: Vec<String>,
    /// Whether e-mail addresses are masked.
    pub email: bool,
    /// Secrets are hashed with it, so that equal ones have equal tags; without it nothing is told
    /// about them.
    pub hash_key: Option<HashKey>,
}

impl Default for RedactRules {
    fn default() -> Self {
        Self {
            defaults: true,
            keys: Vec::new(),
            except: Vec::new(),
            paths: Vec::new(),
            email: false,
            hash_key: None,
        }
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
    /// A key to hash with that could be guessed.
    #[error("hash_key must have at least 16 characters")]
    HashKey,
    /// Too many rules for an automaton.
    #[error("too many rules to redact by")]
    TooMany(#[from] aho_corasick::BuildError),
}

/// What the parts of this module share.
#[derive(Debug)]
struct Rules {
    keys: Keys,
    detects: bool,
    email: bool,
    mark: Mark,
}

/// Masks secrets in JSON text by compiled [`RedactRules`].
#[derive(Debug)]
pub struct Redactor {
    rules: Rules,
    suspicion: Suspicion,
    fingerprint: Option<String>,
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
        let suspicion = Suspicion::new(&rules, &keys)?;
        let mark = Mark::new(rules.hash_key.as_ref());
        let fingerprint = (rules != RedactRules::default()).then(|| fingerprint(&rules, &mark));
        let rules = Rules { keys, detects: rules.defaults, email: rules.email, mark };
        Ok(Self { rules, suspicion, fingerprint })
    }

    /// `json` with its secrets masked; borrowed when there are none.
    ///
    /// Text that is not JSON and looks suspicious is masked altogether.
    pub fn apply<'a>(&self, json: &'a str) -> Cow<'a, str> {
        if !self.suspicion.falls_on(json) {
            return Cow::Borrowed(json);
        }
        match rewrite::rewrite(json, &self.rules) {
            Ok(redacted) => redacted,
            Err(rewrite::NotJson) => Cow::Owned(format!("\"{MASK}\"")),
        }
    }

    /// A plain text, such as a message, with its secrets masked; borrowed when there are none.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.suspicion.falls_on(text) {
            return Cow::Borrowed(text);
        }
        detect::mask(text, &self.rules).map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// Whether a value that stands at this path of a document is masked whole, for its own name, for
    /// that of something above it, or by a configured path.
    pub fn hides<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> bool {
        let keys = &self.rules.keys;
        let mut places = Vec::new();
        for name in path {
            let name = keys::normalise(name);
            let is_secret = keys.names_secret(&name) && !keys.counts(&name);
            if keys.has_paths() {
                places.push(Place::Key(name.into_owned()));
            }
            if is_secret || (keys.has_paths() && keys.leads_to_secret(&places)) {
                return true;
            }
        }
        false
    }

    /// What stands for a secret that is masked whole.
    pub fn mark(&self, secret: &str) -> Cow<'static, str> {
        if mark::is_mark(secret) {
            Cow::Owned(secret.to_owned())
        } else {
            self.rules.mark.of(secret)
        }
    }

    /// What tells these rules from others, the key to hash with among them; `None` for the built-in
    /// ones.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }
}

/// Sixteen digits that are the same for the same rules.
fn fingerprint(rules: &RedactRules, mark: &Mark) -> String {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    let lists = [&rules.keys, &rules.except, &rules.paths].map(|it| sorted(it));
    let form = format!("{} {} {} {lists:?}", rules.defaults, rules.email, mark.fingerprint());
    let mut hex = String::new();
    for byte in Sha256::digest(form).iter().take(8) {
        write!(hex, "{byte:02x}").expect("a String takes what is written");
    }
    hex
}

#[cfg(test)]
mod tests;
