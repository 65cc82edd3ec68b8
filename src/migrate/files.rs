//! The files of `migrations/`, as they are in this binary.

use std::borrow::Cow;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::ident::Ident;

use super::error::MigrateError;

/// One file of `migrations/`.
#[derive(Debug, PartialEq, Eq)]
pub struct Migration {
    /// The 14 digits before the file's name: its place in the order.
    pub version: &'static str,
    /// The name after them, without `.sql`.
    pub name: &'static str,
    /// The file as it is, for schema `public`.
    pub sql: &'static str,
}

/// Names a file once.
macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../migrations/", $version, "_", $name, ".sql")),
        }
    };
}

/// All of them, in order.
pub const MIGRATIONS: &[Migration] = &[
    migration!("20261123090000", "control_schema"),
    migration!("20261123090100", "events"),
    migration!("20261123090200", "append_events"),
    migration!("20261123090300", "access"),
    migration!("20261124090000", "verbs"),
    migration!("20261124090100", "dead_letters"),
    migration!("20261124090200", "source_publication"),
    migration!("20261126090000", "realtime"),
];

impl Migration {
    /// Hex sha256 of the file, by which a later edit is noticed. It is that of the file and not of
    /// what ran, so that it is the same for every schema.
    pub fn checksum(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(self.sql.as_bytes()) {
            write!(hex, "{byte:02x}").expect("a String takes what is written");
        }
        hex
    }

    /// The SQL with `events` and `append_events` in `schema`.
    ///
    /// The files spell the schema out in three ways and no other (a test below sees to that), so
    /// that for `public` they can be used unchanged.
    ///
    /// # Errors
    /// When the name would need quoting inside of string literals and function bodies.
    pub fn sql_for(&self, schema: &Ident) -> Result<Cow<'static, str>, MigrateError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !schema.as_str().chars().all(plain) {
            return Err(MigrateError::SchemaName(schema.clone()));
        }
        if schema.as_str() == "public" {
            return Ok(Cow::Borrowed(self.sql));
        }
        let sql = self
            .sql
            .replace("public.", &format!("{schema}."))
            .replace("schema public ", &format!("schema {schema} "))
            .replace("schema if not exists public;", &format!("schema if not exists {schema};"));
        Ok(Cow::Owned(sql))
    }
}

/// All files as one script, for people with their own migration tool.
///
/// # Errors
/// When `schema` is a name that cannot be written into it.
pub fn print(schema: &Ident) -> Result<String, MigrateError> {
    let mut script = String::new();
    for migration in MIGRATIONS {
        if !script.is_empty() {
            script.push('\n');
        }
        let Migration { version, name, .. } = migration;
        script.push_str(&format!("-- {version}_{name}.sql\n"));
        script.push_str(&migration.sql_for(schema)?);
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(name: &str) -> Ident {
        Ident::new(name).unwrap()
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_binary_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();

        let known: Vec<String> =
            MIGRATIONS.iter().map(|it| format!("{}_{}.sql", it.version, it.name)).collect();
        assert_eq!(files, known);
        assert!(MIGRATIONS.iter().all(|it| it.version.len() == 14));
    }

    #[test]
    fn every_file_enters_itself_in_the_ledger() {
        for Migration { version, name, sql } in MIGRATIONS {
            assert!(sql.contains(&format!("values ('{version}', '{name}')")), "{version}");
        }
    }

    #[test]
    fn another_schema_leaves_public_only_as_the_role_and_in_comments() {
        for migration in MIGRATIONS {
            let sql = migration.sql_for(&ident("app")).unwrap();
            for line in sql.lines().filter(|it| !it.trim_start().starts_with("--")) {
                let role = ["from public;", "to public;", "select 'public'"];
                let rest = role.iter().fold(line.to_owned(), |line, it| line.replace(it, ""));
                assert!(!rest.contains("public ") && !rest.contains("public."), "{line}");
                assert!(!rest.ends_with("public;"), "{line}");
            }
        }
    }

    #[test]
    fn for_public_the_files_are_printed_unchanged() {
        let script = print(&ident("public")).unwrap();

        assert!(MIGRATIONS.iter().all(|it| script.contains(it.sql)));
    }

    #[test]
    fn a_schema_that_would_need_quoting_is_refused() {
        for name in ["My App", "it's", "a$$b", "a.b"] {
            assert!(matches!(print(&ident(name)), Err(MigrateError::SchemaName(_))), "{name}");
        }
    }
}
