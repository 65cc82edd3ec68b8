//! Published keys: a JSON Web Key Set in a file or at an address.
//!
//! Read when first needed, again after [`FRESH`], and when a token names a key that is not there (the
//! issuer has a new one), though not more often than every [`PAUSE`]: whoever invents key names makes
//! nobody fetch, and whose key is there waits for nobody, unless the last attempt to read is longer ago
//! than [`RECENT`]. Where reading fails, the keys read last go on.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::redirect;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

/// How long keys count as fresh.
const FRESH: Duration = Duration::from_secs(600);

/// Keys that are not fresh count while they are read anew, if they were read, or that was tried, no longer
/// ago than this: after a quiet night a key may have been withdrawn.
const RECENT: Duration = Duration::from_secs(1_200);

/// The shortest time between two readings.
const PAUSE: Duration = Duration::from_secs(10);

/// How long an address may take to answer.
const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// The longest set, in bytes.
const LONGEST: usize = 256 * 1024;

/// More keys than this are not kept.
const MOST: usize = 100;

/// A set of published keys.
pub struct Jwks {
    source: Source,
    known: Mutex<Known>,
    /// Held while the set is being read.
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// Where keys are published.
#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Url(String, reqwest::Client),
}

#[derive(Default)]
struct Known {
    keys: Vec<Arc<Published>>,
    read_at: Option<Instant>,
    tried_at: Option<Instant>,
}

/// What is known of a key.
enum Found {
    /// As good as it gets for now.
    Known(Option<Arc<Published>>),
    /// It counts, and the set is to be read all the same.
    Aged(Arc<Published>),
    /// The set is to be read.
    Ask,
}

/// A key, and what it may be used for.
pub(super) struct Published {
    id: Option<String>,
    pub(super) key: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

/// Why a set cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("cannot read the file")]
    File(#[from] std::io::Error),
    #[error("the address does not give it")]
    Fetch(#[from] reqwest::Error),
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    #[error("it is no JSON Web Key Set")]
    Json(#[from] serde_json::Error),
    #[error("it has no key that can be used: RSA, EC (P-256, P-384) or Ed25519, for signatures")]
    NoKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(path) => f.debug_tuple("Jwks").field(path).finish(),
            // It may have a password in it.
            Source::Url(..) => f.write_str("Jwks(address)"),
        }
    }
}

impl Jwks {
    /// The set at `place`: an address with `https://` or `http://`, or else a file. Nothing is read
    /// yet.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(place: &str) -> Result<Self, reqwest::Error> {
        let source = if place.starts_with("https://") || place.starts_with("http://") {
            // Whoever was first has chosen the same.
            drop(rustls::crypto::ring::default_provider().install_default());
            let client = reqwest::Client::builder()
                .timeout(FETCH_LIMIT)
                .redirect(redirect::Policy::limited(3))
                .build()?;
            Source::Url(place.to_owned(), client)
        } else {
            Source::File(place.into())
        };
        Ok(Self { source, known: Mutex::default(), reading: Arc::default() })
    }

    /// The key of this name; without a name, the only key there is. Those whose key is not there wait for
    /// one reading.
    pub(super) async fn find(self: &Arc<Self>, id: Option<&str>) -> Option<Arc<Published>> {
        let found = self.known().look(id, Instant::now());
        match found {
            Found::Known(found) => return found,
            Found::Aged(found) => {
                if let Ok(reading) = Arc::clone(&self.reading).try_lock_owned() {
                    let this = Arc::clone(self);
                    tokio::spawn(async move {
                        let _reading = reading;
                        if this.known().is_aged(Instant::now()) {
                            this.renew().await;
                        }
                    });
                }
                return Some(found);
            }
            Found::Ask => {}
        }
        let _reading = self.reading.lock().await;
        // whoever was before may have read it
        let found = self.known().look(id, Instant::now());
        match found {
            Found::Known(found) => return found,
            Found::Aged(found) => return Some(found),
            Found::Ask => {}
        }
        self.renew().await;
        self.known().find(id)
    }

