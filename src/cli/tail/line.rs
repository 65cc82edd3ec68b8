//! A line of the log, as text and as JSON.

use anstyle::Style;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::cli::out::{BAD, BOLD, DIM, GOOD, WARN, WIDTH, cut, styled};

/// What [`LogLine::from_row`] needs of `run_log`, under the name `log`.
pub(super) const COLUMNS: &str = "\
to_char(log.at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as at,
  log.level, log.project_id, log.run_id, log.version, log.type, log.step_id, log.message,
  log.fields::text as fields";

/// A row of `run_log`.
#[derive(Debug, Serialize)]
pub(super) struct LogLine {
    at: Option<String>,
    level: Option<String>,
    project_id: Option<Uuid>,
    run_id: Uuid,
    pub(super) version: i32,
    #[serde(rename = "type")]
    kind: Option<String>,
    step_id: Option<String>,
    message: Option<String>,
    fields: Option<Box<RawValue>>,
}

impl LogLine {
    /// Reads the columns of [`COLUMNS`].
    pub(super) fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let fields: Option<String> = row.try_get("fields")?;
        Ok(Self {
            at: row.try_get("at")?,
            level: row.try_get("level")?,
            project_id: row.try_get("project_id")?,
            run_id: row.try_get("run_id")?,
            version: row.try_get("version")?,
            kind: row.try_get("type")?,
            step_id: row.try_get("step_id")?,
            message: row.try_get("message")?,
            // What Postgres prints as JSON is JSON.
            fields: fields.and_then(|it| RawValue::from_string(it).ok()),
        })
    }

    /// Within 80 columns: time (UTC), level, run unless only one is shown, version, step, message.
    pub(super) fn text(&self, with_run: bool) -> String {
        let level = self.level.as_deref().unwrap_or("-");
        let time = self.at.as_deref().and_then(|it| it.get(11..23)).unwrap_or("-");
        // The beginning of a UUIDv7 is its time, and alike in runs that begin together.
        let run = self.run_id.simple().to_string();
        let run = if with_run { run.get(24..).unwrap_or_default() } else { "" };
        let space = if with_run { " " } else { "" };
        let version = format!("{:>4}", self.version);
        let step = self.step_id.as_deref().map(|it| cut(it, 16)).unwrap_or_default();
        let gap = if step.is_empty() { "" } else { "  " };
        let message = self.message.as_deref().or(self.kind.as_deref()).unwrap_or_default();
        let taken = [&*format!("{time:<12} {level:<5} {run}{space}{version}  "), &step, gap];
        let taken: usize = taken.iter().map(|it| it.chars().count()).sum();
        format!(
            "{} {} {}{space}{}  {}{gap}{}",
            styled(DIM, format_args!("{time:<12}")),
            styled(style_of(level), format_args!("{:<5}", cut(level, 5))),
            styled(DIM, run),
            styled(DIM, version),
            styled(BOLD, &step),
            cut(message, WIDTH.saturating_sub(taken)),
        )
    }
}

fn style_of(level: &str) -> Style {
    match level {
        "error" => BAD,
        "warn" => WARN,
        "info" => GOOD,
        _ => DIM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_80_columns() {
        let line = LogLine {
            at: Some("2026-11-23T09:00:00.123456Z".to_owned()),
            level: Some("error".to_owned()),
            project_id: None,
            run_id: Uuid::nil(),
            version: 12,
            kind: Some("step_failed".to_owned()),
            step_id: Some("a step with a name of some length".to_owned()),
            message: Some("card declined ".repeat(20)),
            fields: None,
        };

        let text = anstream::adapter::strip_str(&line.text(true)).to_string();

        assert_eq!(text.chars().count(), WIDTH);
        let start = "09:00:00.123 error 00000000   12  a step with a n…  card declined card";
        assert!(text.starts_with(start), "{text}");
    }
}
