//! The embedded Realtime: frame by frame, and with the client that users have.

mod frames;
mod rights;
mod roles;
mod limits;
mod patience;
mod watch;
mod post;
mod keys;
mod algorithms;
mod js;
mod log;
mod svelte;
mod failover;
