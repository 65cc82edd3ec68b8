//! Which values are masked for where they stand.

use std::collections::HashSet;

use super::{RedactError, RedactRules};

/// Keys whose values are secrets wherever they stand.
const DEFAULT_KEYS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-authorization",
    "cookie",
    "cookies",
    "set-cookie",
    "session",
    "session_id",
    "session_token",
    "credential",
    "credentials",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "db_password",
    "secret",
    "secrets",
    "client_secret",
    "secret_key",
    "secret_access_key",
    "aws_secret_access_key",
    "signing_secret",
    "webhook_secret",
    "token",
    "tokens",
    "access_token",
    "refresh_token",
    "id_token",
    "auth_token",
    "x-auth-token",
    "bearer_token",
    "csrf_token",
    "api_key",
    "x-api-key",
    "api_token",
    "api_secret",
    "service_role_key",
    "private_key",
    "ssh_key",
    "encryption_key",
    "card_number",
    "cvv",
    "cvc",
];

/// The names and paths of secrets.
#[derive(Debug, Default)]
pub(super) struct Keys {
    names: HashSet<String>,
    paths: Vec<Vec<Step>>,
    patterns: Vec<String>,
}

/// One step of a path.
#[derive(Debug)]
enum Step {
    Any,
    Key(Spellings),
}

/// Where in a document the rewriter stands: one for each open object, and one for arrays
/// directly within arrays.
#[derive(Debug)]
pub(super) enum Place {
    /// An object, by its current key, normalised.
    Key(String),
    /// So many arrays: counted, so that depth costs a comparison nothing.
    Elements(usize),
}

impl Keys {
    pub(super) fn new(rules: &RedactRules) -> Result<Self, RedactError> {
        let mut keys = Self::default();
        let defaults = if rules.defaults { DEFAULT_KEYS } else { &[] };
        for name in defaults.iter().copied().chain(rules.keys.iter().map(String::as_str)) {
            let spellings = Spellings::of(name);
            if spellings.joined.is_empty() {
                return Err(RedactError::Key(name.to_owned()));
            }
            keys.patterns.extend(patterns_of(name));
            keys.names.insert(spellings.joined);
            keys.names.insert(spellings.separated);
        }
        for path in &rules.paths {
            let is_wrong = path.split('.').any(str::is_empty) || path.ends_with('*');
            if is_wrong {
                return Err(RedactError::Path(path.clone()));
            }
            let step = |name| match name {
                "*" => Step::Any,
                name => Step::Key(Spellings::of(name)),
            };
            keys.paths.push(path.split('.').map(step).collect());
            keys.patterns.extend(path.rsplit('.').next().into_iter().flat_map(patterns_of));
        }
        Ok(keys)
    }

    /// Texts of which a document has at least one when something in it is masked for its key or
    /// path, unless its keys are written with `\u` escapes.
    pub(super) fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether the value under the normalised key `name` is masked.
    pub(super) fn names_secret(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether there are paths to compare places with.
    pub(super) fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether the value at `places` is masked.
    pub(super) fn leads_to_secret(&self, places: &[Place]) -> bool {
        self.paths.iter().any(|path| agree(path, places))
    }
}

/// Whether a path and a place agree from their ends on, as far as both go.
fn agree(path: &[Step], places: &[Place]) -> bool {
    let (Some((step, path_above)), Some((place, places_above))) =
        (path.split_last(), places.split_last())
    else {
        return true;
    };
    match (step, place) {
        (Step::Any, Place::Key(_)) => agree(path_above, places_above),
        (Step::Any, Place::Elements(_)) => {
            agree(path_above, places_above) || agree(path, places_above)
        }
        (Step::Key(_), Place::Elements(_)) => agree(path, places_above),
        (Step::Key(spellings), Place::Key(key)) => {
            (*key == spellings.separated || *key == spellings.joined)
                && agree(path_above, places_above)
        }
    }
}

/// The two forms in which a key is known after [`normalise`].
#[derive(Debug)]
struct Spellings {
    /// `api_key`
    separated: String,
    /// `apikey`, which `apiKey` becomes
    joined: String,
}

impl Spellings {
    fn of(name: &str) -> Self {
        let separated = normalise(name);
        let joined = separated.replace('_', "");
        Self { separated, joined }
    }
}

/// A key as it is compared: in lower case as far as it is ASCII, `_` for `-`.
pub(super) fn normalise(key: &str) -> String {
    key.chars().map(|it| if it == '-' { '_' } else { it.to_ascii_lowercase() }).collect()
}

/// More words would make too many spellings; their first one is looked for instead.
const MOST_WORDS: usize = 4;

/// What to look for in a document, without case, to find all spellings of the key `name`.
fn patterns_of(name: &str) -> Vec<String> {
    // JSON may write these with a backslash that is no \u.
    if name.contains(|it: char| it.is_control() || matches!(it, '"' | '\\' | '/')) {
        return vec!["\\".to_owned()];
    }
    let words: Vec<_> = name.split(['-', '_']).collect();
    if MOST_WORDS < words.len() {
        let start = words.into_iter().find(|it| !it.is_empty()).unwrap_or(name);
        return vec![start.to_owned()];
    }
    let mut spellings = vec![String::from("\"")];
    for (index, word) in words.iter().enumerate() {
        let separators: &[&str] = if index == 0 { &[""] } else { &["", "-", "_"] };
        spellings = spellings
            .iter()
            .flat_map(|start| separators.iter().map(move |it| format!("{start}{it}{word}")))
            .collect();
    }
    spellings.iter_mut().for_each(|it| it.push('"'));
    spellings
}
