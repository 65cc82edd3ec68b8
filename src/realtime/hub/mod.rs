//! A hub of broadcasts in this process, that speaks the protocol of Supabase Realtime: the unmodified
//! supabase-js works with no Supabase at hand.
//!
//! ```text
//!  publish ──▶ cast: written once a version ──▶ topics ──▶ queue ──▶ socket ──▶ client
//!  post (HTTP) ──┘                                 ▲                    │
//!                                                  └── session ◀── frame
//!                                                         │ admit
//!                                                   keys, gate (SQL)
//! ```
//!
//! * `version`, `frame`: what clients send · `answer`, `cast`: what they are sent
//! * `queue`, `topics`: who listens, and what waits for them
//! * `crypto`, `token`, `jwks`, `keys`: who they are · `gate`: what they may read
//! * `server`: what all share · `admit`, `join`, `session`: what one has joined
//! * `pace`, `socket`: its connection · `post`, `routes`: HTTP · `watch`: listening in this process
//!
//! Nothing here stores anything or waits for a client. A client that is too slow is cut off, comes
//! back, and reads the tables; so does one whose server was restarted, or no longer holds the slot.
//!
//! What Supabase Realtime has and this has not: `postgres_changes`, presence, replay of stored
//! messages, and sending to private topics by anybody but the service's role.

mod version;
mod frame;
mod answer;
mod cast;
mod queue;
mod topics;
mod crypto;
mod token;
mod jwks;
mod keys;
mod gate;
mod server;
mod watch;
mod admit;
mod join;
mod session;
mod pace;
mod socket;
mod post;
mod routes;

pub use self::admit::Refusal;
pub use self::gate::{GateError, USER};
pub use self::jwks::Jwks;
pub use self::keys::{Keys, sign};
pub use self::server::{Hub, Limits, Patience};
pub use self::token::TokenError;
pub use self::watch::{Watch, Watched};
