//! A lookup's value in one event.

use std::borrow::Cow;

use super::datum::Datum;
use super::json;
use super::model::Lookup;
use super::scope::Scope;

impl Lookup {
    /// The text at the path, as Postgres' `#>>` gives it; nothing where that is null or not there.
    pub fn text<'a>(&self, scope: &Scope<'a>) -> Option<Cow<'a, str>> {
        let (first, rest) = self.path.split_first()?;
        let start = scope.payload_member(first)?;
        let found = rest.iter().try_fold(start, |json, key| json::member(json, key))?;
        Some(match json::datum(found) {
            Datum::Text(it) | Datum::Number(it) | Datum::Json(it) => it,
            Datum::Bool(true) => Cow::Borrowed("true"),
            Datum::Bool(false) => Cow::Borrowed("false"),
            _ => return None,
        })
    }

    /// Whether a step of the path could be meant as a place in an array, which only Postgres follows.
    pub fn may_count(&self) -> bool {
        self.path.iter().any(|it| it.parse::<i64>().is_ok())
    }
}
