//! Payment cards' numbers.

use std::ops::{Range, RangeInclusive};

const CARD_DIGITS: RangeInclusive<usize> = 13..=19;

/// Whether a JSON text may hold a card number in one of its strings.
pub(in crate::redact) fn may_hold_card(json: &str) -> bool {
    let bytes = json.as_bytes();
    let is_part = |it: &u8| it.is_ascii_digit() || is_separator(*it);
    // what is long enough covers one of every so many bytes: the others need no look
    let step = *CARD_DIGITS.start();
    let mut at = step - 1;
    while let Some(byte) = bytes.get(at) {
        if !is_part(byte) {
            at += step;
            continue;
        }
        let before = bytes.get(..at).unwrap_or_default();
        let after = bytes.get(at..).unwrap_or_default();
        let start = at - before.iter().rev().take_while(|it| is_part(it)).count();
        let end = at + after.iter().take_while(|it| is_part(it)).count();
        let span = bytes.get(start..end).unwrap_or_default();
        if step <= span.len() && candidates(span).next().is_some() {
            return true;
        }
        at = end + step;
    }
    false
}

/// Where there are card numbers, standing alone.
pub(super) fn cards(text: &str) -> impl Iterator<Item = Range<usize>> {
    candidates(text.as_bytes()).filter(move |it| !is_within_word(text, it))
}

/// What could be card numbers: 13 to 19 digits, in groups or not, with the first digits of a card
/// scheme and the right check digit.
fn candidates(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
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
        let prefix = (first..end).filter_map(digit_at).take(4);
        if !is_scheme(prefix.fold(0, |sum, it| sum * 10 + u32::from(*it - b'0'))) {
            return None;
        }
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

/// Whether cards begin with these four digits.
fn is_scheme(prefix: u32) -> bool {
    matches!(prefix, 2200..=2204 | 2221..=2720 | 3000..=6999)
}

/// Whether the check digit is right.
fn is_card(digits: &[u8]) -> bool {
    let weigh = |(index, digit): (usize, &u8)| match (index % 2, *digit) {
        (0, digit) => u32::from(digit),
        (_, digit) if digit < 5 => u32::from(digit) * 2,
        (_, digit) => u32::from(digit) * 2 - 9,
    };
    digits.iter().rev().enumerate().map(weigh).sum::<u32>() % 10 == 0
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
