//! Broadcasts: hints to whoever watches that something has happened, sent after it can be read.
//!
//! A broadcast may be lost on its way, and nothing waits for one. The read models are the truth; each
//! message says which came before it on its topic, so that a client sees a hole and reads the table.
//!
//! * `compose`: lines to messages, coalesced and chained · `recent`: the topics that are remembered
//! * `sink`: sends messages, in order · `http`, `sql`: how, to a Supabase Realtime · `pace`: how fast
//! * `doubt`: when it is not the messages that are to blame · `link`: to the database, with limits
//! * `target`: where to, as configured · `checkpoint`: up to where · `cases`: definitions tried out
//! * `hub`: a Realtime in this process

mod message;
mod recent;
pub mod cases;
pub mod compose;
pub mod pace;
pub mod target;
pub mod checkpoint;
pub mod link;
mod doubt;
mod http;
mod sql;
pub mod sink;
pub mod hub;

pub use self::message::Message;
pub use self::target::Target;