    /// Reads the set. Whoever does that holds `reading`.
    async fn renew(&self) {
        let now = Instant::now();
        let read = self.read().await;
        let mut known = self.known();
        known.tried_at = Some(now);
        match read {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "read the published keys of tokens");
                known.keys = keys;
                known.read_at = Some(now);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, known = known.keys.len(), "cannot read `realtime.jwks`");
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) -> Result<Vec<Arc<Published>>, ReadError> {
        let text = match &self.source {
            Source::File(path) => tokio::fs::read(path).await?,
            Source::Url(url, client) => fetch(client, url).await?,
        };
        if LONGEST < text.len() {
            return Err(ReadError::TooLong);
        }
        let set: Set = serde_json::from_slice(&text)?;
        let keys: Vec<_> =
            set.keys.into_iter().filter_map(published).take(MOST).map(Arc::new).collect();
        if keys.is_empty() { Err(ReadError::NoKey) } else { Ok(keys) }
    }
}

impl Known {
    fn look(&self, id: Option<&str>, now: Instant) -> Found {
        let is_recent = self.tried_at.is_some_and(|it| now < it + RECENT);
        let found = self.find(id);
        if self.is_paused(now) || (self.is_fresh(now) && found.is_some()) {
            return Found::Known(found);
        }
        found.filter(|_| is_recent).map_or(Found::Ask, Found::Aged)
    }

    /// Whether it is time to read the set though its keys are known.
    fn is_aged(&self, now: Instant) -> bool {
        !self.is_paused(now) && !self.is_fresh(now)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.read_at.is_some_and(|it| now < it + FRESH)
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.tried_at.is_some_and(|it| now < it + PAUSE)
    }

    fn find(&self, id: Option<&str>) -> Option<Arc<Published>> {
        match (id, self.keys.as_slice()) {
            (Some(id), keys) => keys.iter().find(|it| it.id.as_deref() == Some(id)).cloned(),
            (None, [only]) => Some(Arc::clone(only)),
            (None, _) => None,
        }
    }
}

async fn fetch(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, ReadError> {
    let request = client.get(url).send();
    // An address with a password in it stays out of the log.
    let answer = request.await.and_then(reqwest::Response::error_for_status);
    let mut answer = answer.map_err(reqwest::Error::without_url)?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        text.extend_from_slice(&chunk);
        if LONGEST < text.len() {
            return Err(ReadError::TooLong);
        }
    }
    Ok(text)
}

/// A public key for signatures; `None` for any other, and for secrets, which nobody publishes.
fn published(jwk: Value) -> Option<Published> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    if matches!(&jwk.common.public_key_use, Some(it) if *it != PublicKeyUse::Signature) {
        return None;
    }
    let fitting: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(it) => match it.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
        _ => return None,
    };
    let algorithms = match jwk.common.key_algorithm {
        None => fitting.to_vec(),
        Some(named) => {
            let named: Algorithm = named.to_string().parse().ok()?;
            fitting.iter().copied().filter(|it| *it == named).collect()
        }
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (!algorithms.is_empty()).then_some(Published { id: jwk.common.key_id, key, algorithms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_there_counts_while_the_set_is_read_anew_unless_that_was_long_ago() {
        let key = DecodingKey::from_secret(b"any");
        let published = Published { id: Some("old".to_owned()), key, algorithms: Vec::new() };
        let read_at = Instant::now();
        let keys = vec![Arc::new(published)];
        let mut known = Known { keys, read_at: Some(read_at), tried_at: Some(read_at) };
        let second = Duration::from_secs(1);

        let look = |known: &Known, id, now| known.look(Some(id), now);

        assert!(matches!(look(&known, "old", read_at + PAUSE), Found::Known(Some(_))));
        assert!(matches!(look(&known, "new", read_at + PAUSE), Found::Ask));
        assert!(matches!(look(&known, "new", read_at + second), Found::Known(None)));
        assert!(matches!(look(&known, "old", read_at + FRESH), Found::Aged(_)));
        assert!(matches!(look(&known, "old", read_at + RECENT), Found::Ask));
        // where the address does not answer, nobody waits for it again and again
        known.tried_at = Some(read_at + RECENT);
        assert!(matches!(look(&known, "old", read_at + RECENT + PAUSE), Found::Aged(_)));
    }
}
