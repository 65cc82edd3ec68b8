//! Names of SQL objects, quoted in one place.

use std::fmt;
use std::str::FromStr;

/// A SQL identifier of 1 to 63 bytes. Its [`Display`](fmt::Display) form is quoted, so that it can
/// be put into a statement as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ident(String);

/// Postgres cuts longer names silently, and two projections would then share one table.
const LONGEST: usize = 63;

/// The text cannot be the name of a SQL object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentError {
    /// No character at all.
    #[error("a name must not be empty")]
    Empty,
    /// More than 63 bytes.
    #[error("`{0}` is too long for a name: {1} bytes, at most 63")]
    TooLong(String, usize),
    /// A NUL byte.
    #[error("a name must not contain a NUL byte")]
    Nul,
}

impl Ident {
    /// Checks `text` and takes it as it is: case and all.
    ///
    /// # Errors
    /// When it is empty, longer than 63 bytes, or holds a NUL byte.
    pub fn new(text: impl Into<String>) -> Result<Self, IdentError> {
        let text = text.into();
        if text.is_empty() {
            return Err(IdentError::Empty);
        }
        if text.contains('\0') {
            return Err(IdentError::Nul);
        }
        if LONGEST < text.len() {
            let bytes = text.len();
            return Err(IdentError::TooLong(text, bytes));
        }
        Ok(Self(text))
    }

    /// The name without quotes, as the catalog holds it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for part in self.0.split_inclusive('"') {
            f.write_str(part)?;
            if part.ends_with('"') {
                f.write_str("\"")?;
            }
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Ident {
    type Err = IdentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl AsRef<str> for Ident {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Ident {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A name in a schema. Its [`Display`](fmt::Display) form is quoted: `"public"."events"`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QualifiedName {
    /// The schema.
    pub schema: Ident,
    /// The object in it.
    pub name: Ident,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// `text` as a SQL string literal, for the few statements that take no parameters (replication
/// commands, DDL).
pub fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quoted_name_holds_every_quote_twice(text in "[a-z\"]{1,40}") {
            let quoted = Ident::new(text.clone()).unwrap().to_string();

            let inner = quoted.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap();
            prop_assert_eq!(inner.replace("\"\"", "\""), text);
        }
    }

    #[test]
    fn names_that_postgres_would_cut_are_refused() {
        assert!(Ident::new("x".repeat(63)).is_ok());
        assert!(matches!(Ident::new("x".repeat(64)), Err(IdentError::TooLong(_, 64))));
        assert_eq!(Ident::new(""), Err(IdentError::Empty));
        assert_eq!(Ident::new("a\0"), Err(IdentError::Nul));
    }
}
