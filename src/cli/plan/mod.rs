//! `projector plan`: what the next start with these definitions would change and rebuild. Reads the
//! folder and the database, and touches nothing.

mod compare;
mod estimate;
mod known;

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use self::estimate::{Estimate, Rate};
use self::known::Known;
use crate::apply::generation::Tables;
use crate::cli::check::plural;
use crate::cli::context::statement_failed;
use crate::cli::figure::{bytes, duration, float, thousands};
use crate::cli::out::{BAD, BOLD, DIM, GOOD, WARN, WIDTH, cut, styled};
use crate::cli::sidecar::all_definitions;
use crate::cli::{Context, Exit};
use crate::definition::{self, Broadcast, Definition, hash_without_rules};
use crate::ident::Ident;

/// What would be done; its JSON form is these fields.
#[derive(Debug, Serialize)]
struct Plan {
    projections: Vec<Entry>,
    /// What is told to viewers, which nothing is rebuilt for.
    broadcasts: Vec<Told>,
    /// About how many events each build reads.
    events: u64,
    /// About how long all builds take.
    seconds: f64,
    rate: Rate,
}

/// A broadcast in the plan.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    topic: String,
    event: String,
}

/// A projection in the plan.
#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    change: Change,
    /// Why, a difference each.
    reasons: Vec<String>,
    /// Whether its rows are made anew from history.
    rebuild: bool,
    /// About how long that takes.
    seconds: Option<f64>,
    /// What its rows take on the disk now; a rebuild needs about as much again.
    bytes: u64,
    #[serde(skip)]
    lane: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Created,
    Changed,
    Unchanged,
    Removed,
}

pub(super) async fn run(context: &Context) -> anyhow::Result<Exit> {
    let Some(definitions) = all_definitions(context)? else { return Ok(Exit::USAGE) };
    let client = context.connect("plan").await?;
    let explain = |error| statement_failed("cannot read what the database has", error);
    let config = context.config();
    let known = known::read(&client).await.map_err(explain)?;
    let estimate = estimate::read(&client, &config.events_table(), &config.source.columns.position)
        .await
        .map_err(explain)?;
    let mut plan = plan(&definitions.projections, &known, &estimate, &config.schema);
    plan.broadcasts = definitions.broadcasts.iter().map(told).collect();
    if context.out.is_json() {
        context.out.json(&plan)?;
    } else {
        context.out.write(render(&plan))?;
    }
    Ok(Exit::DONE)
}

fn plan(
    definitions: &[Definition],
    known: &BTreeMap<String, Known>,
    estimate: &Estimate,
    schema: &Ident,
) -> Plan {
    let mut projections: Vec<Entry> = definitions
        .iter()
        .map(|definition| {
            let mut entry = match known.get(&definition.name) {
                Some(known) => compared(definition, known, schema),
                None => entry(&definition.name, Change::Created, vec![summary(definition)], true),
            };
            entry.lane.clone_from(&definition.lane);
            entry.seconds = entry.rebuild.then(|| estimate.seconds(&entry.name));
            entry
        })
        .collect();
    for (name, known) in
        known.iter().filter(|(name, _)| !definitions.iter().any(|it| it.name == **name))
    {
        let why = "definition gone; rows stay until `projector prune`".to_owned();
        projections
            .push(Entry { bytes: known.bytes, ..entry(name, Change::Removed, vec![why], false) });
    }
    // one pass over history serves all of a lane
    let mut lanes: BTreeMap<&str, f64> = BTreeMap::new();
    for it in &projections {
        let seconds = lanes.entry(&it.lane).or_default();
        *seconds = seconds.max(it.seconds.unwrap_or(0.0));
    }
    let seconds = lanes.values().sum();
    Plan {
        projections,
        broadcasts: Vec::new(),
        events: estimate.events,
        seconds,
        rate: estimate.rate(),
    }
}

fn entry(name: &str, change: Change, reasons: Vec<String>, rebuild: bool) -> Entry {
    let (name, lane) = (name.to_owned(), String::new());
    Entry { name, change, reasons, rebuild, seconds: None, bytes: 0, lane }
}

fn told(it: &Broadcast) -> Told {
    let (name, event) = (it.name.clone(), it.event.clone());
    Told { name, topic: it.topic.text().to_owned(), event }
}

fn summary(it: &Definition) -> String {
    let (columns, rules) = (it.columns.len(), it.rules.len());
    format!("{}, {}", plural(columns, "column"), plural(rules, "rule"))
}

