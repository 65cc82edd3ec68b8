//! What the tests stand on.

pub(crate) mod app;
pub(crate) mod cluster;
pub(crate) mod eventually;
pub(crate) mod proxy;
pub(crate) mod workload;
