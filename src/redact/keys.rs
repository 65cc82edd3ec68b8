//! Which values are masked for where they stand.

use std::borrow::Cow;
use std::collections::HashSet;

use foldhash::fast::RandomState;

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

/// Keys that end so name secrets, too: `smtp_password`, `stripeSecretKey`.
const DEFAULT_ENDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "credentials",
    "client_secret",
    "secret_key",
    "access_key",
    "api_key",
    "private_key",
    "access_token",
    "refresh_token",
    "auth_token",
];

/// Keys that name secrets, and, of language models, how many there are.
const COUNTED: &str = "tokens";

/// The names and paths of secrets.
#[derive(Debug, Default)]
pub(super) struct Keys {
    names: HashSet<String, RandomState>,
    ends: Vec<Spellings>,
    except: HashSet<String, RandomState>,
    paths: Vec<Vec<Step>>,
    patterns: Patterns,
}

/// What every text has a part of in which something is masked for its key, its path or the name
/// beside it, unless these are written with `\u` escapes.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// Whole names, behind which a sign must stand.
    pub(super) names: Vec<String>,
    /// What only hints at a name.
    pub(super) hints: Vec<String>,
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
        for name in &rules.except {
            let spellings = Spellings::of_key(name)?;
            keys.except.extend([spellings.joined, spellings.separated]);
        }
        let defaults = if rules.defaults { DEFAULT_KEYS } else { &[] };
        for name in defaults.iter().copied().chain(rules.keys.iter().map(String::as_str)) {
            let spellings = Spellings::of_key(name)?;
            keys.patterns.add(name);
            keys.names.extend([spellings.joined, spellings.separated]);
        }
        for name in if rules.defaults { DEFAULT_ENDS } else { &[] } {
            keys.patterns.add(name);
            keys.ends.push(Spellings::of(name));
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
            path.rsplit('.').next().into_iter().for_each(|it| keys.patterns.add(it));
        }
        Ok(keys)
    }

    pub(super) fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// Whether the value under the normalised key `name` is masked.
    pub(super) fn names_secret(&self, name: &str) -> bool {
        let ends_so = |it: &Spellings| name.ends_with(&it.separated) || name.ends_with(&it.joined);
        (self.names.contains(name) || self.ends.iter().any(ends_so)) && !self.except.contains(name)
    }

    /// Whether numbers under the normalised key `name` are no secrets.
    pub(super) fn counts(&self, name: &str) -> bool {
        name == COUNTED
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
    fn of_key(name: &str) -> Result<Self, RedactError> {
        let spellings = Self::of(name);
        if spellings.joined.is_empty() {
            return Err(RedactError::Key(name.to_owned()));
        }
        Ok(spellings)
    }

    fn of(name: &str) -> Self {
        let separated = normalise(name).into_owned();
        let joined = separated.replace('_', "");
        Self { separated, joined }
    }
}

/// A key as it is compared: in lower case as far as it is ASCII, `_` for `-`.
pub(super) fn normalise(key: &str) -> Cow<'_, str> {
    if !key.bytes().any(|it| it == b'-' || it.is_ascii_uppercase()) {
        return Cow::Borrowed(key);
    }
    key.chars().map(|it| if it == '-' { '_' } else { it.to_ascii_lowercase() }).collect()
}

/// More words would make too many spellings; their first one is looked for instead.
const MOST_WORDS: usize = 4;

impl Patterns {
    /// Takes up what to look for, without case, to find all spellings of a name.
    fn add(&mut self, name: &str) {
        // JSON may write these with a backslash that is no \u.
        if name.contains(|it: char| it.is_control() || matches!(it, '"' | '\\' | '/')) {
            self.hints.push("\\".to_owned());
            return;
        }
        let words: Vec<_> = name.split(['-', '_']).collect();
        if MOST_WORDS < words.len() {
            let start = words.into_iter().find(|it| !it.is_empty()).unwrap_or(name);
            self.hints.push(start.to_owned());
            return;
        }
        let mut spellings = vec![String::new()];
        for (index, word) in words.iter().enumerate() {
            let separators: &[&str] = if index == 0 { &[""] } else { &["", "-", "_"] };
            spellings = spellings
                .iter()
                .flat_map(|start| separators.iter().map(move |it| format!("{start}{it}{word}")))
                .collect();
        }
        self.names.extend(spellings);
    }
}
