//! JSON text read as a stream of tokens and copied, but for what is masked.

use std::borrow::Cow;
use std::ops::Range;

use super::keys::{Place, normalise};
use super::mark::is_mark;
use super::{Rules, detect};

/// The text is not JSON, as far as that was noticed: an end within a string or a structure.
#[derive(Debug)]
pub(super) struct NotJson;

/// `json` with its secrets masked; borrowed when there was none.
pub(super) fn rewrite<'a>(json: &'a str, rules: &Rules) -> Result<Cow<'a, str>, NotJson> {
    let out = String::new();
    let mut rewriter = Rewriter { json, at: 0, copied: 0, out, open: Vec::new(), rules };
    rewriter.document()?;
    Ok(rewriter.finish())
}

struct Rewriter<'a, 'r> {
    json: &'a str,
    /// What is read next.
    at: usize,
    /// Up to where `json` is in `out`, changed or not.
    copied: usize,
    out: String,
    /// Kept on the heap, so that depth costs no stack.
    open: Vec<Place>,
    rules: &'r Rules,
}

impl<'a> Rewriter<'a, '_> {
    fn document(&mut self) -> Result<(), NotJson> {
        let mut expects_key = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    let token = self.string()?;
                    if std::mem::take(&mut expects_key) {
                        self.key(token)?;
                    } else {
                        self.masked_string(token);
                    }
                    continue;
                }
                b'{' => {
                    self.open.push(Place::Key(String::new()));
                    expects_key = true;
                }
                b'[' => self.open_array(),
                b'}' | b']' => {
                    self.close()?;
                    expects_key = false;
                }
                b',' => expects_key = matches!(self.open.last(), Some(Place::Key(_))),
                _ => {}
            }
            self.at += 1;
        }
        if self.open.is_empty() { Ok(()) } else { Err(NotJson) }
    }

    fn open_array(&mut self) {
        match self.open.last_mut() {
            Some(Place::Elements(count)) => *count += 1,
            _ => self.open.push(Place::Elements(1)),
        }
    }

    fn close(&mut self) -> Result<(), NotJson> {
        match self.open.last_mut().ok_or(NotJson)? {
            Place::Elements(count) if 1 < *count => *count -= 1,
            _ => {
                self.open.pop();
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.json);
        }
        self.out.push_str(self.json.get(self.copied..).unwrap_or_default());
        Cow::Owned(self.out)
    }

    /// Behind a key: its value is masked here, or left for the loop to come to.
    fn key(&mut self, token: Range<usize>) -> Result<(), NotJson> {
        let key = unescape(self.inside(&token));
        let key = normalise(&key);
        self.masked_string(token);
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(NotJson);
        }
        self.at += 1;
        self.skip_space();
        let keys = &self.rules.keys;
        let is_counted = keys.counts(&key);
        let mut is_secret = keys.names_secret(&key);
        if keys.has_paths() {
            if let Some(Place::Key(current)) = self.open.last_mut() {
                *current = key.into_owned();
            }
            is_secret = is_secret || keys.leads_to_secret(&self.open);
        }
        if is_secret {
            let value = self.value()?;
            self.masked_value(value, is_counted);
        }
        Ok(())
    }

    /// A value that is masked whole, unless it is none or is a mark.
    fn masked_value(&mut self, value: Range<usize>, is_counted: bool) {
        let raw = self.json.get(value.clone()).unwrap_or_default();
        let text = if raw.starts_with('"') { unescape(self.inside(&value)) } else { raw.into() };
        let is_number = text.len() == raw.len() && raw.starts_with(|it: char| it.is_ascii_digit());
        if raw != "null" && !is_mark(&text) && !(is_counted && is_number) {
            let mark = self.rules.mark.of(&text);
            self.replace(value, &format!("\"{mark}\""));
        }
    }

    /// A string, of which the parts that look like secrets are masked.
    fn masked_string(&mut self, token: Range<usize>) {
        if let Some(masked) = detect::mask(&unescape(self.inside(&token)), self.rules) {
            self.replace(token, &serde_json::Value::String(masked).to_string());
        }
    }

    fn replace(&mut self, token: Range<usize>, by: &str) {
        self.out.push_str(self.json.get(self.copied..token.start).unwrap_or_default());
        self.out.push_str(by);
        self.copied = token.end;
    }

    /// Steps over any value and says where it stands.
    fn value(&mut self) -> Result<Range<usize>, NotJson> {
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1).ok_or(NotJson)?;
                    self.at += 1;
                }
                _ if depth == 0 => self.skip_while(|byte| !is_delimiter(byte)),
                _ => self.at += 1,
            }
            if depth == 0 {
                break;
            }
        }
        if depth == 0 && start < self.at { Ok(start..self.at) } else { Err(NotJson) }
    }

    /// Steps over the string that starts here and says where it stands, quotes and all.
    fn string(&mut self) -> Result<Range<usize>, NotJson> {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(start..self.at);
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        Err(NotJson)
    }

    fn inside(&self, token: &Range<usize>) -> &'a str {
        self.json.get(token.start + 1..token.end - 1).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        self.skip_while(|byte| byte.is_ascii_whitespace());
    }

    fn skip_while(&mut self, is_skipped: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&is_skipped) {
            self.at += 1;
        }
    }
}

fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b',' | b'}' | b']' | b':' | b'"' | b'{' | b'[')
}

/// The characters that the inside of a JSON string stands for. What cannot be one (half a surrogate
/// pair, an unknown escape) becomes U+FFFD: this text is only looked at.
fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut chars = escape.chars();
        let decoded = match chars.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('u') => {
                let (decoded, after) = unescape_unicode(chars.as_str());
                text.push(decoded);
                rest = after;
                continue;
            }
            Some(other @ ('"' | '\\' | '/')) => other,
            _ => char::REPLACEMENT_CHARACTER,
        };
        text.push(decoded);
        rest = chars.as_str();
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The character whose `\u` stands before `text`, and what follows it.
fn unescape_unicode(text: &str) -> (char, &str) {
    let unit = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
    let Some(first) = unit(text) else { return (char::REPLACEMENT_CHARACTER, text) };
    let after = text.get(4..).unwrap_or_default();
    let low = after.strip_prefix("\\u").and_then(unit).filter(|it| (0xDC00..0xE000).contains(it));
    if let (0xD800..0xDC00, Some(low)) = (first, low) {
        let code = 0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00);
        let decoded = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        return (decoded, after.get(6..).unwrap_or_default());
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), after)
}
