//! A column's SQL: `int not null default 0`, taken apart as far as the checks need it.
//!
//! The text goes into a `create table` as it is, so it must not be able to end the column or the
//! statement.

use super::datum::Datum;
use super::json;
use super::types::ColumnType;

/// A column's text, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) ty: ColumnType,
    pub(super) not_null: bool,
    pub(super) generated: bool,
    pub(super) default: Option<String>,
    pub(super) default_value: Option<serde_json::Value>,
}

/// What is wrong with a column's text, where (in bytes), and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadColumn {
    pub(super) message: String,
    pub(super) offset: usize,
    pub(super) length: usize,
    pub(super) hint: Option<String>,
}

/// Words that end a type or a default.
const CONSTRAINTS: &[&str] = &[
    "not",
    "null",
    "default",
    "generated",
    "check",
    "collate",
    "constraint",
    "primary",
    "unique",
    "references",
];

/// Reads the text after a column's name.
pub(super) fn read(text: &str) -> Result<Declaration, BadColumn> {
    let words = words(text)?;
    for word in &words {
        let reason = match word.lower.as_str() {
            "primary" => "the primary key is made from `key`",
            "unique" => "uniqueness across events is what `key` is for",
            "references" => "a row may come before the row that it refers to",
            _ => continue,
        };
        let message = format!("a column of a read model cannot be `{}`", word.lower);
        return Err(bad(message, word.at, word.lower.len(), Some(reason)));
    }
    let is_constraint = |it: &&Word| CONSTRAINTS.contains(&it.lower.as_str());
    let type_end = words.iter().find(is_constraint).map_or(text.len(), |it| it.at);
    let type_text = text.get(..type_end).unwrap_or_default().trim();
    if type_text.is_empty() {
        let hint = "a type comes first: \"text not null\"";
        return Err(bad("column without a type".to_owned(), 0, text.len().max(1), Some(hint)));
    }
    let has = |first: &str, second: &str| {
        words.windows(2).any(|it| matches!(it, [a, b] if a.lower == first && b.lower == second))
    };
    let ty = ColumnType::named(type_text);
    let default = default(text, &words);
    let default_value = default.as_deref().and_then(literal).map(|it| in_type(&ty, it));
    let generated = has("generated", "always");
    Ok(Declaration { ty, not_null: has("not", "null"), generated, default, default_value })
}

struct Word {
    lower: String,
    at: usize,
}

/// The words outside of quotes and parentheses. Refuses everything that could end the column.
fn words(text: &str) -> Result<Vec<Word>, BadColumn> {
    let refuse = |message: &str, at: usize| Err(bad(message.to_owned(), at, 1, None));
    let mut words: Vec<Word> = Vec::new();
    let mut open = Vec::new();
    let mut in_word = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        let continues = in_word;
        in_word = false;
        match c {
            // a doubled quote closes and opens again, which comes to the same
            '\'' | '"' if !chars.any(|(_, it)| it == c) => {
                return refuse("quote without its end", at);
            }
            '\'' | '"' => {}
            '(' => open.push(at),
            ')' if open.pop().is_none() => return refuse("`)` without its `(`", at),
            ')' => {}
            ',' if open.is_empty() => return refuse("`,` would begin another column", at),
            ';' => return refuse("`;` would end the statement", at),
            '-' if next == Some('-') => return refuse("`--` would begin a comment", at),
            '/' if next == Some('*') => return refuse("`/*` would begin a comment", at),
            '\\' | '$' | '\0' => return refuse("not allowed in a column", at),
            _ if c.is_alphanumeric() || c == '_' => {
                in_word = true;
                match words.last_mut() {
                    Some(word) if continues => word.lower.extend(c.to_lowercase()),
                    _ if open.is_empty() => {
                        words.push(Word { lower: c.to_lowercase().collect(), at });
                    }
                    _ => in_word = false,
                }
            }
            _ => {}
        }
    }
    match open.last() {
        Some(at) => refuse("`(` without its `)`", *at),
        None if text.contains('\\') || text.contains('\0') => {
            let at = text.find(['\\', '\0']).unwrap_or_default();
            refuse("not allowed in a column", at)
        }
        None => Ok(words),
    }
}

