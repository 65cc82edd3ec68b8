//! Rules applied to payloads before they leave.

use std::borrow::Cow;

/// Leaves JSON as it is.
#[derive(Debug, Default)]
pub struct Redactor {
    rules: (),
}

impl Redactor {
    /// `json` without what must not be seen.
    pub fn apply<'a>(&self, json: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(json)
    }
}
