//! What the running sidecar says, over its HTTP listener on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Client, StatusCode};

use crate::engine::status::Status;

/// It answers from memory; more than this means that it hangs.
const LIMIT: Duration = Duration::from_secs(2);

/// A sidecar that may be running.
pub(super) struct Sidecar {
    client: Client,
    base: String,
    token: Option<String>,
}

impl Sidecar {
    /// The one configured to listen at `listen`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub(super) fn new(listen: SocketAddr, admin_token: Option<&str>) -> anyhow::Result<Self> {
        // Only plain HTTP on this machine is spoken; the TLS half is there because reqwest wants one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client =
            Client::builder().no_proxy().timeout(LIMIT).tls_backend_preconfigured(tls).build()?;
        let base = format!("http://{}", reachable(listen));
        Ok(Self { client, base, token: admin_token.map(str::to_owned) })
    }

    /// Why it is not ready, one line each; empty when it is. One that does not answer is not ready.
    pub(super) async fn reasons(&self) -> Vec<String> {
        match self.readyz().await {
            Ok(reasons) => reasons,
            Err(_cause) => vec![format!("nothing answers at {}", self.base)],
        }
    }

    async fn readyz(&self) -> reqwest::Result<Vec<String>> {
        let response = self.client.get(format!("{}/readyz", self.base)).send().await?;
        let status = response.status();
        let text = response.text().await?;
        Ok(match status {
            StatusCode::OK => Vec::new(),
            StatusCode::SERVICE_UNAVAILABLE => text.lines().map(str::to_owned).collect(),
            other => vec![format!("{}/readyz answers {other}: is that projector?", self.base)],
        })
    }

    /// Its status.
    ///
    /// # Errors
    /// When it does not answer in time, or refuses.
    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        let mut request = self.client.get(format!("{}/api/projections", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.context("no answer")?;
        if !response.status().is_success() {
            bail!("{} answers {}", self.base, response.status());
        }
        response.json().await.context("not a status")
    }
}

/// Where a listener can be reached from this machine: one bound to every address is not reached at
/// `0.0.0.0` on all systems.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(it) if it.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(it) if it.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        it => it,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_this_machines() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();

        assert_eq!(reached("0.0.0.0:4400"), "127.0.0.1:4400");
        assert_eq!(reached("[::]:4400"), "[::1]:4400");
        assert_eq!(reached("10.1.2.3:4400"), "10.1.2.3:4400");
    }

    #[tokio::test]
    async fn a_sidecar_that_is_not_there_is_not_ready() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);

        let reasons = Sidecar::new(address, None).unwrap().reasons().await;

        assert_eq!(reasons, [format!("nothing answers at http://{address}")]);
    }
}
