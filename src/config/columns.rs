//! What the columns of the events table are called.

use crate::config::nearest::nearest;
use crate::config::setting::{Raw, Setting, quoted};
use crate::ident::Ident;

/// The name of each of the envelope's columns in the events table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The identity column, an order across runs.
    pub position: Ident,
    /// The tenant.
    pub project_id: Ident,
    /// The run.
    pub run_id: Ident,
    /// The place within the run.
    pub version: Ident,
    /// Unique within the run.
    pub event_id: Ident,
    /// The event's type; `type` in the file.
    pub kind: Ident,
    /// What happened, as JSON.
    pub payload: Ident,
    /// What surrounds it, as JSON.
    pub metadata: Ident,
    /// When it was recorded.
    pub recorded_at: Ident,
}

impl Columns {
    /// Each of the envelope's names with the column that holds it, in the envelope's order.
    pub fn pairs(&self) -> [(&'static str, &Ident); 9] {
        [
            ("position", &self.position),
            ("project_id", &self.project_id),
            ("run_id", &self.run_id),
            ("version", &self.version),
            ("event_id", &self.event_id),
            ("type", &self.kind),
            ("payload", &self.payload),
            ("metadata", &self.metadata),
            ("recorded_at", &self.recorded_at),
        ]
    }

    /// Each column with the type it must have, as Postgres' `format_type` prints it.
    pub fn types(&self) -> [(&str, &'static str); 9] {
        let types = [
            "bigint",
            "uuid",
            "uuid",
            "integer",
            "uuid",
            "text",
            "jsonb",
            "jsonb",
            "timestamp with time zone",
        ];
        let mut types = types.into_iter();
        self.pairs().map(|(_, column)| (column.as_str(), types.next().unwrap_or_default()))
    }

    /// The table's own names, with some of them replaced.
    fn with(renamed: &[(String, String)]) -> Result<Self, String> {
        let column = |name: &str| {
            let found = renamed.iter().find(|(from, _)| from == name);
            Ident::new(found.map_or(name, |(_, to)| to)).map_err(|error| error.to_string())
        };
        let columns = Self {
            position: column("position")?,
            project_id: column("project_id")?,
            run_id: column("run_id")?,
            version: column("version")?,
            event_id: column("event_id")?,
            kind: column("type")?,
            payload: column("payload")?,
            metadata: column("metadata")?,
            recorded_at: column("recorded_at")?,
        };
        let names = columns.pairs().map(|(name, _)| name);
        for (from, _) in renamed {
            if !names.contains(&from.as_str()) {
                let near = nearest(from, names);
                let hint = near.map(|it| format!("; did you mean `{it}`?")).unwrap_or_default();
                return Err(format!("an event has no field `{from}`{hint}"));
            }
        }
        Ok(columns)
    }
}

impl Setting for Columns {
    const KIND: &'static str = "a table such as `{ run_id = \"stream_id\" }`";

    /// In the environment: `run_id=stream_id,version=revision`.
    fn from_text(text: &str) -> Result<Self, String> {
        let pairs = text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(|pair| {
            let (from, to) = pair
                .split_once('=')
                .ok_or_else(|| format!("`{pair}` is not of the form `field=column`"))?;
            Ok((from.trim().to_owned(), to.trim().to_owned()))
        });
        Self::with(&pairs.collect::<Result<Vec<_>, String>>()?)
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Table(pairs) => Self::with(pairs),
            other => Err(format!("expected {}, found {}", Self::KIND, other.kind())),
        }
    }

    fn show(&self) -> String {
        let pairs = self.pairs();
        let renamed = pairs.iter().filter(|(name, column)| *name != column.as_str());
        let shown: Vec<_> =
            renamed.map(|(name, column)| format!("{name} = {}", quoted(column.as_str()))).collect();
        if shown.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", shown.join(", ")) }
    }
}
