//! A read model made by a statement of one's own, where rules do not say it.

use super::model::EventMatch;

/// The statement of a definition that has `sql` in the place of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    /// As it was written, without a semicolon at its end.
    pub text: String,
    /// The events that it is given.
    pub events: EventMatch,
}

/// The new events as the statement sees them, in their order. The parameters are arrays: position,
/// project, run, version, event id, type, payload and metadata as text, time.
const BATCH: &str = "batch as materialized (
  select position, project_id, run_id, version, event_id, type, payload::jsonb as payload,
    metadata::jsonb as metadata, recorded_at, ord
  from unnest($1::int8[], $2::uuid[], $3::uuid[], $4::int4[], $5::uuid[], $6::text[], $7::text[],
    $8::text[], $9::timestamptz[]) with ordinality
    as it (position, project_id, run_id, version, event_id, type, payload, metadata, recorded_at, ord)
)";

impl Sql {
    /// The statement with `batch` in front of it, or in front of what its own `with` names.
    pub fn with_batch(&self) -> String {
        let text = after_comments(&self.text);
        let Some(rest) = after_word(text, "with") else { return format!("with {BATCH}\n{text}") };
        match after_word(after_comments(rest), "recursive") {
            Some(rest) => format!("with recursive {BATCH},\n{rest}"),
            None => format!("with {BATCH},\n{rest}"),
        }
    }
}

/// What follows blanks and comments.
fn after_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        let after = match rest.strip_prefix("--") {
            Some(comment) => comment.split_once('\n').map_or("", |it| it.1),
            None => match rest.strip_prefix("/*").and_then(|it| it.split_once("*/")) {
                Some((_, after)) => after,
                None => return rest,
            },
        };
        rest = after.trim_start();
    }
}

/// What follows a word, whatever its case.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    let ends = rest.starts_with(|it: char| !it.is_alphanumeric() && it != '_');
    (head.eq_ignore_ascii_case(word) && ends).then_some(rest)
}

/// Whether the statement names a table together with a schema: which of a table's generations is
/// meant is not for it to say.
pub(super) fn names_with_schema<'a>(sql: &'a str, table: &str) -> Option<&'a str> {
    let is_part = |it: char| it.is_alphanumeric() || matches!(it, '_' | '"' | '.' | '$');
    let mut names = sql.split(|it: char| !is_part(it));
    names.find(|name| {
        let mut parts = name.rsplit('.');
        let last = parts.next().unwrap_or_default().trim_matches('"');
        let schema = parts.next().is_some_and(|it| !it.is_empty());
        schema && last.eq_ignore_ascii_case(table)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_batch(text: &str) -> String {
        Sql { text: text.to_owned(), events: EventMatch::Any }.with_batch().replace(BATCH, "B")
    }

    #[test]
    fn batch_stands_before_what_the_statement_names_itself() {
        assert_eq!(with_batch("insert into t select 1"), "with B\ninsert into t select 1");
        assert_eq!(with_batch(" WITH a as (select 1) x"), "with B,\n a as (select 1) x");
        assert_eq!(with_batch("-- c\n/* d */ with recursive a x"), "with recursive B,\n a x");
        assert_eq!(with_batch("without"), "with B\nwithout");
    }

    #[test]
    fn a_table_with_its_schema_is_noticed() {
        assert_eq!(names_with_schema("insert into public.t select 1", "t"), Some("public.t"));
        assert_eq!(names_with_schema("update \"a\".\"t\" set x = 1", "t"), Some("\"a\".\"t\""));
        assert_eq!(names_with_schema("select t.a, t.b from t join public.other o", "t"), None);
    }
}
