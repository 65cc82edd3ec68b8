//! The `projector` command.

fn main() {}
