//! Published keys.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use projector::realtime::hub::sign;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::support::app::App;
use crate::support::eventually::eventually;
use crate::support::hub::{Live, in_seconds};

/// An issuer's key.
struct Issuer {
    name: &'static str,
    pair: EcdsaKeyPair,
}

impl Issuer {
    fn new(name: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        Self { name, pair }
    }

    fn published(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.name, "x": x, "y": y })
    }

    fn token(&self, algorithm: &str) -> String {
        let header = json!({ "alg": algorithm, "kid": self.name }).to_string();
        let claims = json!({ "role": "authenticated", "exp": in_seconds(600) }).to_string();
        let text = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64.encode(signature))
    }
}

#[tokio::test]
async fn tokens_of_published_keys_count_and_a_new_key_is_found_by_its_name() {
    let (old, new, stranger) = (Issuer::new("old"), Issuer::new("new"), Issuer::new("new"));
    let set = Arc::new(Mutex::new(json!({ "keys": [{ "kty": "other" }, old.published()] })));
    // the first answer comes at once, the others when they are let
    let (served, asked, let_go) =
        (Arc::clone(&set), Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(1)));
    let (counted, gate) = (Arc::clone(&asked), Arc::clone(&let_go));
    let answer = move || async move {
        counted.fetch_add(1, SeqCst);
        gate.acquire().await.unwrap().forget();
        served.lock().unwrap().to_string()
    };
    let router = Router::new().route("/jwks.json", get(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let live = Live::with(App::bare(&[]).await, &[("PROJECTOR_REALTIME_JWKS", &url)]).await;

    assert!(live.try_connect(&old.token("ES256"), "2.0.0").await.is_ok());
    let unknown = live.try_connect(&new.token("ES256"), "2.0.0").await.err();
    let text = json!({ "error": "Failed to generate JWT signer" }).to_string();
    assert_eq!(unknown, Some((401, text)));

    *set.lock().unwrap() = json!({ "keys": [new.published()] });

    let joins = async {
        eventually("the new key", async || {
            live.try_connect(&new.token("ES256"), "2.0.0").await.map(drop)
        })
        .await;
    };
    let waits = async {
        eventually("a reading", async || match asked.load(SeqCst) {
            1 => Err("one"),
            _ => Ok(()),
        })
        .await;
        // whose key is there does not wait for those whose key has to be looked for
        assert!(live.try_connect(&old.token("ES256"), "2.0.0").await.is_ok());
        let_go.add_permits(100);
    };
    tokio::join!(joins, waits);
    let gone = live.try_connect(&old.token("ES256"), "2.0.0").await.err();
    assert_eq!(gone.map(|it| it.0), Some(401));
    let forged = live.try_connect(&stranger.token("ES256"), "2.0.0").await.err();
    assert_eq!(forged.map(|it| it.0), Some(401));
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let issuer = Issuer::new("key");
    let app = App::bare(&[]).await;
    let file = app.projections().join("jwks.json");
    std::fs::write(&file, json!({ "keys": [issuer.published()] }).to_string()).unwrap();
    let live = Live::with(app, &[("PROJECTOR_REALTIME_JWKS", file.to_str().unwrap())]).await;
    assert!(live.try_connect(&issuer.token("ES256"), "2.0.0").await.is_ok());

    let claims = json!({ "role": "service_role", "exp": in_seconds(600) });
    let jwk = issuer.published();
    let point = issuer.pair.public_key().as_ref().to_vec();
    let secrets =
        [jwk.to_string(), jwk["x"].to_string(), point.iter().map(|it| char::from(*it)).collect()];
    for secret in secrets {
        let forged = sign(&secret, &claims).unwrap();
        let refused = live.try_connect(&forged, "2.0.0").await.err();
        assert_eq!(refused.map(|it| it.0), Some(401));
    }
    for algorithm in ["none", "HS256", "RS256", "ES384", "EdDSA"] {
        let odd = live.try_connect(&issuer.token(algorithm), "2.0.0").await.err();
        assert_eq!(odd.map(|it| it.0), Some(401), "{algorithm}");
    }
}
