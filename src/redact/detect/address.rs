//! Passwords in URLs, and e-mail addresses.

use std::ops::Range;

use crate::redact::mark::{ends_with_mark, is_mark};

/// What stands before the authority of a URL, in a text and in JSON that escapes its slashes.
const AUTHORITY: [&str; 2] = ["://", r":\/\/"];

/// Whether a text, in JSON or as it is, may hold the password of a URL.
pub(in crate::redact) fn may_hold_password(text: &str) -> bool {
    text.contains('@')
        && AUTHORITY.iter().any(|scheme| {
            let mut rests =
                text.match_indices(scheme).filter_map(|(at, _)| text.get(at + scheme.len()..));
            rests.any(|it| user_info(it).is_some())
        })
}

/// Where there are passwords of URLs: `x` of `postgres://user:x@host/`.
pub(super) fn passwords(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices(AUTHORITY[0]).filter_map(move |(at, scheme)| {
        let start = at + scheme.len();
        let user_info = text.get(start..start + user_info(text.get(start..)?)?)?;
        let (user, password) = user_info.split_once(':')?;
        let from = start + user.len() + 1;
        (!password.is_empty() && !is_mark(password)).then_some(from..from + password.len())
    })
}

/// How long the part of an authority before its `@` is, if it has one.
fn user_info(authority: &str) -> Option<usize> {
    let ends = |it: char| {
        it.is_whitespace() || matches!(it, '/' | '?' | '#' | '"' | '\'' | '<' | '>' | '`')
    };
    let end = authority.find(ends).unwrap_or(authority.len());
    authority.get(..end)?.rfind('@')
}

/// Where there are e-mail addresses.
pub(super) fn emails(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices('@').filter_map(move |(at, _)| {
        let before = text.get(..at)?;
        let is_local = |it: char| it.is_alphanumeric() || ".!#$%&+/=?^_{|}~-".contains(it);
        let local = before.len() - before.trim_end_matches(is_local).len();
        let after = text.get(at + 1..)?;
        let is_domain = |it: char| it.is_alphanumeric() || matches!(it, '.' | '-');
        let end = after.find(|it| !is_domain(it)).unwrap_or(after.len());
        let domain = after.get(..end)?.trim_end_matches(['.', '-']);
        let (name, top) = domain.rsplit_once('.')?;
        let is_address = 0 < local
            && !ends_with_mark(before)
            && !name.is_empty()
            && 2 <= top.chars().count()
            && top.chars().all(char::is_alphabetic);
        is_address.then_some(at - local..at + 1 + domain.len())
    })
}
