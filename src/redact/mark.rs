//! What stands in the place of a secret.

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Between [`MASK`] and a tag.
const SEPARATOR: char = ':';

/// The letters of a tag: none is a digit, and no secret starts with them, so that a tag is never
/// taken for one.
const LETTERS: &[u8; 16] = b"bcdfhjklmnqrtvwz";

/// How many letters a tag has, of four bits each.
const TAG_LETTERS: usize = 12;

/// A shorter key could be guessed together with the secrets.
const SHORTEST_KEY: usize = 16;

/// The key by which secrets are hashed. It prints as stars.
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey(String);

impl HashKey {
    /// A key, unless it is too short to be one.
    pub fn new(key: &str) -> Option<Self> {
        (SHORTEST_KEY <= key.len()).then(|| Self(key.to_owned()))
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Makes marks: stars alone, or stars and a tag by which equal secrets are known to be equal.
#[derive(Debug)]
pub(super) enum Mark {
    Stars,
    Tags(Box<Hmac<Sha256>>),
}

impl Mark {
    pub(super) fn new(key: Option<&HashKey>) -> Self {
        match key {
            None => Self::Stars,
            Some(HashKey(key)) => {
                let keyed = Hmac::<Sha256>::new_from_slice(key.as_bytes());
                Self::Tags(Box::new(keyed.expect("HMAC takes a key of any length")))
            }
        }
    }

    /// The mark of `secret`.
    pub(super) fn of(&self, secret: &str) -> Cow<'static, str> {
        let Self::Tags(keyed) = self else { return Cow::Borrowed(MASK) };
        let mut keyed = keyed.as_ref().clone();
        // a card number is the same one however it is grouped
        let is_grouped = secret.bytes().all(|it| it.is_ascii_digit() || matches!(it, b' ' | b'-'));
        if is_grouped {
            keyed.update(secret.replace([' ', '-'], "").as_bytes());
        } else {
            keyed.update(secret.as_bytes());
        }
        let mut mark = format!("{MASK}{SEPARATOR}");
        let digest = keyed.finalize().into_bytes();
        let halves = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let letters = halves.filter_map(|it| LETTERS.get(usize::from(it)));
        mark.extend(letters.take(TAG_LETTERS).map(|it| char::from(*it)));
        Cow::Owned(mark)
    }

    /// A digest of the key, to tell one from another by.
    pub(super) fn fingerprint(&self) -> Cow<'static, str> {
        self.of("the key itself")
    }
}

/// Whether a text is a mark and nothing else.
pub(super) fn is_mark(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(MASK) else { return false };
    rest.is_empty()
        || rest.strip_prefix(SEPARATOR).is_some_and(|tag| {
            tag.len() == TAG_LETTERS && tag.bytes().all(|it| LETTERS.contains(&it))
        })
}

/// Whether a mark's tag, or a mark without one, ends where `text` does.
pub(super) fn ends_with_mark(text: &str) -> bool {
    let tagged = MASK.len() + SEPARATOR.len_utf8() + TAG_LETTERS;
    let last = |length: usize| text.get(text.len().checked_sub(length)?..);
    text.ends_with(MASK) || last(tagged).is_some_and(is_mark)
}
