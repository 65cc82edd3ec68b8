//! The console: one page and its modules, as they are in this folder. No build, nothing from elsewhere.

use std::sync::OnceLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// Only this origin's own files run, no other page may frame it, and text never becomes markup: with
/// an admin token in its session storage, the page is worth attacking.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $kind:expr),* $(,)?) => {
        /// What `/console/` has: name, type, text.
        const FILES: &[(&str, &str, &str)] = &[$(($name, $kind, include_str!($name))),*];
    };
}

files! {
    "icon.svg": SVG,
    "base.css": CSS,
    "list.css": CSS,
    "run.css": CSS,
    "theme.js": SCRIPT,
    "app.js": SCRIPT,
    "api.js": SCRIPT,
    "live.js": SCRIPT,
    "dom.js": SCRIPT,
    "format.js": SCRIPT,
    "keys.js": SCRIPT,
    "access.js": SCRIPT,
    "runs.js": SCRIPT,
    "runs_table.js": SCRIPT,
    "run.js": SCRIPT,
    "run_head.js": SCRIPT,
    "replay.js": SCRIPT,
    "tail.js": SCRIPT,
    "steps.js": SCRIPT,
    "log.js": SCRIPT,
    "why.js": SCRIPT,
    "projections.js": SCRIPT,
    "projection_card.js": SCRIPT,
}

/// The page itself.
pub(super) async fn html(headers: HeaderMap) -> Response {
    static TAG: OnceLock<String> = OnceLock::new();
    let text = include_str!("index.html");
    answer(&headers, TAG.get_or_init(|| tag(text)), HTML, text)
}

/// One of its files.
pub(super) async fn file(
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    static TAGS: OnceLock<Vec<String>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| FILES.iter().map(|(_, _, text)| tag(text)).collect());
    let found = FILES.iter().zip(tags).find(|((it, _, _), _)| *it == name);
    let ((_, kind, text), tag) = found.ok_or_else(ApiError::no_such_route)?;
    Ok(answer(&headers, tag, kind, text))
}

/// The text, or that it is the one that the browser has.
fn answer(request: &HeaderMap, tag: &str, kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let tag = [(header::ETAG, tag.to_owned())];
    let known = request.get(header::IF_NONE_MATCH).and_then(|it| it.to_str().ok());
    if known == Some(&tag[0].1) {
        return (StatusCode::NOT_MODIFIED, headers, tag).into_response();
    }
    (headers, tag, text).into_response()
}

fn tag(text: &str) -> String {
    let digest = Sha256::digest(text);
    format!("\"{}\"", digest.iter().take(8).map(|it| format!("{it:02x}")).collect::<String>())
}
