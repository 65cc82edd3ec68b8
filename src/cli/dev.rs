//! `projector dev`.

use crate::cli::{Context, DevArgs, Exit, Failure};

pub(super) async fn run(_: &DevArgs, _: &Context) -> anyhow::Result<Exit> {
    Err(Failure::new("not yet").into())
}
