//! Why the schema is not, or cannot be brought, up to date.

use crate::ident::Ident;

/// Why [`apply`](super::apply), [`plan`](super::plan) or
/// [`require_current`](super::require_current) failed.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A statement of the migrator itself failed.
    #[error("cannot read or keep the ledger `projector.schema_migrations`")]
    Database(#[source] tokio_postgres::Error),

    /// A file failed; its transaction is rolled back, the files before it stay.
    #[error("migration {version} `{name}` failed")]
    Failed {
        /// The file's 14 digits.
        version: &'static str,
        /// The file's name after them.
        name: &'static str,
        /// What the server said.
        source: tokio_postgres::Error,
    },

    /// The ledger holds a migration that this binary does not have.
    #[error(
        "the database is newer than this projector: it has migration {version} `{name}`, which this one does not know"
    )]
    Newer {
        /// The unknown version.
        version: String,
        /// Its name, as the ledger has it.
        name: String,
    },

    /// A file that ran is not the file in this binary.
    #[error("migration {version} `{name}` was different when it was applied")]
    Edited {
        /// The file's 14 digits.
        version: &'static str,
        /// The file's name after them.
        name: &'static str,
    },

    /// Files have not run.
    #[error(
        "the schema is not up to date: {missing} migrations are missing, first {version} `{name}`"
    )]
    NotCurrent {
        /// How many.
        missing: usize,
        /// The first one's 14 digits.
        version: &'static str,
        /// The first one's name.
        name: &'static str,
    },

    /// The migrations ran, but `events` is not in the configured schema.
    #[error("the migrations are applied, but there is no table `events` in schema `{}`", .0.as_str())]
    OtherSchema(Ident),

    /// The name would need quoting inside of function bodies.
    #[error(
        "`{}` cannot hold `events`: a schema's name may consist of lower-case letters, digits and underscores here",
        .0.as_str()
    )]
    SchemaName(Ident),
}

impl MigrateError {
    /// What the reader of the error can do, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Database(_) | Self::Failed { .. } => None,
            Self::Newer { .. } => Some("run the projector that migrated it, or a later one"),
            Self::Edited { .. } => Some(
                "use the projector that applied it; migrations only go forward, a change is a new file",
            ),
            Self::NotCurrent { .. } => Some("projector migrate"),
            Self::OtherSchema(_) => Some("set `schema` to the one that was migrated first"),
            Self::SchemaName(_) => Some("choose another `schema`; the usual one is public"),
        }
    }
}
