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
pub use setting::{HttpUrl, LogFilter, LogFormat, MessageSize, RealtimeMode};
pub use units::{Period, Size, UnitError};

use load::Values;
use setting::Setting;

use crate::ident::{Ident, QualifiedName};
use crate::redact::{HashKey, RedactError, RedactRules, Redactor};

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
const SECTIONS: [&Section; 7] = [
    &Config::SECTION,
    &Source::SECTION,
    &Http::SECTION,
    &Realtime::SECTION,
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
        /// The schema of the read models, and of the events table unless `[source]` names another.
        schema: Ident = "public",
        /// The folder of the definitions, relative to the working directory.
        projections: PathBuf = "projections",
    }
    with {
        /// The table that is followed.
        source: Source,
        /// The HTTP server.
        http: Http,
        /// Broadcasts.
        realtime: Realtime,
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
        /// The schema of the events table and of `append_events`; as the read models' when not
        /// given.
        schema: Option<Ident> = "",
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
    /// Broadcasts: where to, and how much. The definitions with `kind = "broadcast"` say what is sent.
    /// A target that is slow or away never delays a read model.
    "realtime" Realtime {
        /// Where broadcasts go: `off`, `http` (a Supabase Realtime, through its HTTP API), `sql` (the
        /// table `realtime.messages` of the same database, which a Supabase Realtime follows) or
        /// `embedded` (this process serves the protocol of Supabase Realtime itself, at
        /// `/realtime/v1/websocket`). When not given, `projector dev` takes `embedded` and everything
        /// else `off`.
        mode: Option<RealtimeMode> = "",
        /// For `http`: the project's address, `https://<project>.supabase.co` or the gateway of an
        /// installation of your own. With `host`, the address of Realtime itself.
        url: Option<HttpUrl> = "",
        /// For `http`: what allows sending, a secret key (`sb_secret_…`) or a JWT of the role
        /// `service_role`.
        key: Option<Secret> = "",
        /// For `http` without a gateway: the Host header, whose first label names the tenant, such as
        /// `realtime-dev.localhost`. Requests then go to `/api/broadcast` instead of
        /// `/realtime/v1/api/broadcast`.
        host: Option<String> = "",
        /// How long the lines of a topic may gather for one message after one was sent; the first
        /// line after a silence goes at once. Realtime counts each message for each viewer: shorter
        /// may meet its rate limit; longer makes logs less live. When not given, 200ms for `http` and
        /// `sql` and 10ms for `embedded`, which counts nothing.
        window: Option<Period> = "",
        /// How long after its last line a topic is told once more where it ends, without lines: whoever
        /// has lost that line notices. One message for each silence of a topic, which counts as any
        /// other; shorter tells sooner, and costs more messages. `0s`: never; viewers who poll notice
        /// all the same.
        beacon: Period = "5s",
        /// The most bytes of a message's payload. Longer lines are cut, visibly. A
        /// hosted Realtime takes 256 KB on the Free plan and 3,000 KB on others.
        message_bytes: MessageSize = "128KiB",
        /// The most messages a second to `http` and `sql`. A hosted Realtime allows 100 events a
        /// second on the Free plan, and 500 and more on others; a message counts once, and once more
        /// for each viewer who receives it. Too high and viewers are cut off; too low and messages
        /// wait, and carry more lines each.
        rate: NonZeroUsize = "50",
        /// How many bytes of lines may wait for the target. Beyond it the oldest are skipped, which
        /// clients see and fetch from the table. It is also what may be sent again after a crash: the
        /// slot is acknowledged only up to what was delivered or skipped. Too low and a short pause
        /// of the target costs its viewers a fetch; too high costs memory.
        max_backlog: Size = "8MiB",
        /// For `embedded`: the secret that signs the tokens of clients (HS256, HS384, HS512).
        jwt_secret: Option<Secret> = "",
        /// For `embedded`: the public keys that sign the tokens of clients (RS, PS, ES, `EdDSA`), as a
        /// file or an address of a JSON Web Key Set.
        jwks: Option<String> = "",
        /// For `embedded`: the most clients at once; further ones are refused. A client takes some
        /// 20 KiB and a file descriptor.
        sockets: NonZeroUsize = "10000",
        /// For `embedded`: the most topics that a client may have joined at once.
        channels: NonZeroUsize = "100",
        /// For `embedded`: how many bytes of messages may wait for a client that reads slowly, before
        /// it is cut off; it comes back and fetches what it has missed. Too low and a hiccup of the
        /// network costs a fetch; too high and many slow clients cost memory.
        queue: Size = "1MiB",
        /// For `embedded`: how often it is asked whether a client still may read the private topics
        /// that it has joined. So long may who is no member any more go on receiving; shorter costs
        /// the database a question more often for each client and topic.
        recheck: Period = "60s",
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
        batch_bytes: Size = "2MiB",
        /// About how much memory decoded events and pending rows may take. When it is used up,
        /// reading pauses until rows are written. Too low and large transactions are written in
        /// many small chunks; too high and the host may kill the process.
        memory: Size = "48MiB",
        /// How much WAL the slot may keep on the server's disk. Beyond it the slot is given up and
        /// the read models are rebuilt from history: a slow database must not fill its disk. Too
        /// low and a long pause costs a rebuild; too high and the disk may be full before.
        max_slot_lag: Size = "10GiB",
        /// How many rows of a projection may be parked because an event could not be applied to
        /// them, and events set aside without a row. Beyond it the projection stops: a definition
        /// that fails everywhere is no matter of single rows. Too low and it stops too early; too
        /// high and a broken rule fills a table before anybody looks.
        parked_keys: NonZeroUsize = "1000",
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
        /// too, and what looks like a secret within a text.
        defaults: bool = "true",
        /// Names that are not hidden although they are among the usual ones, such as `session`.
        except: Vec<String> = "",
        /// Whether e-mail addresses are hidden.
        email: bool = "false",
        /// What is hidden gets a tag that is made with this key, the same for the same secret, so that
        /// equal ones can be told; at least 16 characters. Without it there are only stars.
        hash_key: Option<Secret> = "",
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

impl Redact {
    /// The rules, to be compiled.
    ///
    /// # Errors
    /// When `hash_key` is too short.
    pub fn rules(&self) -> Result<RedactRules, RedactError> {
        let key = self.hash_key.as_ref().map(Secret::expose).filter(|it| !it.is_empty());
        let hash_key = key.map(|it| HashKey::new(it).ok_or(RedactError::HashKey)).transpose()?;
        Ok(RedactRules {
            defaults: self.defaults,
            keys: self.keys.clone(),
            except: self.except.clone(),
            paths: self.paths.clone(),
            email: self.email,
            hash_key,
        })
    }

    /// The rules, compiled.
    ///
    /// # Errors
    /// When they cannot be followed.
    pub fn redactor(&self) -> Result<Redactor, RedactError> {
        Redactor::new(self.rules()?)
    }
}

impl Config {
    /// The schema of the events table.
    pub fn events_schema(&self) -> &Ident {
        self.source.schema.as_ref().unwrap_or(&self.schema)
    }

    /// The events table.
    pub fn events_table(&self) -> QualifiedName {
        QualifiedName { schema: self.events_schema().clone(), name: self.source.table.clone() }
    }
}
