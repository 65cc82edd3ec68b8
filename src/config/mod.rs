//! What can be configured: flag > environment > file > default.
//!
//! Each key of `projector.toml` is also an environment variable `PROJECTOR_SECTION_KEY` (split once,
//! after the section; sections are single words). Secrets can also come from a file that
//! `…_FILE` names. Unknown keys are errors. Everything is read once, by [`load`], from arguments;
//! nothing here is global, and nobody else reads the environment.
//!
//! The doc comments of the keys are the reference page, `docs/reference/configuration.md`.

mod columns;
mod file;
mod load;
mod nearest;
mod problem;
mod reference;
mod secret;
mod setting;
mod units;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

pub use columns::Columns;
pub use load::{Environment, Flag, Loaded, Shown, load};
pub use nearest::nearest;
pub use problem::{ConfigError, Origin, Place, Problem};
pub use reference::reference;
pub use secret::Secret;
pub use setting::{LogFilter, LogFormat};
pub use units::{Period, Size, UnitError};

use load::Values;
use setting::Setting;

/// A key as the loader and the reference page see it.
struct Key {
    name: &'static str,
    docs: &'static [&'static str],
    kind: &'static str,
    default: &'static str,
    secret: bool,
}

/// A table of the file; the one without a name holds the keys that stand above all tables.
struct Section {
    name: &'static str,
    docs: &'static [&'static str],
    keys: &'static [Key],
}

/// One description of a section, for its struct, its loader and its reference. A default is written
/// as its environment variable would be; empty is none.
macro_rules! section {
    (
        $(#[doc = $docs:literal])*
        $section:literal $name:ident {
            $( $(#[doc = $key_docs:literal])* $key:ident: $type:ty = $default:literal, )*
        }
        $( with { $( $(#[doc = $sub_docs:literal])* $sub:ident: $sub_type:ty, )* } )?
    ) => {
        $(#[doc = $docs])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $( $(#[doc = $key_docs])* pub $key: $type, )*
            $($( $(#[doc = $sub_docs])* pub $sub: $sub_type, )*)?
        }

        impl $name {
            const SECTION: Section = Section {
                name: $section,
                docs: &[$($docs),*],
                keys: &[$( Key {
                    name: stringify!($key),
                    docs: &[$($key_docs),*],
                    kind: <$type as Setting>::KIND,
                    default: $default,
                    secret: <$type as Setting>::SECRET,
                } ),*],
            };

            fn resolve(values: &mut Values) -> Self {
                Self {
                    $( $key: values.take($section, stringify!($key), $default), )*
                    $($( $sub: <$sub_type>::resolve(values), )*)?
                }
            }
        }
    };
}

/// All sections in the order of the reference.
const SECTIONS: [&Section; 6] = [
    &Config::SECTION,
    &Source::SECTION,
    &Http::SECTION,
    &Limits::SECTION,
    &Redact::SECTION,
    &Log::SECTION,
];

section! {
    /// Everything that can be configured. These keys stand above all tables.
    "" Config {
        /// Where the database is: `postgres://user:password@host:5432/name?sslmode=verify-full`.
        /// What it leaves out, and all of it when it is not given, comes from the variables of
        /// libpq (`PGHOST`, `PGUSER`, `PGPASSFILE` …). A direct connection or a pooler in session
        /// mode; a pooler in transaction mode cannot replicate.
        database_url: Option<Secret> = "",
        /// The schema of the read models.
        schema: Ident = "public",
        /// The folder of the definitions, relative to the working directory.
        projections: PathBuf = "projections",
    }
    with {
        /// The table that is followed.
        source: Source,
        /// The HTTP server.
        http: Http,
        /// Bounds on memory and disk.
        limits: Limits,
        /// What is hidden in payloads.
        redact: Redact,
        /// The log.
        log: Log,
    }
}

section! {
    /// The table that is followed, and how.
    "source" Source {
        /// The replication slot. One instance reads it at a time; a second one stands by.
        slot: Ident = "projector",
        /// The publication, which `projector migrate` creates.
        publication: Ident = "projector",
        /// The schema of the events table, where `append_events` is too.
        schema: Ident = "public",
        /// The events table.
        table: Ident = "events",
        /// The columns of the events table whose names differ from the envelope's, for a table
        /// that exists already.
        columns: Columns = "",
    }
}

section! {
    /// The HTTP server: health, metrics, API, console.
    "http" Http {
        /// The address to listen on. Anything but a loopback address lets the network in; put a
        /// proxy with TLS before it.
        listen: SocketAddr = "127.0.0.1:4400",
        /// The bearer token of the requests that change something. Without it they are refused.
        admin_token: Option<Secret> = "",
    }
}

section! {
    /// Bounds on memory and disk.
    "limits" Limits {
        /// The most events that are folded and written at once. Fewer cost throughput; more cost
        /// memory, and make a reader's view move in larger steps.
        batch_events: NonZeroUsize = "20000",
        /// The most text of events in a batch. Smaller costs throughput with large payloads;
        /// larger costs memory in each lane's queue.
        batch_bytes: Size = "4MiB",
        /// About how much memory decoded events and pending rows may take. When it is used up,
        /// reading pauses until rows are written. Too low and large transactions are written in
        /// many small chunks; too high and the host may kill the process.
        memory: Size = "64MiB",
        /// How much WAL the slot may keep on the server's disk. Beyond it the slot is given up and
        /// the read models are rebuilt from history: a slow database must not fill its disk. Too
        /// low and a long pause costs a rebuild; too high and the disk may be full before.
        max_slot_lag: Size = "10GiB",
    }
}

section! {
    /// What is hidden in payloads before they leave the events table, in columns that use
    /// `redact()` and in everything that is sent out.
    "redact" Redact {
        /// Names of object members whose values are hidden wherever they stand, whatever their
        /// case.
        keys: Vec<String> = "",
        /// Plain paths from the payload's root whose values are hidden, such as `input.card`.
        paths: Vec<String> = "",
        /// Whether the usual names of secrets (`password`, `token`, `authorization` …) are hidden
        /// too.
        defaults: bool = "true",
    }
}

section! {
    /// The log, on standard error.
    "log" Log {
        /// `text` for people, `json` for machines, `auto`: text on a terminal, otherwise JSON.
        format: LogFormat = "auto",
        /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or directives by module such
        /// as `info,projector::wal=debug`. `RUST_LOG` is heeded as well.
        level: LogFilter = "info",
    }
}

use crate::ident::Ident;
