//! What to do about a failure.

use std::error::Error as _;
use std::io;

/// What a failure asks for; it decides between retry, dead letter and exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Goes away by itself: a restart, a full connection table, a deadlock. Retry with backoff.
    Transient,
    /// What we stood on is gone (the slot, its WAL) and must be made anew.
    Lost,
    /// This very input fails and would fail again: a value that does not fit. Park it.
    Poison,
    /// The server understood and says no: a privilege, an unsupported feature. A person must act on
    /// the server.
    Refused,
    /// Our settings are wrong: host, password, database name. A person must act on them.
    Config,
    /// Neither of us should have come here.
    Bug,
}

impl Class {
    /// The class of a SQLSTATE, five characters.
    ///
    /// | SQLSTATE | class | because |
    /// |---|---|---|
    /// | `08…` | transient | the connection broke |
    /// | `40001`, `40P01`, other `40…` | transient | the transaction lost a race; it may be repeated |
    /// | `53…` (53300 too many connections, 53100 disk full, 53200 memory) | transient | resources come back |
    /// | `53400` | refused | a configured limit, such as `max_replication_slots`, stays until raised |
    /// | `55006`, `55P03` | transient | somebody else holds the object or the lock |
    /// | `55…` | refused | the object is not in the state that this needs (`wal_level`, a dead slot) |
    /// | `57014` | transient | cancelled, by a person or a timeout |
    /// | `57…` (57P01 to 57P05) | transient | shutdown, crash recovery, start-up |
    /// | `57P04` | config | the database was dropped |
    /// | `58…`, `XX…` | transient | I/O errors and internal errors of the server: not of this input's making |
    /// | `22…`, `23…` | poison | a value, or a constraint it breaks |
    /// | `28…`, `3D000` | config | user, password, `pg_hba.conf`, database name |
    /// | `42501` | refused | a privilege is missing |
    /// | `0A000`, `25006`, `3F…`, `42…` | refused | feature, read-only server, missing or changed object |
    /// | `P0001` | poison | a trigger or function of the user raised it for this row |
    /// | anything else | bug | |
    pub fn of_sqlstate(code: &str) -> Self {
        match code {
            "57P04" | "3D000" => return Self::Config,
            "53400" | "25006" | "0A000" => return Self::Refused,
            "55006" | "55P03" => return Self::Transient,
            "P0001" => return Self::Poison,
            _ => {}
        }
        match code.get(..2) {
            Some("08" | "40" | "53" | "57" | "58" | "XX") => Self::Transient,
            Some("22" | "23" | "54") => Self::Poison,
            Some("28") => Self::Config,
            Some("55" | "42" | "3F") => Self::Refused,
            _ => Self::Bug,
        }
    }
}

/// The class of what a [`tokio_postgres::Client`] reports.
///
/// By SQLSTATE where the server spoke; a broken or closed connection is transient; what is left (a
/// parameter of the wrong type, a column that is not there) is our own mistake.
pub fn class(error: &tokio_postgres::Error) -> Class {
    if let Some(server) = error.as_db_error() {
        return Class::of_sqlstate(server.code().code());
    }
    let broken =
        error.is_closed() || error.source().is_some_and(<dyn std::error::Error>::is::<io::Error>);
    if broken { Class::Transient } else { Class::Bug }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_says_what_to_do() {
        for (code, class) in [
            ("57P01", Class::Transient),
            ("57P03", Class::Transient),
            ("53300", Class::Transient),
            ("53400", Class::Refused),
            ("40001", Class::Transient),
            ("40P01", Class::Transient),
            ("55006", Class::Transient),
            ("55000", Class::Refused),
            ("08006", Class::Transient),
            ("22003", Class::Poison),
            ("23505", Class::Poison),
            ("54000", Class::Poison),
            ("28P01", Class::Config),
            ("3D000", Class::Config),
            ("42501", Class::Refused),
            ("42P01", Class::Refused),
            ("XX000", Class::Transient),
            ("PJ001", Class::Bug),
            ("", Class::Bug),
            ("é", Class::Bug),
        ] {
            assert_eq!(Class::of_sqlstate(code), class, "{code}");
        }
    }
}
