//! Rows and changes within 80 columns.

use anstyle::Style;
use serde_json::Value as Json;

use crate::cli::out::{BAD, BOLD, DIM, GOOD, WARN, WIDTH, cut, styled};
use crate::definition::Definition;
use crate::replay::change::{ColumnChange, Kind, RowValues};
use crate::replay::run::{Fault, Rows, State, Step};
use crate::replay::trace::AsideEvent;

/// The widest column of a table of rows, and the least that a wide one is cut to.
const WIDEST: usize = 24;
const LEAST: usize = 12;

/// The rows of all projections: one row line by line, several as a table.
pub(super) fn state(state: &State, definitions: &[&Definition]) -> String {
    let at = &state.at;
    let mut text = match &at.recorded_at {
        Some(time) => format!("run {} at version {}, {time}\n", at.run_id, at.version),
        None => format!("run {} had no event yet\n", at.run_id),
    };
    if 0 < state.upcast {
        let events = if state.upcast == 1 { "event" } else { "events" };
        let line = format!("{} {events} of an older schema, upcast (see --diff)", state.upcast);
        text.push_str(&format!("{}\n", styled(DIM, line)));
    }
    for definition in definitions {
        if let Some(rows) = state.projections.get(&definition.name) {
            text.push_str(&projection(definition, rows));
        }
    }
    if let Some(line) = left_out(&state.left_out) {
        text.push_str(&format!("\n{}\n", styled(DIM, line)));
    }
    text
}

/// Which projections are not shown, if there are any.
pub(super) fn left_out(names: &[String]) -> Option<String> {
    let names = (!names.is_empty()).then(|| names.join(", "))?;
    Some(cut(&format!("left out (rows of many runs, or made by SQL): {names}"), WIDTH))
}

fn projection(definition: &Definition, rows: &Rows) -> String {
    let mut text = format!("\n{}", styled(BOLD, &definition.name));
    match rows.rows.as_slice() {
        [] => text.push_str(&format!("  {}\n", styled(DIM, "no row"))),
        [row] if rows.count == 1 => {
            text.push('\n');
            text.push_str(&one(definition, row));
        }
        many => {
            let hidden = rows.count - many.len();
            let note =
                if hidden == 0 { String::new() } else { format!(", the last {}", many.len()) };
            text.push_str(&format!("  {}\n", styled(DIM, format!("{} rows{note}", rows.count))));
            text.push_str(&table(definition, many));
        }
    }
    for it in &rows.set_aside.events {
        text.push_str(&aside(it, 2));
    }
    let more = rows.set_aside.count - rows.set_aside.events.len();
    if 0 < more {
        text.push_str(&format!("  {}\n", styled(BAD, format_args!("{more} more set aside"))));
    }
    if let Some(fault) = &rows.fault {
        text.push_str(&complaint(fault));
    }
    text
}

/// An event that was not applied to a row, and why.
pub(in crate::cli) fn aside(it: &AsideEvent, indent: usize) -> String {
    let key = it.key.iter().flatten().filter(|it| it.0 != "run_id");
    let key: Vec<_> = key.map(|(name, value)| format!("{name}={} ", plain(Some(value)))).collect();
    let place = if it.rule.is_empty() { String::new() } else { format!("{}: ", it.rule) };
    let error = cut(&format!("{place}{}", it.error), 4 * WIDTH);
    let head = cut(&format!("version {} {}", it.version, key.concat()), WIDTH - indent - 11);
    format!("{:indent$}{} {}: {error}\n", "", styled(BAD, "set aside:"), head.trim_end())
}

/// Where a rule failed.
fn complaint(fault: &Fault) -> String {
    let Fault { version, error } = fault;
    let error = error.replace(|it: char| it.is_control(), " ");
    format!("  {} at version {version}: {error}\n", styled(BAD, "stopped"))
}

