//! A private Postgres: what `dev` and the tests run on when nobody gives them a database.
//!
//! ```text
//! obtain: find ──none──▶ fetch ──fails──▶ install
//!   └──▶ init (initdb, aside, then renamed into place) ──▶ server (start … stop)
//! ```
//!
//! * The server belongs to this process: it ends with [`Server::stop`], when the [`Server`] is
//!   dropped, and also when this process is killed without a chance to say so.
//! * Its Unix socket lies in a directory nobody else may enter, so nothing asks for a password
//!   there. TCP, if wanted, is on 127.0.0.1, which every user of the machine reaches: there it asks
//!   for a password that was drawn when the data directory was made and is kept inside it.
//! * Postgres refuses to run as root; root becomes `postgres`, else `nobody`.
//!
//! ```no_run
//! # async fn doc() -> Result<(), projector::embedded::EmbeddedError> {
//! use projector::embedded::{Options, Server, home, major_of, obtain};
//!
//! let home = home(std::path::Path::new("/src/shop"))?;
//! let data = home.join("data");
//! let env = |name: &str| std::env::var_os(name);
//! let binaries =
//!     obtain(&home.join("postgres"), major_of(&data), env, &mut |it| println!("{it:?}")).await?;
//! let server = Server::start(Options { port: Some(0), ..Options::new(data, binaries) }).await?;
//! println!("{}", server.url());
//! server.stop().await
//! # }
//! ```
//!
//! It is not for production: no backups, no tuning, no upgrade between major versions.

mod error;
mod user;
mod find;
mod unpack;
mod fetch;
mod obtain;
mod init;
mod log;
mod socket;
mod process;
mod server;

pub use error::EmbeddedError;
pub use fetch::{FetchError, Received, package};
pub use find::{Binaries, OLDEST, Places};
pub use init::{initialize, major_of};
pub use obtain::{Progress, obtain};
pub use server::{Options, Server, remove};
pub use user::{Account, home, make_way};