/// The SQL after `default`, up to the next constraint.
fn default(text: &str, words: &[Word]) -> Option<String> {
    let place = words.iter().position(|it| it.lower == "default")?;
    let start = words.get(place)?.at + "default".len();
    // `default null`: this one is the value
    let begins = |it: &Word| text.get(start..it.at).is_some_and(|it| it.trim().is_empty());
    let mut rest = words.get(place + 1..)?.iter();
    let end = rest.find(|it| CONSTRAINTS.contains(&it.lower.as_str()) && !begins(it));
    Some(text.get(start..end.map_or(text.len(), |it| it.at))?.trim().to_owned())
}

/// The value of a default that is a literal.
fn literal(sql: &str) -> Option<serde_json::Value> {
    if let Some(quoted) = sql.strip_prefix('\'') {
        let (text, cast) = match quoted.rfind('\'') {
            Some(end) => (quoted.get(..end)?, quoted.get(end + 1..)?),
            None => return None,
        };
        let is_cast = cast.is_empty() || cast.trim_start().starts_with("::");
        return is_cast.then(|| text.replace("''", "'").into());
    }
    match json::datum(sql) {
        Datum::Number(it) => serde_json::from_str(&it).ok(),
        _ => match sql.to_ascii_lowercase().as_str() {
            "true" => Some(true.into()),
            "false" => Some(false.into()),
            _ => None,
        },
    }
}

/// Postgres reads a quoted default in the column's own syntax: `'{}'` of a `jsonb` is an object.
fn in_type(ty: &ColumnType, literal: serde_json::Value) -> serde_json::Value {
    let is_read = matches!(ty, ColumnType::Json | ColumnType::Jsonb) || ty.is_numeric();
    match &literal {
        serde_json::Value::String(text) if is_read => serde_json::from_str(text).unwrap_or(literal),
        _ => literal,
    }
}

fn bad(message: String, offset: usize, length: usize, hint: Option<&str>) -> BadColumn {
    BadColumn { message, offset, length, hint: hint.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_column_is_taken_apart() {
        let read = |text: &str| read(text).unwrap();

        assert_eq!(read("INTEGER NOT NULL DEFAULT 0").ty, ColumnType::Int4);
        assert!(read("int not  null default 0").not_null);
        assert_eq!(read("int not null default 0").default.as_deref(), Some("0"));
        assert_eq!(read("int default 0 not null").default.as_deref(), Some("0"));
        assert_eq!(read("int default null check (x > 0)").default.as_deref(), Some("null"));
        assert_eq!(
            read("text default 'it''s; (fine)'::text").default_value,
            Some("it's; (fine)".into())
        );
        assert_eq!(read("jsonb not null default '{}'").default_value, Some(serde_json::json!({})));
        assert_eq!(read("timestamptz default now()").default_value, None);
        assert_eq!(read("numeric(10, 2)").ty, ColumnType::Numeric);
        assert_eq!(read("timestamp (3) with time zone").ty, ColumnType::Timestamptz);
        assert_eq!(read("character varying(20) collate \"C\"").ty, ColumnType::Text);
        assert_eq!(read("text[]").ty, ColumnType::Other("text[]".into()));
        assert_eq!(read("run_state").ty, ColumnType::Other("run_state".into()));
        assert!(read("bigint generated always as ((a - b)::bigint) stored").generated);
    }

    #[test]
    fn no_text_leaves_its_column() {
        for text in [
            "int, evil int",
            "int); drop table events; --",
            "int -- not null",
            "int /* x */",
            "int default (1",
            "text default 'x",
            "text default $$)$$",
            r"text default E'\'' )",
            "int primary key",
            "uuid references runs",
            "",
            "not null",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_column_or_not(text in r#"[a-z'"(),;$\\ é/*-]{0,40}"#) {
            drop(read(&text));
        }
    }
}
