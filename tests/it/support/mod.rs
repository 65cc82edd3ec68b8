//! What the tests stand on.

pub(crate) mod app;
pub(crate) mod balancer;
pub(crate) mod browser;
pub(crate) mod cluster;
pub(crate) mod eventually;
pub(crate) mod node;
pub(crate) mod proxy;
pub(crate) mod realtime;
pub(crate) mod supabase;
pub(crate) mod workload;
pub(crate) mod hub;
pub(crate) mod js;
