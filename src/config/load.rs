//! File, environment and flags, laid over one another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::file::{self, hint};
use crate::config::problem::{ConfigError, Origin, Problem};
use crate::config::setting::{Raw, Setting};
use crate::config::{Config, Key, SECTIONS, Section, nearest};

/// The file that is read when none is named and it exists.
const USUAL_FILE: &str = "projector.toml";

/// What every variable of ours begins with.
const PREFIX: &str = "PROJECTOR_";

/// The process' environment as a value.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the real one; variables that are not UTF-8 are not ours and are left out.
    pub fn of_this_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value of a variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|it| !it.is_empty())
    }

    /// All variables by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// An option of the command line that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The option with its dashes.
    pub option: &'static str,
    /// The key's section; empty for a key above all sections.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// The value as the environment variable would have it.
    pub value: String,
}

/// A configuration and where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every key in the order of the reference.
    pub shown: Vec<Shown>,
}

/// A value as people may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `section.key`
    pub key: String,
    /// TOML; `***` for a secret that is set; empty when there is no value.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Reads the configuration: from `path`, or from `projector.toml` in the working directory if it
/// exists; then from the environment; then from the flags.
///
/// # Errors
/// Everything that is wrong, at once: a file that cannot be read, unknown keys, values that do not
/// fit.
pub fn load(
    path: Option<&Path>,
    environment: &Environment,
    flags: &[Flag],
) -> Result<Loaded, ConfigError> {
    let mut values = Values::default();
    let named =
        path.map(Path::to_owned).or_else(|| environment.get("PROJECTOR_CONFIG").map(PathBuf::from));
    values.file(named);
    values.environment(environment);
    for flag in flags {
        let value = Raw::Text(flag.value.clone());
        values.set(flag.section, flag.key, value, Origin::Flag(flag.option));
    }
    let config = Config::resolve(&mut values);
    match values.problems {
        problems if problems.is_empty() => Ok(Loaded { config, shown: values.shown }),
        problems => Err(ConfigError(problems)),
    }
}

/// The values found so far; a later one replaces an earlier one.
#[derive(Default)]
pub(super) struct Values {
    found: BTreeMap<(&'static str, &'static str), (Raw, Origin)>,
    shown: Vec<Shown>,
    problems: Vec<Problem>,
}

impl Values {
    /// The value of a key in its type. A value that does not fit is noted as a problem, and the
    /// default stands in for it so that all problems are found at once.
    pub(super) fn take<T: Setting>(
        &mut self,
        section: &'static str,
        key: &'static str,
        default: &'static str,
    ) -> T {
        let found = self.found.remove(&(section, key));
        let (parsed, origin) = match found {
            None => (T::from_text(default), Origin::Default),
            // The environment and flags write everything as text.
            Some((Raw::Text(text), origin)) if !matches!(origin, Origin::File(_)) => {
                (T::from_text(&text), origin)
            }
            Some((raw, origin)) => (T::from_raw(&raw), origin),
        };
        let key = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        let value = parsed.unwrap_or_else(|message| {
            let message = format!("`{key}`: {message}");
            self.problems.push(Problem { message, origin: origin.clone(), hint: None });
            T::from_text(default).expect("a default is a valid value (a test loads them all)")
        });
        self.shown.push(Shown { key, value: value.show(), origin });
        value
    }

    fn set(&mut self, section: &'static str, key: &'static str, value: Raw, origin: Origin) {
        self.found.insert((section, key), (value, origin));
    }

    fn problem(&mut self, message: String, origin: Origin, hint: Option<String>) {
        self.problems.push(Problem { message, origin, hint });
    }

