//! Secrets known by their shape, within a text.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose;

use super::MASK;

/// What follows the start of a secret.
#[derive(Clone, Copy)]
enum Shape {
    /// A bearer token.
    Bearer,
    /// Base64 of `user:password`.
    Basic,
    /// Three parts of base64url with dots between.
    Jwt,
    /// A private key between its `BEGIN` and `END`.
    Pem,
    /// At least so many letters, digits, `_` and `-`.
    Key(usize),
}

/// How secrets start, without regard to case.
const STARTS: &[(&str, Shape)] = &[
    ("bearer ", Shape::Bearer),
    ("basic ", Shape::Basic),
    ("eyj", Shape::Jwt),
    ("-----begin ", Shape::Pem),
    ("sk_live_", Shape::Key(8)), // Stripe
    ("sk_test_", Shape::Key(8)),
    ("rk_live_", Shape::Key(8)),
    ("rk_test_", Shape::Key(8)),
    ("whsec_", Shape::Key(8)),
    ("ghp_", Shape::Key(16)), // GitHub
    ("gho_", Shape::Key(16)),
    ("ghu_", Shape::Key(16)),
    ("ghs_", Shape::Key(16)),
    ("ghr_", Shape::Key(16)),
    ("github_pat_", Shape::Key(16)),
    ("glpat-", Shape::Key(16)), // GitLab
    ("xoxb-", Shape::Key(8)),   // Slack
    ("xoxp-", Shape::Key(8)),
    ("xoxa-", Shape::Key(8)),
    ("xoxr-", Shape::Key(8)),
    ("xoxs-", Shape::Key(8)),
    ("xapp-", Shape::Key(8)),
    ("akia", Shape::Key(16)), // AWS
    ("asia", Shape::Key(16)),
    ("aiza", Shape::Key(30)),      // Google
    ("sk-proj-", Shape::Key(16)),  // OpenAI
    ("sk-ant-", Shape::Key(16)),   // Anthropic
    ("sb_secret_", Shape::Key(8)), // Supabase
    ("npm_", Shape::Key(30)),
];

/// How secrets start: a text without any of these, compared without case, holds none but cards.
pub(super) fn patterns() -> impl Iterator<Item = &'static str> {
    STARTS.iter().map(|(start, _)| *start)
}

/// `text` with the secrets in it masked; `None` when there are none.
pub(super) fn mask(text: &str) -> Option<String> {
    let mut masked = mask_once(text)?;
    // What is masked may have hidden what stands beside it: a card number is none in the midst of a
    // word. Each round leaves less text, so there is a last one.
    while let Some(again) = mask_once(&masked) {
        masked = again;
    }
    Some(masked)
}

fn mask_once(text: &str) -> Option<String> {
    static AUTOMATON: LazyLock<AhoCorasick> = LazyLock::new(|| {
        AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(patterns())
            .expect("a few dozen short patterns fit an automaton")
    });
    let mut secrets: Vec<Range<usize>> = AUTOMATON
        .find_overlapping_iter(text)
        .filter_map(|found| {
            let (_, shape) = STARTS.get(found.pattern().as_usize())?;
            secret(text, found.range(), *shape)
        })
        .collect();
    let stands_alone = |range: &Range<usize>| !is_within_word(text, range);
    secrets.extend(cards(text.as_bytes()).filter(stands_alone));
    if secrets.is_empty() {
        return None;
    }
    secrets.sort_by_key(|it| it.start);
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for secret in secrets {
        if copied <= secret.start {
            out.push_str(text.get(copied..secret.start)?);
            out.push_str(MASK);
        }
        copied = copied.max(secret.end);
    }
    out.push_str(text.get(copied..)?);
    Some(out)
}

