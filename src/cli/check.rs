//! `projector check`: configuration and definitions, without a database.

use std::fmt::Write;

use serde_json::{Map, json};

use crate::cli::out::{DIM, styled};
use crate::cli::{CheckArgs, Context, Exit};

pub(super) fn run(args: &CheckArgs, context: &Context) -> anyhow::Result<Exit> {
    if args.show_config {
        return show_config(context);
    }
    Ok(Exit::DONE)
}

/// Every value and where it comes from.
fn show_config(context: &Context) -> anyhow::Result<Exit> {
    let shown = &context.loaded.shown;
    if context.out.is_json() {
        let object: Map<_, _> = shown
            .iter()
            .map(|it| {
                (it.key.clone(), json!({ "value": it.value, "origin": it.origin.to_string() }))
            })
            .collect();
        context.out.json(&object)?;
        return Ok(Exit::DONE);
    }
    let mut text = String::new();
    for it in shown {
        let value = if it.value.is_empty() { "-" } else { &it.value };
        let origin = styled(DIM, &it.origin);
        writeln!(text, "{:<22} {value:<24} {origin}", it.key)?;
    }
    context.out.write(text)?;
    Ok(Exit::DONE)
}
