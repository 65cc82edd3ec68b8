//! JSON read in place: slices instead of a tree.
//!
//! The input comes from `jsonb`, so it is valid; whatever is not gives "not found", never a panic.
//! Nothing recurses, so depth costs nothing.

use std::borrow::Cow;
use std::ops::Range;

use super::datum::Datum;

/// A member of an object: where its key (with quotes) and its value lie in the text.
pub(super) struct Member {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

/// Walks the members of an object, or the elements of an array (whose keys are empty).
pub(super) struct Walk<'a> {
    text: &'a str,
    at: usize,
    keyed: bool,
}

impl<'a> Walk<'a> {
    /// `None` when the text is not an object.
    pub(super) fn object(text: &'a str) -> Option<Self> {
        Self::open(text, b'{', true)
    }

    /// `None` when the text is not an array.
    pub(super) fn array(text: &'a str) -> Option<Self> {
        Self::open(text, b'[', false)
    }

    fn open(text: &'a str, bracket: u8, keyed: bool) -> Option<Self> {
        let start = blanks(text.as_bytes(), 0);
        let opens = text.as_bytes().get(start) == Some(&bracket);
        opens.then_some(Self { text, at: start + 1, keyed })
    }

    fn step(&mut self) -> Option<Member> {
        let bytes = self.text.as_bytes();
        let mut at = blanks(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = blanks(bytes, at + 1);
        }
        let mut key = at..at;
        if self.keyed {
            let end = string(bytes, at)?;
            key = at..end;
            at = blanks(bytes, end);
            if bytes.get(at) != Some(&b':') {
                return None;
            }
            at = blanks(bytes, at + 1);
        }
        let end = value(bytes, at)?;
        self.at = end;
        Some(Member { key, value: at..end })
    }
}

impl Iterator for Walk<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        self.step()
    }
}

/// The elements of an array, as slices of it; `None` when it is not an array.
pub(super) fn elements(json: &str) -> Option<impl Iterator<Item = &str>> {
    Some(Walk::array(json)?.filter_map(|it| json.get(it.value)))
}

/// The value of `key` in an object. Of a key that stands twice, the last counts.
pub(super) fn member<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let last = Walk::object(json)?.filter(|it| is_key(json, it.key.clone(), key)).last()?;
    json.get(last.value)
}

/// Whether the quoted string at `range` of `json` spells `key`.
pub(super) fn is_key(json: &str, range: Range<usize>, key: &str) -> bool {
    let Some(quoted) = json.get(range) else { return false };
    let inner = inside(quoted);
    inner == key || (inner.contains('\\') && unescape(quoted) == key)
}

/// The value that a slice stands for.
pub(super) fn datum(json: &str) -> Datum<'_> {
    let json = json.trim_matches(|c: char| c.is_ascii_whitespace());
    match json.as_bytes().first() {
        Some(b'"') => Datum::Text(unescape(json)),
        Some(b'{' | b'[') => Datum::Json(Cow::Borrowed(json)),
        Some(b't') => Datum::Bool(true),
        Some(b'f') => Datum::Bool(false),
        Some(b'-' | b'0'..=b'9') => Datum::Number(Cow::Borrowed(json)),
        _ => Datum::Null,
    }
}

/// A quoted string's text; borrowed unless something in it is escaped.
fn unescape(quoted: &str) -> Cow<'_, str> {
    let inner = inside(quoted);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    match serde_json::from_str::<String>(quoted) {
        Ok(text) => Cow::Owned(text),
        // lone surrogates, which jsonb does not hold: as they are written
        Err(_) => Cow::Borrowed(inner),
    }
}

fn inside(quoted: &str) -> &str {
    quoted.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(quoted)
}

fn blanks(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The end of the string that opens at `at`.
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.iter().position(|it| matches!(it, b'"' | b'\\'))?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The end of the value that starts at `at`.
fn value(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string(bytes, at),
        b'{' | b'[' => nested(bytes, at),
        b',' | b']' | b'}' | b':' => None,
        _ => {
            let rest = bytes.get(at..)?;
            let ends = |it: &u8| matches!(it, b',' | b']' | b'}') || it.is_ascii_whitespace();
            Some(at + rest.iter().position(ends).unwrap_or(rest.len()))
        }
    }
}

fn nested(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = string(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_are_found_whatever_surrounds_them() {
        let json = r#" { "a" : 1 , "b":{"a":[2,"}"]}, "c\n": "x\"y", "a": true } "#;

        assert_eq!(member(json, "a"), Some("true"));
        assert_eq!(member(json, "b"), Some(r#"{"a":[2,"}"]}"#));
        assert_eq!(member(json, "c\n").map(datum), Some(Datum::Text("x\"y".into())));
        assert_eq!(member(json, "d"), None);
        assert_eq!(member("[1]", "a"), None);
    }

    #[test]
    fn a_hundred_thousand_levels_are_walked_over() {
        let deep = format!(r#"{{"deep": {}{}, "a": 1}}"#, "[".repeat(100_000), "]".repeat(100_000));

        assert_eq!(member(&deep, "a"), Some("1"));
    }

    proptest! {
        #[test]
        fn any_text_is_walked_to_an_end(text in r#"[\[\]{}",:\\ 0-9a-zé]{0,60}"#) {
            let _ = member(&text, "a");
            let _ = elements(&text).map(Iterator::count);
            let _ = datum(&text);
        }
    }
}
