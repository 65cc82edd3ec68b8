//! The verbs of the database, as the command line calls them.

use tokio_postgres::{Client, Error as PgError, GenericClient, Row};

use crate::cli::context::statement_failed;
use crate::cli::{Exit, Failure};

/// Calls `projector.VERB(name)`.
///
/// # Errors
/// What the database refuses, in its words; an unknown projection is bad usage.
pub(super) async fn call<C: GenericClient + Sync>(
    client: &C,
    verb: &str,
    name: &str,
) -> Result<Row, Failure> {
    let sql = format!("select projector.{verb}($1)");
    client.query_one(&sql, &[&name]).await.map_err(|error| refused(verb, name, error))
}

/// A refusal of one of the verbs, with what to type.
pub(super) fn refused(verb: &str, name: &str, error: PgError) -> Failure {
    let Some(told) = error.as_db_error() else {
        return statement_failed(&format!("cannot {verb} `{name}`"), error);
    };
    let hint = told.hint().map(str::to_owned);
    let (exit, hint) = match told.code().code() {
        "22023" => (Exit::USAGE, hint),
        "55006" => {
            let hint = format!("wait for its end, or `projector rebuild {name} --cancel`");
            (Exit::FAILED, Some(hint))
        }
        "55000" | "22004" => (Exit::FAILED, hint),
        _ => return statement_failed(&format!("cannot {verb} `{name}`"), error),
    };
    let failure = Failure::new(told.message()).hint(hint).exit(exit);
    match told.detail() {
        Some(detail) => failure.caused_by(detail),
        None => failure,
    }
}

/// Whether a sidecar works for this slot: it holds an advisory lock for as long as it does.
pub(super) async fn is_followed(client: &Client, slot: &str) -> Result<bool, Failure> {
    let sql = "select exists (
           select from pg_locks
           where locktype = 'advisory' and granted
             and database = (select oid from pg_database where datname = current_database())
             and classid::bigint = (hashtext('projector')::bigint & 4294967295)
             and objid::bigint = (hashtext($1)::bigint & 4294967295)
             and objsubid = 2)";
    let row = client.query_one(sql, &[&slot]).await;
    let row = row.map_err(|error| statement_failed("cannot tell whether a sidecar runs", error))?;
    Ok(row.get(0))
}