/// The secret that starts as `start` says, if the rest of it is as it should be.
fn secret(text: &str, start: Range<usize>, shape: Shape) -> Option<Range<usize>> {
    let rest = text.get(start.end..)?;
    match shape {
        Shape::Bearer => {
            let token = rest.trim_start_matches(' ');
            let length = run(token, |it| it.is_ascii_alphanumeric() || b"-._~+/=".contains(&it));
            let digits = token.get(..length)?.bytes().any(|it| it.is_ascii_digit());
            // "Bearer authentication" is prose.
            let is_token = 8 <= length && (digits || 20 <= length);
            let from = start.end + rest.len() - token.len();
            is_token.then_some(from..from + length)
        }
        Shape::Basic => {
            let token = rest.trim_start_matches(' ');
            let length = run(token, |it| it.is_ascii_alphanumeric() || b"+/=-_".contains(&it));
            let unpadded = token.get(..length)?.trim_end_matches('=');
            let decoded = general_purpose::STANDARD_NO_PAD
                .decode(unpadded)
                .or_else(|_| general_purpose::URL_SAFE_NO_PAD.decode(unpadded));
            // "Basic plan" is prose.
            let is_token = decoded.is_ok_and(|it| it.contains(&b':'));
            let from = start.end + rest.len() - token.len();
            is_token.then_some(from..from + length)
        }
        Shape::Jwt => {
            let header = run(rest, is_key_byte);
            let rest = rest.get(header..)?.strip_prefix('.')?;
            let claims = run(rest, is_key_byte);
            let rest = rest.get(claims..)?.strip_prefix('.')?;
            let signature = run(rest, is_key_byte);
            let is_token = 8 <= header && 2 <= claims;
            is_token.then_some(start.start..start.end + header + claims + signature + 2)
        }
        Shape::Pem => {
            let (label, _) = rest.split_once("-----")?;
            if !label.to_ascii_uppercase().ends_with("PRIVATE KEY") {
                return None;
            }
            let end = format!("-----END {label}-----");
            let length = rest.find(&end).map_or(rest.len(), |it| it + end.len());
            Some(start.start..start.end + length)
        }
        Shape::Key(least) => {
            let length = run(rest, is_key_byte);
            (least <= length).then_some(start.start..start.end + length)
        }
    }
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// How many bytes at the start of `text` are of a kind, which must be ASCII.
fn run(text: &str, is_of_kind: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|byte| is_of_kind(*byte)).count()
}

const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Whether a JSON text may hold a card number in one of its strings.
pub(super) fn may_hold_card(json: &str) -> bool {
    cards(json.as_bytes()).next().is_some()
}

/// What could be card numbers: 13 to 19 digits, in groups or not, with the first digits of a card
/// scheme and the right check digit.
fn cards(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    grouped_digits(text).flat_map(move |(start, groups)| cards_from(text, start, groups))
}

/// Where digits start that go on, with a single space or dash here and there, long enough for a
/// card; and where they end.
fn grouped_digits(text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(byte) = text.get(at) {
            if !byte.is_ascii_digit() {
                at += 1;
                continue;
            }
            let start = at;
            let mut digits = 0;
            let mut end = at;
            while let Some(byte) = text.get(at) {
                if byte.is_ascii_digit() {
                    digits += 1;
                    end = at + 1;
                } else if !is_separator(*byte) || end != at {
                    break;
                }
                at += 1;
            }
            if *CARD_DIGITS.start() <= digits {
                return Some((start, end));
            }
        }
        None
    })
}

fn is_separator(byte: u8) -> bool {
    byte == b' ' || byte == b'-'
}

/// The cards among the groups of digits between `start` and `end`; each begins and ends with a group.
fn cards_from(text: &[u8], start: usize, end: usize) -> impl Iterator<Item = Range<usize>> {
    let digit_at = move |at: usize| text.get(at).filter(|it| it.is_ascii_digit());
    let is_group_start =
        move |at: &usize| digit_at(*at).is_some() && (*at == start || digit_at(*at - 1).is_none());
    (start..end).filter(is_group_start).filter_map(move |first| {
        let mut digits = Vec::with_capacity(*CARD_DIGITS.end());
        let mut found = None;
        for at in first..end {
            let Some(digit) = digit_at(at) else { continue };
            digits.push(digit - b'0');
            if CARD_DIGITS.end() < &digits.len() {
                break;
            }
            let is_group_end = at + 1 == end || digit_at(at + 1).is_none();
            if is_group_end && CARD_DIGITS.contains(&digits.len()) && is_card(&digits) {
                found = Some(first..at + 1);
            }
        }
        found
    })
}

fn is_card(digits: &[u8]) -> bool {
    let prefix = digits.iter().take(4).fold(0_u32, |sum, it| sum * 10 + u32::from(*it));
    let is_scheme = matches!(prefix, 2200..=2204 | 2221..=2720 | 3000..=6999);
    let weigh = |(index, digit): (usize, &u8)| match (index % 2, *digit) {
        (0, digit) => u32::from(digit),
        (_, digit) if digit < 5 => u32::from(digit) * 2,
        (_, digit) => u32::from(digit) * 2 - 9,
    };
    is_scheme && digits.iter().rev().enumerate().map(weigh).sum::<u32>() % 10 == 0
}

/// Whether letters, or the digits of a fraction, go over into `range`: an identifier, not a card.
fn is_within_word(text: &str, range: &Range<usize>) -> bool {
    let before = text.get(..range.start).unwrap_or_default();
    let after = text.get(range.end..).unwrap_or_default();
    let is_word = |it: char| it.is_alphanumeric() || it == '_';
    before.ends_with(is_word)
        || after.starts_with(is_word)
        || before.strip_suffix('.').is_some_and(|it| it.ends_with(|it: char| it.is_ascii_digit()))
}
