//! Who may read all of `/api`: it shows every tenant's runs, so the answer is "an operator". What a
//! member of a project may read is `member`'s to say.
//!
//! With an admin token: whoever sends it. Without one: whoever is on this machine, that is, only when
//! the listener is bound to a loopback address. A web page opened on this machine is not an operator:
//! one that lets its own name resolve to 127.0.0.1 (DNS rebinding) still sends that name as `Host`,
//! and is refused by it.
//!
//! What changes something always needs the token, which no browser sends by itself: a page of another
//! site can neither read nor do anything here.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};

use super::AppState;
use super::error::ApiError;

/// The rule by which a request for `/api` is let in.
pub struct Access {
    listen: IpAddr,
    /// Digests are compared, not tokens: how long that takes says nothing about the token.
    token: Option<[u8; 32]>,
}

impl Access {
    /// The rule for a listener at `listen`, with the configured admin token.
    pub fn new(listen: SocketAddr, admin_token: Option<&str>) -> Self {
        Self { listen: listen.ip(), token: admin_token.map(digest) }
    }

    fn check_operator(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.token.is_some() { self.check(headers) } else { Err(ApiError::no_admin_token()) }
    }

    /// Whether the admin token is sent.
    pub(super) fn is_admin(&self, headers: &HeaderMap) -> bool {
        self.token.is_some() && self.check(headers).is_ok()
    }

    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if let Some(expected) = &self.token {
            let given = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
            let given = given.and_then(bearer).map(digest);
            return if given.is_some_and(|it| equal(&it, expected)) {
                Ok(())
            } else {
                Err(ApiError::unauthorized())
            };
        }
        if !self.listen.is_loopback() {
            return Err(ApiError::closed());
        }
        let host = headers.get(header::HOST).and_then(|it| it.to_str().ok());
        if host.is_some_and(|it| self.is_own_name(it)) {
            Ok(())
        } else {
            Err(ApiError::foreign_host())
        }
    }

    /// Whether `Host` names this machine, whatever the port: a tunnel may come in by another.
    fn is_own_name(&self, host: &str) -> bool {
        if let Ok(address) = host.parse::<SocketAddr>() {
            return self.is_own_address(address.ip());
        }
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|it| self.is_own_address(it))
    }

    fn is_own_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || address == self.listen
    }
}

/// Lets a request pass, or answers 401 or 403.
pub(super) async fn guard(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    state.access.check(request.headers())?;
    Ok(next.run(request).await)
}

/// The same for what changes something.
pub(super) async fn guard_operator(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    state.access.check_operator(request.headers())?;
    Ok(next.run(request).await)
}

pub(super) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(access: &Access, name: header::HeaderName, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        access.check(&headers).is_ok()
    }

    #[test]
    fn without_a_token_only_this_machines_names_are_answered() {
        let access = Access::new("127.0.0.1:4400".parse().unwrap(), None);

        for host in ["localhost", "LocalHost:4400", "127.0.0.1:80", "[::1]:4400", "[::1]"] {
            assert!(allows(&access, header::HOST, host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:4400", "10.0.0.1", "", "127.0.0.1.x"] {
            assert!(!allows(&access, header::HOST, host), "{host}");
        }
        assert!(access.check(&HeaderMap::new()).is_err());
    }

    #[test]
    fn without_a_token_nobody_changes_anything() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        headers.insert(header::AUTHORIZATION, "Bearer s3cret".parse().unwrap());
        let listen = "127.0.0.1:4400".parse().unwrap();

        assert!(Access::new(listen, None).check_operator(&headers).is_err());
        assert!(Access::new(listen, Some("s3cret")).check_operator(&headers).is_ok());
        assert!(Access::new(listen, Some("other")).check_operator(&headers).is_err());
    }

    #[test]
    fn a_listener_that_others_reach_is_closed_without_a_token() {
        let access = Access::new("0.0.0.0:4400".parse().unwrap(), None);

        assert!(!allows(&access, header::HOST, "localhost"));
    }

    #[test]
    fn a_token_is_needed_once_one_is_set_and_nothing_else() {
        let access = Access::new("0.0.0.0:4400".parse().unwrap(), Some("s3cret"));

        assert!(allows(&access, header::AUTHORIZATION, "Bearer s3cret"));
        assert!(allows(&access, header::AUTHORIZATION, "bearer s3cret"));
        for wrong in ["Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer "] {
            assert!(!allows(&access, header::AUTHORIZATION, wrong), "{wrong}");
        }
        assert!(!allows(&access, header::HOST, "localhost"));
    }
}