    fn file(&mut self, named: Option<PathBuf>) {
        let path = named.clone().unwrap_or_else(|| USUAL_FILE.into());
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                for entry in file::read(&path, &text, &mut self.problems) {
                    self.set(entry.section, entry.key, entry.value, Origin::File(entry.place));
                }
            }
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", path.display());
                self.problem(message, Origin::Default, None);
            }
        }
    }

    fn environment(&mut self, environment: &Environment) {
        let usual = [("RUST_LOG", "log", "level"), ("DATABASE_URL", "", "database_url")];
        for (name, section, key) in usual {
            if let Some(value) = environment.get(name) {
                let origin = Origin::Environment(name.to_owned());
                self.set(section, key, Raw::Text(value.to_owned()), origin);
            }
        }
        if let Some(path) = environment.get("DATABASE_URL_FILE") {
            self.secret_file(
                "DATABASE_URL_FILE",
                path,
                "",
                "database_url",
                environment.get("DATABASE_URL").is_some(),
            );
        }
        for (name, value) in environment.iter() {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                self.variable(name, &rest.to_ascii_lowercase(), value, environment);
            }
        }
    }

    /// One variable of ours. Names with a section that does not exist are left alone unless one is
    /// near: Kubernetes gives every container `PROJECTOR_SERVICE_HOST` and the like when a service
    /// is called `projector`.
    fn variable(&mut self, name: &str, rest: &str, value: &str, environment: &Environment) {
        let origin = Origin::Environment(name.to_owned());
        let [top, sections @ ..] = SECTIONS;
        if let Some(key) = top.keys.iter().find(|it| it.name == rest && !it.secret) {
            self.set(top.name, key.name, Raw::Text(value.to_owned()), origin);
            return;
        }
        if rest.starts_with("database_url") {
            let message = format!("unknown variable `{name}`");
            self.problem(message, origin, Some("did you mean `DATABASE_URL`?".to_owned()));
            return;
        }
        let Some((section, rest)) = rest.split_once('_') else { return };
        let Some(section) = sections.iter().find(|it| it.name == section) else {
            if let Some(near) = nearest(section, sections.iter().map(|it| it.name)) {
                let variable = format!("{PREFIX}{}_{}", near.to_uppercase(), rest.to_uppercase());
                let message = format!("unknown variable `{name}`");
                self.problem(message, origin, Some(format!("did you mean `{variable}`?")));
            }
            return;
        };
        match find(section, rest) {
            Some((key, From::Value)) => {
                self.set(section.name, key.name, Raw::Text(value.to_owned()), origin);
            }
            Some((key, From::File)) => {
                let plain = name.trim_end_matches("_FILE");
                let doubled = environment.get(plain).is_some();
                self.secret_file(name, value, section.name, key.name, doubled);
            }
            None => {
                let names = section.keys.iter().map(|it| it.name);
                let hint = hint(rest, names, |it| variable(section, it));
                self.problem(format!("unknown variable `{name}`"), origin, Some(hint));
            }
        }
    }

    /// A secret whose file a variable names. The line's end does not belong to it.
    fn secret_file(
        &mut self,
        name: &str,
        path: &str,
        section: &'static str,
        key: &'static str,
        doubled: bool,
    ) {
        let origin = Origin::Environment(name.to_owned());
        if doubled {
            let plain = name.trim_end_matches("_FILE");
            let message = format!("both `{plain}` and `{name}` are set");
            self.problem(message, origin, Some("set one of them".to_owned()));
            return;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let text = text.trim_end_matches(['\r', '\n']).to_owned();
                self.set(section, key, Raw::Text(text), origin);
            }
            Err(error) => self.problem(format!("cannot read `{path}`: {error}"), origin, None),
        }
    }
}

/// What a variable holds.
enum From {
    Value,
    File,
}

fn find(section: &'static Section, rest: &str) -> Option<(&'static Key, From)> {
    let named = |name: &str| section.keys.iter().find(|it| it.name == name);
    let of_file = || named(rest.strip_suffix("_file")?).filter(|it| it.secret);
    named(rest).map(|key| (key, From::Value)).or_else(|| of_file().map(|key| (key, From::File)))
}

/// The environment variable of a key.
pub(super) fn variable(section: &Section, key: &str) -> String {
    match (section.name, key) {
        ("", "database_url") => "DATABASE_URL".to_owned(),
        ("", key) => format!("{PREFIX}{}", key.to_uppercase()),
        (section, key) => format!("{PREFIX}{}_{}", section.to_uppercase(), key.to_uppercase()),
    }
}
