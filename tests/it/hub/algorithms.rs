//! Every algorithm of published keys, with tokens that another implementation has signed.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::App;
use crate::support::hub::{Live, anon, in_seconds};
use crate::support::node::Node;

/// What `issuer.mjs` makes for an algorithm.
#[derive(Deserialize)]
struct Issuer {
    alg: String,
    jwk: Value,
    pem: String,
    token: String,
    forged: String,
    swapped: Option<String>,
}

/// An issuer for each algorithm, whose tokens have these claims.
fn issuers(claims: &Value) -> Vec<Issuer> {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/js/issuer.mjs"));
    let mut command = Node::get().command();
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(claims.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A sidecar that knows these keys.
async fn knowing(app: App, keys: &[&Value]) -> Live {
    let file = app.projections().join("jwks.json");
    std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    Live::with(app, &[("PROJECTOR_REALTIME_JWKS", file.to_str().unwrap())]).await
}

async fn refusal(live: &Live, token: &str) -> Option<(u16, String)> {
    live.try_connect(token, "2.0.0").await.err()
}

/// How a connection is refused.
fn refused(text: &str) -> Option<(u16, String)> {
    Some((401, json!({ "error": text }).to_string()))
}

#[tokio::test]
async fn tokens_of_every_algorithm_count_if_their_own_key_has_signed_them() {
    let project = Uuid::new_v4();
    let claims = json!({ "role": "authenticated", "exp": in_seconds(3600), "project_id": project });
    let issuers = tokio::task::spawn_blocking(move || issuers(&claims)).await.unwrap();
    let keys: Vec<_> = issuers.iter().map(|it| &it.jwk).collect();
    let live = knowing(App::shipped().await, &keys).await;
    let topic = format!("project:{project}");
    let mut wire = live.connect(&anon(), "2.0.0").await;

    for Issuer { alg, token, forged, swapped, .. } in &issuers {
        assert!(live.try_connect(token, "2.0.0").await.is_ok(), "{alg}");
        assert_eq!(wire.join(&topic, true, Some(token)).await["status"], "ok", "{alg}");

        let signature = refused("Failed to validate JWT signature");
        assert_eq!(refusal(&live, forged).await, signature, "{alg}, a stranger's");
        if let Some(swapped) = swapped {
            assert_eq!(refusal(&live, swapped).await, signature, "{alg}, another way");
        }
        let joined = wire.join(&topic, true, Some(forged)).await;
        let reason = "JwtSignatureError: Failed to validate JWT signature";
        assert_eq!(joined["response"]["reason"], reason, "{alg}");
    }
    let names: Vec<_> = issuers.iter().map(|it| it.alg.as_str()).collect();
    let wanted = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    assert_eq!(names, wanted);
}

#[tokio::test]
async fn a_key_that_names_no_algorithm_is_for_all_of_its_kind_and_for_no_other() {
    let claims = json!({ "role": "authenticated", "exp": in_seconds(3600) });
    let mut issuers = tokio::task::spawn_blocking(move || issuers(&claims)).await.unwrap();
    for it in &mut issuers {
        it.jwk.as_object_mut().unwrap().remove("alg");
    }
    let keys: Vec<_> = issuers.iter().map(|it| &it.jwk).collect();
    let live = knowing(App::bare(&[]).await, &keys).await;

    for (number, Issuer { alg, token, swapped, .. }) in issuers.iter().enumerate() {
        for token in [Some(token), swapped.as_ref()].into_iter().flatten() {
            assert_eq!(refusal(&live, token).await, None, "{alg}");
        }
        // its signature under the name of a key of another kind
        let [_, claims, signature] =
            <[&str; 3]>::try_from(token.split('.').collect::<Vec<_>>()).unwrap();
        let kind = |it: &Issuer| (it.jwk["kty"].clone(), it.jwk["crv"].clone());
        for other in issuers.iter().filter(|it| kind(it) != kind(&issuers[number])) {
            let header = json!({ "alg": alg, "kid": other.jwk["kid"] }).to_string();
            let moved = format!("{}.{claims}.{signature}", BASE64.encode(header));
            let text = refused("Failed to validate JWT signature");
            assert_eq!(refusal(&live, &moved).await, text, "{alg} by {}", other.alg);
        }
    }
}

#[tokio::test]
async fn no_public_key_is_taken_for_the_secret() {
    let claims = json!({ "role": "service_role", "exp": in_seconds(3600) });
    let text = claims.to_string();
    let issuers = tokio::task::spawn_blocking(move || issuers(&claims)).await.unwrap();
    let keys: Vec<_> = issuers.iter().map(|it| &it.jwk).collect();
    let live = knowing(App::bare(&[]).await, &keys).await;

    for it in &issuers {
        let der: String = it.pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::prelude::BASE64_STANDARD.decode(der).unwrap();
        let secrets = [it.pem.as_bytes(), it.pem.trim_end().as_bytes(), &der];
        for (secret, kid) in secrets.iter().flat_map(|it| [(it, false), (it, true)]) {
            for (name, hash) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
                let mut header = json!({ "alg": name });
                if kid {
                    header["kid"] = it.jwk["kid"].clone();
                }
                let signed =
                    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(&text));
                let tag = hmac::sign(&hmac::Key::new(hash, secret), signed.as_bytes());
                let forged = format!("{signed}.{}", BASE64.encode(tag));
                let wanted = refused("Failed to validate JWT signature");
                assert_eq!(refusal(&live, &forged).await, wanted, "{name} with {}", it.alg);
            }
        }
    }
}