/// A projection that has rows, or had a try at them.
fn compared(definition: &Definition, known: &Known, schema: &Ident) -> Entry {
    let name = &definition.name;
    let mut entry = if known.generation == 0 {
        entry(name, Change::Created, vec![summary(definition)], true)
    } else if known.hash != definition.hash {
        entry(name, Change::Changed, reasons(definition, known, schema), true)
    } else if known.state == "detached" {
        let why = "its definition is back; it is rebuilt unless the slot has what it missed";
        entry(name, Change::Changed, vec![why.to_owned()], true)
    } else if known.lane != definition.lane {
        let why = format!("lane `{}` becomes `{}`; its rows stay", known.lane, definition.lane);
        entry(name, Change::Changed, vec![why], false)
    } else {
        entry(name, Change::Unchanged, Vec::new(), false)
    };
    entry.bytes = known.bytes;
    entry
}

/// Why its rows must be made anew.
fn reasons(definition: &Definition, known: &Known, schema: &Ident) -> Vec<String> {
    let before = known.text.as_deref();
    let before = before.and_then(|text| definition::parse(&definition.file, text).ok());
    let mut found = match before {
        Some(before) => compare::differences(&before, definition),
        None => {
            let mut columns: Vec<_> = Tables::new(definition, schema)
                .columns()
                .into_iter()
                .map(|(name, declared)| (name.as_str().to_owned(), declared))
                .collect();
            columns.sort_unstable();
            compare::column_differences(&known.columns, &columns)
        }
    };
    let is_same = hash_without_rules(&known.hash) == hash_without_rules(&definition.hash);
    if found.is_empty() && is_same {
        found.push("the rules of [redact]".to_owned());
    } else if found.is_empty() {
        found.push("what decides its rows".to_owned());
    }
    found
}

/// Within 80 columns: what changes first, what stays in a line or two at the end.
fn render(plan: &Plan) -> String {
    let mut text = String::new();
    let width = plan.projections.iter().map(|it| it.name.chars().count()).max().unwrap_or(0);
    let width = width.min(24);
    for it in plan.projections.iter().filter(|it| it.change != Change::Unchanged) {
        let (word, style) = match it.change {
            Change::Created => ("created", GOOD),
            Change::Changed => ("changed", WARN),
            Change::Unchanged | Change::Removed => ("removed", BAD),
        };
        let mut start = format!("{}  {:<width$}  ", styled(style, word), cut(&it.name, width));
        for reason in &it.reasons {
            let line = cut(reason, WIDTH - width - 11);
            // a String takes what is written
            let _written = writeln!(text, "{start}{line}");
            start = " ".repeat(width + 11);
        }
    }
    let same: Vec<_> =
        plan.projections.iter().filter(|it| it.change == Change::Unchanged).collect();
    for (number, it) in same.chunks(3).enumerate() {
        let names: Vec<_> = it.iter().map(|it| cut(&it.name, 20)).collect();
        let word = if number == 0 { "same" } else { "" };
        text +=
            &format!("{}{}  {}\n", styled(DIM, word), " ".repeat(7 - word.len()), names.join(", "));
    }
    for it in &plan.broadcasts {
        let line = format!("`{}` on {}, at once", it.event, it.topic);
        let line = cut(&line, WIDTH.saturating_sub(it.name.chars().count() + 11));
        text += &format!("{}    {}  {line}\n", styled(DIM, "told"), it.name);
    }
    if plan.projections.is_empty() {
        text += "no definitions, and none in the database\n";
    }
    let built: Vec<_> = plan.projections.iter().filter(|it| it.rebuild).collect();
    if built.is_empty() {
        return text + &format!("\n{}\n", styled(BOLD, "nothing is rebuilt"));
    }
    let (events, rate) = (thousands(float(plan.events)), thousands(plan.rate.events_per_second));
    let how = if plan.rate.measured { "as measured last" } else { "assumed" };
    let head = format!("{} built from history", plural(built.len(), "projection"));
    text +=
        &format!("\n{}: about {events} events, {}\n", styled(BOLD, head), duration(plan.seconds));
    text += &format!("at {rate}/s, {how}");
    let room: u64 = built.iter().map(|it| it.bytes).sum();
    if 0 < room {
        text += &format!("; {} on the disk beside the present rows", bytes(room));
    }
    text + ", which readers see until then\n"
}
