//! Where broadcasts go, as it is configured.

use reqwest::header::HeaderValue;

use crate::config::{Realtime, RealtimeMode, Secret};
use crate::realtime::hub::Hub;

/// Where broadcasts go.
#[derive(Clone, Debug)]
pub enum Target {
    /// To a Supabase Realtime, through its HTTP API.
    Http(Gateway),
    /// Into the table that a Supabase Realtime follows.
    Sql,
    /// To the clients of this process.
    Embedded(Hub),
}

/// How to reach a Realtime over HTTP.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The address of the batch endpoint.
    pub endpoint: String,
    /// The Host header, where it is not the address': without a gateway it names the tenant.
    pub host: Option<HeaderValue>,
    /// For the header `apikey`.
    pub key: HeaderValue,
    /// For the header `Authorization`: a JWT. Secret keys are none, and are refused there.
    pub bearer: Option<HeaderValue>,
}

/// `[realtime]` does not say all that its mode needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// A key is missing.
    #[error("`realtime.mode` is http, and `realtime.{0}` is not set")]
    Missing(&'static str),
    /// A key cannot be a header.
    #[error("`realtime.{0}` has characters that no HTTP header may have")]
    Header(&'static str),
}

impl TargetError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing("url") => {
                "the project's address: url = \"https://<project>.supabase.co\"".to_owned()
            }
            Self::Missing(_) => {
                "a secret key (sb_secret_…) or the service_role JWT, as PROJECTOR_REALTIME_KEY or \
                 in a file that PROJECTOR_REALTIME_KEY_FILE names"
                    .to_owned()
            }
            Self::Header(_) => "is there a line end or a blank too many in it?".to_owned(),
        }
    }
}

impl Target {
    /// What `[realtime]` says; `None` when broadcasts go nowhere. `hub` is who serves the clients of this process.
    ///
    /// # Errors
    /// When something is missing that the mode needs.
    pub fn of(config: &Realtime, hub: Option<&Hub>) -> Result<Option<Self>, TargetError> {
        Ok(match config.mode.unwrap_or(RealtimeMode::Off) {
            RealtimeMode::Off => None,
            RealtimeMode::Sql => Some(Self::Sql),
            RealtimeMode::Embedded => hub.cloned().map(Self::Embedded),
            RealtimeMode::Http => Some(Self::Http(Gateway::of(config)?)),
        })
    }

    /// Who serves the clients of this process.
    pub fn hub(&self) -> Option<&Hub> {
        match self {
            Self::Embedded(hub) => Some(hub),
            Self::Http(_) | Self::Sql => None,
        }
    }

    /// As configuration, status and metrics spell it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => RealtimeMode::Http.as_str(),
            Self::Sql => RealtimeMode::Sql.as_str(),
            Self::Embedded(_) => RealtimeMode::Embedded.as_str(),
        }
    }
}

impl Gateway {
    fn of(config: &Realtime) -> Result<Self, TargetError> {
        let url = config.url.as_ref().ok_or(TargetError::Missing("url"))?.as_str();
        let key = config.key.as_ref().map(Secret::expose).unwrap_or_default();
        if key.is_empty() {
            return Err(TargetError::Missing("key"));
        }
        // people copy the address of the WebSocket's folder
        let url = url.strip_suffix("/realtime/v1").unwrap_or(url);
        let path = if config.host.is_some() { "" } else { "/realtime/v1" };
        let host = config.host.as_ref().map(|it| HeaderValue::from_str(it)).transpose();
        let is_jwt = !key.starts_with("sb_");
        Ok(Self {
            endpoint: format!("{url}{path}/api/broadcast"),
            host: host.map_err(|_| TargetError::Header("host"))?,
            key: secret(key)?,
            bearer: is_jwt.then(|| secret(&format!("Bearer {key}"))).transpose()?,
        })
    }
}

fn secret(text: &str) -> Result<HeaderValue, TargetError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| TargetError::Header("key"))?;
    // so that it is not printed
    value.set_sensitive(true);
    Ok(value)
}
