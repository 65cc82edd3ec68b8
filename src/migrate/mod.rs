//! Brings the schema up to date: `events`, `append_events` and the control schema `projector`.
//!
//! The files of `migrations/` are part of the binary. Each runs in a transaction of its own together
//! with its row in the ledger `projector.schema_migrations`, so it has run whole or not at all. The
//! transaction takes an advisory lock first and reads the ledger after, so that two who migrate at
//! once take turns; no lock outlives its transaction, which a pooler may be handing around.
//!
//! Files applied by another tool are in the ledger without a checksum, because each file enters
//! itself; [`apply`] adds the checksum. After the files it calls what must stay true whatever ran
//! before: `projector.ensure_access()`, `bind_realtime()`, `ensure_publication()` and
//! `ensure_partitions()`.
//!
//! It deliberately does not go back: there are no down migrations.

mod error;
mod files;
mod realtime;

use tokio_postgres::{Client, GenericClient};

use crate::ident::{Ident, QualifiedName};

pub use error::MigrateError;
pub use files::{MIGRATIONS, Migration, print};
pub use realtime::{Realtime, realtime};

/// Whoever holds this advisory lock migrates. Any constant will do that nobody else uses.
const LOCK: i64 = 0x70_726f_6a65_6374;

/// What [`apply`] did and what it leaves to a superuser.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Report {
    /// The files that ran, in order; empty when the schema was up to date.
    pub applied: Vec<Applied>,
    /// Monthly partitions of `events` that were made ahead, beside those that the files made.
    pub partitions: i32,
    /// Statements that the migrating role may not run and a superuser must, for the role `projector`
    /// to work. Run them, then migrate again.
    pub advice: Vec<String>,
    /// What the server remarked meanwhile. Filled in by whoever listens to the connection.
    pub warnings: Vec<String>,
}

/// A file that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// The 14 digits before the file's name.
    pub version: &'static str,
    /// The name after them.
    pub name: &'static str,
}

/// The files that have not run yet, in order. Changes nothing.
///
/// # Errors
/// When the ledger cannot be read, holds a version this binary does not know, or says that a file was
/// different when it ran.
pub async fn plan(client: &Client) -> Result<Vec<&'static Migration>, MigrateError> {
    pending(client).await
}

/// Runs what [`plan`] says, with `events` in `schema`, and then sees to roles, publication and
/// partitions. Safe to repeat, and safe when two do it at once.
///
/// # Errors
/// As [`plan`]; when a statement fails (files before it stay applied); when `schema` cannot be one or
/// is not the one that was migrated earlier.
pub async fn apply(client: &mut Client, schema: &Ident) -> Result<Report, MigrateError> {
    let mut report = Report::default();
    loop {
        let transaction = client.transaction().await.map_err(MigrateError::Database)?;
        transaction
            .execute("select pg_advisory_xact_lock($1)", &[&LOCK])
            .await
            .map_err(MigrateError::Database)?;
        let Some(migration) = pending(&transaction).await?.first().copied() else {
            finish(&transaction, schema, &mut report).await?;
            transaction.commit().await.map_err(MigrateError::Database)?;
            return Ok(report);
        };
        let Migration { version, name, .. } = *migration;
        let sql = migration.sql_for(schema)?;
        transaction.batch_execute(&sql).await.map_err(|source| MigrateError::Failed {
            version,
            name,
            source,
        })?;
        record(&transaction, migration).await?;
        transaction.commit().await.map_err(MigrateError::Database)?;
        report.applied.push(Applied { version, name });
    }
}

/// Checks that nothing is left to do, as the sidecar must before it starts. Changes nothing.
///
/// # Errors
/// As [`plan`]; [`MigrateError::NotCurrent`] when files are missing; [`MigrateError::OtherSchema`]
/// when `events` is not in `schema`.
pub async fn require_current(client: &Client, schema: &Ident) -> Result<(), MigrateError> {
    let pending = pending(client).await?;
    if let Some(first) = pending.first() {
        let Migration { version, name, .. } = **first;
        return Err(MigrateError::NotCurrent { missing: pending.len(), version, name });
    }
    require_events_in(client, schema).await
}

async fn pending<C: GenericClient + Sync>(
    client: &C,
) -> Result<Vec<&'static Migration>, MigrateError> {
    let ledger = ledger(client).await?;
    for entry in &ledger {
        let Some(known) = MIGRATIONS.iter().find(|it| it.version == entry.version) else {
            let LedgerEntry { version, name, .. } = entry;
            return Err(MigrateError::Newer { version: version.clone(), name: name.clone() });
        };
        if entry.checksum.as_ref().is_some_and(|it| *it != known.checksum()) {
            return Err(MigrateError::Edited { version: known.version, name: known.name });
        }
    }
    let ran = |migration: &&Migration| ledger.iter().any(|it| it.version == migration.version);
    Ok(MIGRATIONS.iter().filter(|it| !ran(it)).collect())
}

struct LedgerEntry {
    version: String,
    name: String,
    checksum: Option<String>,
}

async fn ledger<C: GenericClient + Sync>(client: &C) -> Result<Vec<LedgerEntry>, MigrateError> {
    let there = client
        .query_one("select to_regclass('projector.schema_migrations') is not null", &[])
        .await
        .map_err(MigrateError::Database)?;
    if !there.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client
        .query(
            "select version, name, checksum from projector.schema_migrations order by version",
            &[],
        )
        .await
        .map_err(MigrateError::Database)?;
    let entry = |row: &tokio_postgres::Row| LedgerEntry {
        version: row.get(0),
        name: row.get(1),
        checksum: row.get(2),
    };
    Ok(rows.iter().map(entry).collect())
}

async fn record<C: GenericClient + Sync>(
    client: &C,
    migration: &Migration,
) -> Result<(), MigrateError> {
    client
        .execute(
            "insert into projector.schema_migrations as ledger (version, name, checksum)
             values ($1, $2, $3)
             on conflict (version) do update set checksum = excluded.checksum
             where ledger.checksum is null",
            &[&migration.version, &migration.name, &migration.checksum()],
        )
        .await
        .map_err(MigrateError::Database)?;
    Ok(())
}

async fn finish<C: GenericClient + Sync>(
    client: &C,
    schema: &Ident,
    report: &mut Report,
) -> Result<(), MigrateError> {
    require_events_in(client, schema).await?;
    for migration in MIGRATIONS {
        record(client, migration).await?;
    }
    for left_over in ["select projector.ensure_access()", "select projector.bind_realtime()"] {
        let missing = client.query(left_over, &[]).await.map_err(MigrateError::Database)?;
        report.advice.extend(missing.iter().map(|row| row.get::<_, String>(0)));
    }
    let made = client
        .query_one("select projector.ensure_publication(), projector.ensure_partitions()", &[])
        .await
        .map_err(MigrateError::Database)?;
    report.partitions = made.get(1);
    Ok(())
}

async fn require_events_in<C: GenericClient + Sync>(
    client: &C,
    schema: &Ident,
) -> Result<(), MigrateError> {
    let name = Ident::new("events").expect("six letters are a name");
    let events = QualifiedName { schema: schema.clone(), name }.to_string();
    let there = client
        .query_one("select to_regclass($1) is not null", &[&events])
        .await
        .map_err(MigrateError::Database)?;
    if there.get::<_, bool>(0) { Ok(()) } else { Err(MigrateError::OtherSchema(schema.clone())) }
}
