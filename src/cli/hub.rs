//! The embedded Realtime, as configured.

use std::path::Path;
use std::sync::Arc;

use crate::cli::{Exit, Failure};
use crate::config::{Config, Secret};
use crate::metrics::Metrics;
use crate::pg::Settings;
use crate::realtime::hub::{Hub, Jwks, Keys, Limits, Patience};

/// The fewest bytes of a secret: with fewer it could be guessed from a token.
const SHORTEST: usize = 32;

/// A hub that checks tokens with the configured keys. It listens once its routes are served.
pub(super) fn hub(
    config: &Config,
    settings: &Settings,
    metrics: &Arc<Metrics>,
) -> Result<Hub, Failure> {
    let realtime = &config.realtime;
    let secret = realtime.jwt_secret.as_ref().map(Secret::expose);
    if secret.is_none() && realtime.jwks.is_none() {
        let failure = Failure::new("the embedded Realtime has no key to check tokens with");
        let hint = "give the secret that signs your users' tokens in \
                    PROJECTOR_REALTIME_JWT_SECRET (or …_FILE), or `realtime.jwks`";
        return Err(failure.hint(hint.to_owned()).exit(Exit::USAGE));
    }
    if secret.is_some_and(|it| it.len() < SHORTEST) {
        let failure =
            Failure::new(format!("`realtime.jwt_secret` is shorter than {SHORTEST} bytes"));
        let hint = "make one with: openssl rand -base64 48";
        return Err(failure.hint(hint.to_owned()).exit(Exit::USAGE));
    }
    let jwks = realtime.jwks.as_deref().map(jwks).transpose()?;
    let limits = Limits {
        sockets: realtime.sockets.get(),
        channels: realtime.channels.get(),
        queue_bytes: usize::try_from(realtime.queue.bytes()).unwrap_or(usize::MAX),
        recheck: realtime.recheck.duration(),
        patience: Patience::default(),
    };
    Ok(Hub::new(Keys::new(secret, jwks), settings.clone(), limits, Arc::clone(metrics)))
}

fn jwks(place: &str) -> Result<Jwks, Failure> {
    if !place.contains("://") && !Path::new(place).is_file() {
        return Err(Failure::new(format!("`realtime.jwks`: there is no file `{place}`"))
            .hint("give a file, or an address that starts with https://".to_owned())
            .exit(Exit::USAGE));
    }
    Jwks::new(place).map_err(|error| Failure::new("cannot make an HTTP client").caused_by(error))
}
