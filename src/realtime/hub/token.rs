//! What a client is: the claims of a JWT whose signature holds.
//!
//! `role` and `exp` are required, as Supabase Realtime requires them. `exp` counts to the second, by
//! this machine's clock; `nbf` may lie [`LEEWAY`] ahead, for an issuer whose clock is a little fast.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

/// How far ahead of ours the issuer's clock may be.
pub(super) const LEEWAY: Duration = Duration::from_secs(30);

/// The only role that sends to private topics.
const SERVICE: &str = "service_role";

/// A JWT that was checked.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// The role that Postgres is asked as.
    pub(super) role: String,
    /// Whose it is.
    pub(super) subject: Option<String>,
    /// Seconds since 1970 from which it counts no more.
    pub(super) expires: u64,
    /// All claims, as the issuer wrote them.
    pub(super) claims: Box<str>,
}

/// Why a JWT is refused. The texts are those of Supabase Realtime, which its clients show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no JWT.
    #[error("The token provided is not a valid JWT")]
    Malformed,
    /// It was signed by another key, or with an algorithm that is not the key's.
    #[error("Failed to validate JWT signature")]
    Signature,
    /// No key is known that could have signed it.
    #[error("Failed to generate JWT signer")]
    Signer,
    /// It lacks what is required.
    #[error("Fields `role` and `exp` are required in JWT")]
    Fields,
    /// It is not valid yet.
    #[error("Token is not yet valid")]
    Early,
    /// Its time is over.
    #[error("Token has expired {0} seconds ago")]
    Expired(u64),
}

#[derive(Deserialize)]
struct Claims {
    role: Option<String>,
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl TokenError {
    /// As the answer to a join has it: with a word before the text.
    pub(super) fn reason(&self) -> String {
        let code = match self {
            Self::Malformed => "MalformedJWT",
            Self::Signature => "JwtSignatureError",
            Self::Signer => "JwtSignerError",
            Self::Fields | Self::Early | Self::Expired(_) => "InvalidJWTToken",
        };
        format!("{code}: {self}")
    }

    /// As the answer to a connection has it.
    pub(super) fn handshake(&self) -> String {
        match self {
            Self::Expired(_) => "Token has expired".to_owned(),
            other => other.to_string(),
        }
    }
}

impl Token {
    /// Reads claims whose signature holds, at `now` seconds since 1970.
    pub(super) fn read(claims: &RawValue, now: u64) -> Result<Self, TokenError> {
        let read: Claims = serde_json::from_str(claims.get()).map_err(|_| TokenError::Fields)?;
        let (Some(role), Some(expires)) = (read.role, read.exp.and_then(seconds)) else {
            return Err(TokenError::Fields);
        };
        if read.nbf.and_then(seconds).is_some_and(|it| now + LEEWAY.as_secs() < it) {
            return Err(TokenError::Early);
        }
        let token = Self { role, subject: read.sub, expires, claims: claims.get().into() };
        token.check(now).map(|()| token)
    }

    /// Whether it still counts.
    pub(super) fn check(&self, now: u64) -> Result<(), TokenError> {
        if now < self.expires { Ok(()) } else { Err(TokenError::Expired(now - self.expires)) }
    }

    /// Whether it is the one that projector and other servers send with.
    pub(super) fn is_service(&self) -> bool {
        self.role == SERVICE
    }
}

/// Claims are personal data.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("role", &self.role).finish_non_exhaustive()
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A `NumericDate`; fractions are allowed, and cut off.
fn seconds(date: f64) -> Option<u64> {
    // far beyond any clock, and exact as a float
    const LAST: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
    (0.0..LAST).contains(&date).then_some(date as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(claims: &str) -> Result<Token, TokenError> {
        Token::read(&RawValue::from_string(claims.to_owned()).unwrap(), 1_000)
    }

    #[test]
    fn role_and_expiry_are_required() {
        for claims in [
            "{}",
            r#"{"role":"anon"}"#,
            r#"{"exp":2000}"#,
            r#"{"role":"anon","exp":"2000"}"#,
            r#"{"role":["anon"],"exp":2000}"#,
            r#"{"role":"anon","exp":-1}"#,
            r#"{"role":"anon","exp":1e300}"#,
            "[]",
        ] {
            assert_eq!(read(claims).unwrap_err(), TokenError::Fields, "{claims}");
        }
    }

    #[test]
    fn a_token_counts_until_the_second_of_its_expiry() {
        let token = read(r#"{"role":"anon","exp":1001.5}"#).unwrap();

        assert_eq!(token.check(1_000), Ok(()));
        assert_eq!(token.check(1_001), Err(TokenError::Expired(0)));
        assert_eq!(read(r#"{"role":"anon","exp":900}"#), Err(TokenError::Expired(100)));
    }

    #[test]
    fn a_token_of_the_future_waits_for_it() {
        assert!(read(r#"{"role":"anon","exp":2000,"nbf":1030}"#).is_ok());
        let early = read(r#"{"role":"anon","exp":2000,"nbf":1031}"#);
        assert_eq!(early, Err(TokenError::Early));
    }
}
