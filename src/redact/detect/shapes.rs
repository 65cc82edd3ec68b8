//! Secrets known by how they start.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose;

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

/// How secrets start: a text without any of these, compared without case, holds none of a known shape.
pub(in crate::redact) fn patterns() -> impl Iterator<Item = &'static str> {
    STARTS.iter().map(|(start, _)| *start)
}

/// Where there are secrets of a known shape; they may overlap.
pub(super) fn shapes(text: &str) -> impl Iterator<Item = Range<usize>> {
    static AUTOMATON: LazyLock<AhoCorasick> = LazyLock::new(|| {
        AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(patterns())
            .expect("a few dozen short patterns fit an automaton")
    });
    AUTOMATON.find_overlapping_iter(text).filter_map(move |found| {
        let (_, shape) = STARTS.get(found.pattern().as_usize())?;
        secret(text, found.range(), *shape)
    })
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
