//! The keys by which tokens are checked.
//!
//! A secret checks HS256, HS384 and HS512, and a published key only algorithms of its own kind: which
//! key it is is decided by the token's header, what it may be used for is not. `none` is no algorithm.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation, decode,
    decode_header, encode,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::crypto;
use super::jwks::Jwks;
use super::token::{Token, TokenError};

/// No token is longer.
const LONGEST: usize = 16 * 1024;

/// The algorithms of a secret.
const SHARED: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// What tokens are checked with: a secret, published keys, or both.
pub struct Keys {
    secret: Option<DecodingKey>,
    published: Option<Arc<Jwks>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("published", &self.published).finish_non_exhaustive()
    }
}

impl Keys {
    /// Tokens signed by `secret`, or by one of the keys that are published at `jwks`.
    pub fn new(secret: Option<&str>, jwks: Option<Jwks>) -> Self {
        crypto::install();
        let secret = secret.map(|it| DecodingKey::from_secret(it.as_bytes()));
        Self { secret, published: jwks.map(Arc::new) }
    }

    /// Checks a token at `now` seconds since 1970. Waits where published keys have to be fetched.
    pub(super) async fn check(&self, token: &str, now: u64) -> Result<Token, TokenError> {
        if LONGEST < token.len() {
            return Err(TokenError::Malformed);
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.alg.family() == AlgorithmFamily::Hmac {
            let key = self.secret.as_ref().ok_or(TokenError::Signer)?;
            return read(token, key, &SHARED, now);
        }
        let published = self.published.as_ref().ok_or(TokenError::Signer)?;
        let key = published.find(header.kid.as_deref()).await.ok_or(TokenError::Signer)?;
        read(token, &key.key, &key.algorithms, now)
    }
}

fn read(
    token: &str,
    key: &DecodingKey,
    algorithms: &[Algorithm],
    now: u64,
) -> Result<Token, TokenError> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.algorithms = algorithms.to_vec();
    // `Token::read` does what follows, and can say it in the words that clients know.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    match decode::<Box<RawValue>>(token, key, &validation) {
        Ok(data) => Token::read(&data.claims, now),
        Err(error) => Err(match error.kind() {
            ErrorKind::InvalidSignature
            | ErrorKind::InvalidAlgorithm
            | ErrorKind::InvalidKeyFormat => TokenError::Signature,
            _ => TokenError::Malformed,
        }),
    }
}

/// A token with these claims, signed by `secret` with HS256.
///
/// # Errors
/// When the claims are not a JSON object.
pub fn sign(secret: &str, claims: &impl Serialize) -> Result<String, jsonwebtoken::errors::Error> {
    crypto::install();
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))
}