/// A line a column.
fn one(definition: &Definition, row: &RowValues) -> String {
    let names: Vec<_> = names(definition).filter(|it| row.contains_key(*it)).collect();
    let width = names.iter().map(|it| it.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for name in names {
        let value = cut(&plain(row.get(name)), WIDTH.saturating_sub(width + 4));
        let value =
            if row.get(name).is_some_and(Json::is_null) { styled(DIM, "null") } else { value };
        text.push_str(format!("  {name:<width$}  {value}").trim_end());
        text.push('\n');
    }
    text
}

/// A line a row, of as many columns as fit: the key first, then what differs, then what is the same
/// in all rows. What is null in all of them is left out, and so are run and tenant.
fn table(definition: &Definition, rows: &[RowValues]) -> String {
    let first = rows.first();
    let name = |at: usize| definition.columns.get(at).map_or("", |it| it.name.as_str());
    let rank = |at: usize| -> Option<u8> {
        let value = |row: &RowValues| row.get(name(at)).cloned().unwrap_or_default();
        let is_same = [definition.run_column(), definition.tenant].contains(&Some(at));
        if is_same || rows.iter().all(|it| value(it).is_null()) {
            return None;
        }
        let is_key = definition.key_columns().any(|it| it == at);
        let differs = rows.iter().any(|it| Some(value(it)) != first.map(value));
        Some(if is_key { 0 } else { 2 - u8::from(differs) })
    };
    let ranked = definition.stored_columns().filter_map(|at| Some((rank(at)?, at)));
    let mut wanted: Vec<_> = ranked.collect();
    wanted.sort_unstable();
    let (mut shown, mut taken, mut hidden) = (Vec::new(), 0, 0);
    for (_, at) in wanted {
        let widths = rows.iter().map(|it| plain(it.get(name(at))).chars().count());
        let width = widths.chain([name(at).len()]).max().unwrap_or_default();
        let room = WIDTH.saturating_sub(taken + 2);
        if room < width.min(LEAST) {
            hidden += 1;
            continue;
        }
        let width = width.min(WIDEST).min(room);
        taken += width + 2;
        shown.push((at, width));
    }
    shown.sort_unstable();
    let shown: Vec<_> = shown.into_iter().map(|(at, width)| (name(at), width)).collect();
    let line = |cell: &dyn Fn(&str) -> String| {
        let mut line = String::new();
        for (name, width) in &shown {
            let cell = cut(&cell(name), *width);
            line.push_str(&format!("  {cell:<width$}"));
        }
        line.trim_end().to_owned()
    };
    let mut text = format!("{}\n", styled(DIM, line(&|name| name.to_owned())));
    for row in rows {
        text.push_str(&line(&|name| plain(row.get(name))));
        text.push('\n');
    }
    if 0 < hidden {
        let columns = if hidden == 1 { "column" } else { "columns" };
        let note = format!("  {hidden} more {columns} with --output json");
        text.push_str(&format!("{}\n", styled(DIM, note)));
    }
    text
}

/// What one event changed: `+`, `~` and `-` before rows, then a line a column.
pub(super) fn step(step: &Step) -> String {
    let head = format!("{:>5}  {}", step.version, cut(&step.kind, 40));
    let time = styled(DIM, &step.recorded_at);
    let mark = if step.upcasts.is_empty() { "" } else { "  upcast" };
    let mut text = format!("{}  {time}{}\n", styled(BOLD, head), styled(WARN, mark));
    for it in &step.upcasts {
        let by: Vec<_> = it.by.iter().filter_map(|it| it.rsplit('/').next()).collect();
        let line = |name: &str, json: &str| cut(&format!("       {name}  {json}"), WIDTH);
        text.push_str(&format!("{}\n", line("written ", it.before.get())));
        text.push_str(&format!("{}\n", line("read as ", it.after.get())));
        text.push_str(&format!("{}\n", styled(DIM, line("by      ", &by.join(", ")))));
    }
    for change in &step.changes {
        let (sign, style) = sign(change.change);
        let key = change.key.iter().filter(|it| it.0 != "run_id");
        let key: Vec<_> =
            key.map(|(name, value)| format!("{name}={}", plain(Some(value)))).collect();
        let row = cut(&format!("{}  {}", change.projection, key.join(" ")), WIDTH - 9);
        text.push_str(&format!("       {} {}\n", styled(style, sign), row.trim_end()));
        if change.change != Kind::Removed {
            for it in change.columns.iter().filter(|it| !is_key(it)) {
                text.push_str(&column(it, change.change == Kind::Added, 11));
            }
        }
    }
    for (name, events) in &step.set_aside {
        text.push_str(&format!("       {} {name}\n", styled(BAD, "!")));
        events.iter().for_each(|it| text.push_str(&aside(it, 11)));
    }
    for (name, fault) in &step.faults {
        text.push_str(&format!("       {} {name}\n", styled(BAD, "!")));
        text.push_str(&format!("    {}", complaint(fault)));
    }
    text
}

fn is_key(it: &ColumnChange) -> bool {
    it.by.iter().any(|by| by == "key")
}

/// The sign of what became of a row, and its colour.
pub(in crate::cli) fn sign(change: Kind) -> (char, Style) {
    match change {
        Kind::Added => ('+', GOOD),
        Kind::Changed => ('~', WARN),
        Kind::Removed => ('-', BAD),
        Kind::Untouched => ('=', DIM),
        Kind::SetAside => ('!', BAD),
    }
}

/// `name  before → after`, indented.
pub(in crate::cli) fn column(it: &ColumnChange, is_new: bool, indent: usize) -> String {
    let name = cut(&it.column, 20);
    let room = WIDTH.saturating_sub(indent + 22);
    let after = plain(Some(&it.after));
    let values = if is_new && it.before.is_null() {
        cut(&after, room)
    } else {
        let before = plain(Some(&it.before));
        // the shorter leaves its room to the longer
        let half = (room - 3) / 2;
        let spare = half.saturating_sub(after.chars().count());
        let before = cut(&before, half + spare);
        let rest = room - 3 - before.chars().count();
        format!("{before} → {}", cut(&after, rest))
    };
    format!("{:indent$}{name:<20}  {values}\n", "")
}

/// The columns that rows have, in the definition's order.
fn names(definition: &Definition) -> impl Iterator<Item = &str> {
    let columns = definition.stored_columns().filter_map(|it| definition.columns.get(it));
    columns.map(|it| it.name.as_str())
}

/// A value on one line.
pub(in crate::cli) fn plain(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => "null".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
