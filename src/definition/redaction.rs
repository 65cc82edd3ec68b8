//! The rules of `[redact]` as a part of what a definition means.

use super::model::Definition;
use crate::redact::Redactor;

/// Between the hash of a definition and the fingerprint of the rules that it is followed under.
const SEPARATOR: char = '-';

impl Definition {
    /// Makes the rules of `[redact]` a part of the hash, where something is redacted and the rules are
    /// not the built-in ones: then rows made under others are built anew.
    #[must_use]
    pub fn under(mut self, redactor: &Redactor) -> Self {
        let definition = hash_without_rules(&self.hash).to_owned();
        self.hash = match redactor.fingerprint().filter(|_| self.redacts()) {
            Some(rules) => format!("{definition}{SEPARATOR}{rules}"),
            None => definition,
        };
        self
    }

    fn redacts(&self) -> bool {
        self.rules.iter().flat_map(|it| &it.operations).any(|it| it.value.redacts())
    }
}

/// The hash of the definition alone.
pub fn hash_without_rules(hash: &str) -> &str {
    hash.split(SEPARATOR).next().unwrap_or(hash)
}
