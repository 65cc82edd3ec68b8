//! The report as a table of at most 80 columns.

use super::report::{Projection, Report};
use crate::cli::check::plural;
use crate::cli::figure::{bytes, duration, thousands};
use crate::engine::status::{BroadcastStatus, State};

/// The width that everything fits into.
const WIDTH: usize = 80;

/// The report as text, with a line end after each line.
pub(super) fn render(report: &Report) -> String {
    let longest = report.projections.iter().map(|it| it.name.chars().count()).max();
    let name_width = longest.unwrap_or(0).clamp(10, 20);
    let mut lines = Vec::new();
    if report.projections.is_empty() {
        lines.push("no projections yet: `projector run` builds them".to_owned());
    } else {
        let mut header = row(name_width, ["PROJECTION", "STATE", "CHECKPOINT", "LAG", "RATE"]);
        header.push_str("ERRORS");
        lines.push(header);
    }
    lines.extend(report.projections.iter().map(|it| projection(it, name_width)));
    lines.push(String::new());
    lines.push(slot(report));
    lines.extend(report.broadcasts.iter().flat_map(broadcasts));
    lines.extend(report.rebuilds.iter().map(|it| {
        let name = fit(&it.projection, name_width);
        fit(&format!("rebuild {name}  {}", it.text()), WIDTH)
    }));
    lines.extend(report.projections.iter().filter_map(set_aside));
    lines.extend(report.reasons.iter().map(|it| fit(&format!("  {it}"), WIDTH)));
    for it in &report.projections {
        if let Some(error) = it.error.as_deref().filter(|_it| it.state == State::Failed) {
            let error = error.lines().next().unwrap_or_default();
            lines.push(fit(&format!("  {}: {error}", it.name), WIDTH));
        }
    }
    lines.iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// The columns before the last, padded.
fn row(name_width: usize, [name, state, checkpoint, lag, rate]: [&str; 5]) -> String {
    let name = fit(name, name_width);
    format!("{name:<name_width$}  {state:<11}  {checkpoint:<11}  {lag:<12}  {rate:<7}  ")
}

fn projection(it: &Projection, name_width: usize) -> String {
    let state = it.state.as_str().replace('_', " ");
    let checkpoint = it.checkpoint.map_or("-".to_owned(), |lsn| lsn.to_string());
    let lag = match (it.state, it.progress) {
        (State::Rebuilding, Some(progress)) => format!("{:.0} %", progress * 100.0),
        _ => lag(it),
    };
    let rate = match it.events_per_second {
        Some(rate) if 0.05 <= rate => format!("{}/s", thousands(rate)),
        _ => "-".to_owned(),
    };
    let mut line = row(name_width, [&it.name, &state, &checkpoint, &lag, &rate]);
    let errors = match (it.dead_letters, it.state) {
        (0, State::Failed) => "failed".to_owned(),
        (0, _) => "-".to_owned(),
        (count, _) => format!("{count} dead"),
    };
    line.push_str(&errors);
    fit(&line, WIDTH)
}

/// `  dead_runs: 7 events of 2 rows set aside, the oldest 3 min ago`.
fn set_aside(it: &Projection) -> Option<String> {
    if it.dead_letters == 0 {
        return None;
    }
    let number = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
    let events = plural(number(it.dead_letters), "event");
    let rows = plural(number(it.parked_keys), "row");
    let age = duration(it.oldest_parked_seconds);
    Some(fit(&format!("  {}: {events} of {rows} set aside, the oldest {age} ago", it.name), WIDTH))
}

fn lag(it: &Projection) -> String {
    let Some(lag_bytes) = it.lag_bytes else { return "-".to_owned() };
    let mut text = bytes(lag_bytes);
    if let Some(seconds) = it.lag_seconds {
        text.push(' ');
        text.push_str(&duration(seconds));
    }
    text
}

/// Where broadcasts go and what waits; below it why, when it does not go on.
fn broadcasts(it: &BroadcastStatus) -> Vec<String> {
    let state = if it.failing { "waiting" } else { "sending" };
    let mut line = format!("broadcasts {}  {state}", it.target);
    if it.backlog_lines != 0 {
        let (lines, bytes) = (it.backlog_lines, bytes(it.backlog_bytes));
        line += &format!("  {lines} lines wait ({bytes}), {}", duration(it.lag_seconds));
    }
    for (count, what) in [(it.skipped_total, "skipped"), (it.refused_total, "refused")] {
        if count != 0 {
            line += &format!("  {count} {what}");
        }
    }
    let error = it.last_error.as_deref().filter(|_error| it.failing);
    let error = error.map(|error| fit(&format!("  {error}"), WIDTH));
    std::iter::once(fit(&line, WIDTH)).chain(error).collect()
}

fn slot(report: &Report) -> String {
    let name = &report.slot_name;
    let mut line = match &report.slot {
        None => format!("slot {name}  does not exist"),
        Some(slot) => {
            let active = if slot.active { "active" } else { "nobody reads" };
            let kept = bytes(slot.retained_bytes);
            let mut line = format!("slot {name}  {active}  keeps {kept} of WAL");
            if slot.wal_status.as_deref() == Some("lost") {
                line.push_str(" (lost)");
            } else {
                let limit = bytes(slot.limit_bytes);
                line = format!("{line} (limit {limit})");
            }
            line
        }
    };
    line.push_str(match report.ready {
        Some(true) => "  ready",
        Some(false) => "  not ready",
        None => "",
    });
    fit(&line, WIDTH)
}

/// `text`, or its start with an ellipsis, in `width` characters.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::progress::Progress;
    use crate::cli::status::report::Slot;
    use crate::lsn::Lsn;

    fn live(name: &str) -> Projection {
        Projection {
            name: name.to_owned(),
            state: State::Live,
            checkpoint: Some(Lsn(0x04A3_1C58)),
            lag_bytes: Some(0),
            lag_seconds: Some(0.012),
            events_per_second: Some(4_100.0),
            events_total: 9,
            progress: None,
            dead_letters: 0,
            parked_keys: 0,
            oldest_parked_seconds: 0.0,
            error: None,
        }
    }

    fn report(projections: Vec<Projection>) -> Report {
        Report {
            head: Lsn(0x04A3_1C58),
            projections,
            rebuilds: vec![Progress {
                rebuild: 7,
                projection: "run_status".to_owned(),
                phase: "fold".to_owned(),
                events_done: 1_220_000,
                events_total: Some(2_000_000),
                seconds: 25.4,
                waiting_for: None,
                error: None,
                is_finished: false,
            }],
            slot: Some(Slot {
                active: true,
                acknowledged: Some(Lsn(16)),
                retained_bytes: 1_258_291,
                limit_bytes: 10 << 30,
                wal_status: Some("reserved".to_owned()),
            }),
            slot_name: "projector".to_owned(),
            broadcasts: None,
            ready: Some(true),
            reasons: Vec::new(),
        }
    }

    #[test]
    fn a_report_is_a_table_and_a_line_for_the_slot() {
        let building = Projection {
            state: State::Rebuilding,
            checkpoint: None,
            progress: Some(0.61),
            events_per_second: Some(48_000.0),
            ..live("workflow_stats")
        };
        let paused = Projection {
            state: State::Paused,
            lag_bytes: Some(90 * 1024),
            lag_seconds: Some(41.0),
            events_per_second: Some(0.0),
            dead_letters: 2,
            parked_keys: 1,
            oldest_parked_seconds: 95.0,
            ..live("dead_runs")
        };

        let text = render(&report(vec![live("run_status"), building, paused]));

        insta::assert_snapshot!(text, @r"
        PROJECTION      STATE        CHECKPOINT   LAG           RATE     ERRORS
        run_status      live         0/4A31C58    0 B 12 ms     4.1 k/s  -
        workflow_stats  rebuilding   -            61 %          48 k/s   -
        dead_runs       paused       0/4A31C58    90 KiB 41 s   -        2 dead

        slot projector  active  keeps 1.2 MiB of WAL (limit 10 GiB)  ready
        rebuild run_status  61 %  1.2 M/2.0 M events  48 k/s  16 s left
          dead_runs: 2 events of 1 row set aside, the oldest 95 s ago
        ");
    }

    #[test]
    fn without_the_sidecar_what_only_it_knows_is_left_out() {
        let known = Projection { lag_seconds: None, events_per_second: None, ..live("run_status") };

        let text = render(&Report {
            ready: None,
            slot: None,
            rebuilds: Vec::new(),
            ..report(vec![known])
        });

        insta::assert_snapshot!(text, @r"
        PROJECTION  STATE        CHECKPOINT   LAG           RATE     ERRORS
        run_status  live         0/4A31C58    0 B           -        -

        slot projector  does not exist
        ");
    }

    #[test]
    fn nothing_is_wider_than_80_columns() {
        let long = Projection {
            state: State::Failed,
            checkpoint: Some(Lsn(u64::MAX)),
            lag_bytes: Some(u64::MAX),
            lag_seconds: Some(1e9),
            events_per_second: Some(999_499.0),
            dead_letters: u64::MAX,
            error: Some("a reason that goes on and on, ".repeat(9)),
            ..live(&"é".repeat(63))
        };

        let text = render(&Report { reasons: vec!["why ".repeat(40)], ..report(vec![long]) });

        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn broadcasts_that_wait_say_why() {
        let waiting = BroadcastStatus {
            target: "http".to_owned(),
            failing: true,
            backlog_lines: 1_200,
            backlog_bytes: 64 << 10,
            lag_seconds: 12.0,
            skipped_total: 7,
            last_error: Some("Realtime answers 503".to_owned()),
            ..BroadcastStatus::default()
        };

        let text = render(&Report { broadcasts: Some(waiting), ..report(Vec::new()) });

        let said = "broadcasts http  waiting  1200 lines wait (64 KiB), 12 s  7 skipped\n  Realtime answers 503\n";
        assert!(text.contains(said), "{text}");
    }
}
