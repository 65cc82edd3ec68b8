//! Values that stand beside a secret's name within a text: in JSON that is quoted in a message or cut
//! off, in `password=x`, in the lines of an HTTP message.

use std::ops::Range;

use crate::redact::keys::{Keys, normalise};
use crate::redact::mark::is_mark;

/// A longer name is none.
const LONGEST_NAME: usize = 128;

/// What may stand around a sign. No others: whoever looks whether a text is suspicious knows these.
pub(in crate::redact) const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// Headers whose value is one whatever it looks like, when it is a pair or has a digit.
const COOKIES: &[&str] = &["cookie", "set_cookie", "cookies"];
const AUTHORIZATIONS: &[&str] = &["authorization", "proxy_authorization", "x_authorization"];

/// Schemes of these whose credentials are parameters, up to the end of the line.
const PARAMETRIC: &[&str] = &["digest", "oauth", "signature", "aws4-hmac-sha256"];

/// Where such values are.
pub(super) fn named<'a>(text: &'a str, keys: &'a Keys) -> impl Iterator<Item = Range<usize>> + 'a {
    let signs = text.bytes().enumerate().filter(|(_, it)| matches!(it, b'=' | b':'));
    signs.filter_map(move |(at, sign)| {
        let name = Name::before(text.get(..at)?)?;
        let key = normalise(name.text);
        if !keys.names_secret(&key) {
            return None;
        }
        let value = value_after(text, at + 1, sign, &name, &key)?;
        let found = text.get(value.clone())?;
        let is_counted = keys.counts(&key) && found.bytes().all(|it| it.is_ascii_digit());
        let is_nothing = found.is_empty()
            || ["null", "none", "nil", "undefined"].iter().any(|it| found.eq_ignore_ascii_case(it));
        (!is_nothing && !is_counted && !is_mark(found)).then_some(value)
    })
}

/// What stands before a sign.
struct Name<'a> {
    text: &'a str,
    is_quoted: bool,
}

impl<'a> Name<'a> {
    fn before(text: &'a str) -> Option<Self> {
        let text = text.trim_end_matches(BLANKS);
        let Some(quote) = text.chars().next_back().filter(|it| is_quote(*it)) else {
            let before = text.trim_end_matches(is_name);
            let name = text.get(before.len()..)?;
            // of a text in JSON in this text, the end of an escape: `\nCookie:`
            let escaped = name.strip_prefix(['n', 'r', 't']).filter(|_| before.ends_with('\\'));
            let name = escaped.unwrap_or(name);
            let is_name = (1..=LONGEST_NAME).contains(&name.len());
            return is_name.then_some(Self { text: name, is_quoted: false });
        };
        let inside = text.strip_suffix(quote)?.trim_end_matches('\\');
        let name = inside.get(inside.rfind(quote)? + 1..)?;
        let is_name = (1..=LONGEST_NAME).contains(&name.len());
        is_name.then_some(Self { text: name, is_quoted: true })
    }
}

fn is_quote(it: char) -> bool {
    matches!(it, '"' | '\'')
}

fn is_name(it: char) -> bool {
    it.is_alphanumeric() || matches!(it, '_' | '-')
}

/// The value that begins behind the sign before `start`.
fn value_after(
    text: &str,
    start: usize,
    sign: u8,
    name: &Name<'_>,
    key: &str,
) -> Option<Range<usize>> {
    let rest = text.get(start..)?;
    // `==` compares, `=>` of Ruby and PHP does not
    let rest = match sign {
        b'=' if rest.starts_with('=') => return None,
        b'=' => rest.strip_prefix('>').unwrap_or(rest),
        _ => rest,
    };
    let rest = if name.is_quoted {
        rest.trim_start_matches(BLANKS)
    } else {
        rest.trim_start_matches([' ', '\t'])
    };
    let start = text.len() - rest.len();
    let unescaped = rest.trim_start_matches('\\');
    let escapes = rest.len() - unescaped.len();
    if let Some(quote) = unescaped.chars().next().filter(|it| is_quote(*it)) {
        let from = start + escapes + 1;
        return Some(from..from + quoted(text.get(from..)?, quote, escapes));
    }
    let length = match rest.chars().next()? {
        '{' | '[' if name.is_quoted => bracketed(rest),
        _ if name.is_quoted => {
            rest.find(|it: char| it.is_whitespace() || ",}]\\".contains(it)).unwrap_or(rest.len())
        }
        _ if sign == b'=' => word(rest),
        _ => {
            let value = line_value(rest, name.text, key)?;
            return Some(start + value.start..start + value.end);
        }
    };
    Some(start..start + length)
}

/// How far a quoted value goes: to the quote that is escaped no more often than the one before it.
fn quoted(text: &str, quote: char, escapes: usize) -> usize {
    for (at, _) in text.match_indices(quote) {
        let before = text.get(..at).unwrap_or_default();
        let found = before.len() - before.trim_end_matches('\\').len();
        // a backslash may itself be escaped
        if (escapes == 0 && found % 2 == 0) || (0 < escapes && found <= escapes) {
            return at - found.min(escapes);
        }
    }
    text.len()
}

/// How far an array or object goes; to the end, where it is cut off.
fn bracketed(text: &str) -> usize {
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\\' => {
                is_escaped = !is_escaped;
                continue;
            }
            b'"' if !is_escaped || !is_quoted => is_quoted = !is_quoted,
            b'{' | b'[' if !is_quoted => depth += 1,
            b'}' | b']' if !is_quoted => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        is_escaped = false;
    }
    text.len()
}

/// How far what is neither blank nor a sign between values goes.
fn word(text: &str) -> usize {
    let ends = |it: char| it.is_whitespace() || "&;,\"'()[]{}<>\\`|".contains(it);
    text.find(ends).unwrap_or(text.len())
}

/// The value behind `name:`, which prose has as well: "password: required". A header's is taken for
/// what the header is; others must look like a secret.
fn line_value(text: &str, name: &str, key: &str) -> Option<Range<usize>> {
    let line = text.split(['\n', '\r', '"', '\'', '`']).next().unwrap_or(text).trim_end();
    if COOKIES.contains(&key) {
        return line.contains('=').then_some(0..line.len());
    }
    let first = word(line);
    let value = line.get(..first)?;
    if AUTHORIZATIONS.contains(&key) {
        if looks_random(value, 6) {
            return Some(0..first);
        }
        let rest = text.get(first..)?.split(['\n', '\r']).next()?.trim_end();
        let second = rest.trim_start();
        let blank = rest.len() - second.len();
        if PARAMETRIC.iter().any(|it| value.eq_ignore_ascii_case(it)) && second.contains('=') {
            return Some(first + blank..first + rest.len());
        }
        let length = word(second);
        let is_secret = looks_random(second.get(..length)?, 6);
        return is_secret.then_some(first + blank..first + blank + length);
    }
    let is_header = name.contains('-') && 6 <= value.len() && first == line.len();
    (is_header || looks_random(value, 6)).then_some(0..first)
}

/// Whether a word has as many characters, and among them digits and letters.
fn looks_random(word: &str, least: usize) -> bool {
    least <= word.len()
        && word.bytes().any(|it| it.is_ascii_digit())
        && word.bytes().any(|it| it.is_ascii_alphabetic())
}
