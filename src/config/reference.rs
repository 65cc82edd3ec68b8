//! The reference page, written from the doc comments of the keys.

use std::fmt::Write;

use crate::config::load::variable;
use crate::config::{SECTIONS, Section};

const INTRODUCTION: &str = "\
# Configuration

Each value comes from, in this order: an option of the command line, the environment, the file, the
default. The file is `projector.toml` in the working directory, or what `--config` or
`PROJECTOR_CONFIG` names. Unknown keys are errors. `projector check --show-config` prints every
value and where it comes from.

Sizes are written as `512B`, `64KiB`, `4MiB`, `10GiB`. In the environment a list is separated by
commas, and a secret can also be given by the name of a file that holds it, in a variable that ends
in `_FILE`.
";

/// The page in Markdown: `docs/reference/configuration.md`.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in SECTIONS {
        write_section(section, &mut page).expect("writing to a string does not fail");
    }
    page
}

fn write_section(section: &Section, page: &mut String) -> std::fmt::Result {
    match section.name {
        "" => writeln!(page, "\n## Above all tables")?,
        name => writeln!(page, "\n## `[{name}]`\n\n{}", paragraph(section.docs))?,
    }
    for key in section.keys {
        writeln!(page, "\n### `{}`\n\n{}\n", key.name, paragraph(key.docs))?;
        writeln!(page, "* Value: {}{}", key.kind, if key.secret { "; a secret" } else { "" })?;
        if !key.default.is_empty() {
            writeln!(page, "* Default: `{}`", key.default)?;
        }
        writeln!(page, "* Environment: `{}`", variable(section, key.name))?;
        if key.secret {
            writeln!(page, "  or `{}_FILE`", variable(section, key.name))?;
        }
    }
    Ok(())
}

/// Doc comments as one paragraph, in their lines.
fn paragraph(docs: &[&str]) -> String {
    docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}
