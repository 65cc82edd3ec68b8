//! Secrets within a text: by their shape, by the name they stand beside, by where in an address.

pub(super) mod address;
pub(super) mod cards;
pub(super) mod named;
pub(super) mod shapes;

use std::ops::Range;

use super::Rules;

/// What is masked may have hidden what stands beside it: a card number is none in the midst of a
/// word. So a text is looked at until nothing is found; more often than this nobody needs to.
const MOST_ROUNDS: usize = 8;

/// `text` with the secrets in it masked; `None` when there are none.
pub(super) fn mask(text: &str, rules: &Rules) -> Option<String> {
    let mut masked = mask_once(text, rules)?;
    for _ in 0..MOST_ROUNDS {
        let Some(again) = mask_once(&masked, rules) else { return Some(masked) };
        masked = again;
    }
    Some(rules.mark.of(text).into_owned())
}

fn mask_once(text: &str, rules: &Rules) -> Option<String> {
    let mut secrets: Vec<Range<usize>> = named::named(text, &rules.keys).collect();
    if rules.detects {
        secrets.extend(shapes::shapes(text));
        secrets.extend(cards::cards(text));
        secrets.extend(address::passwords(text));
    }
    if rules.email {
        secrets.extend(address::emails(text));
    }
    if secrets.is_empty() {
        return None;
    }
    secrets.sort_by_key(|it| it.start);
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    let mut secrets = secrets.into_iter().peekable();
    while let Some(mut secret) = secrets.next() {
        // one within or across another is a part of it
        while let Some(next) = secrets.next_if(|it| it.start < secret.end) {
            secret.end = secret.end.max(next.end);
        }
        out.push_str(text.get(copied..secret.start)?);
        copied = secret.end;
        out.push_str(&rules.mark.of(text.get(secret)?));
    }
    out.push_str(text.get(copied..)?);
    Some(out)
}
