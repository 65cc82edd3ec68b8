//! `sslmode` as rustls understands it.
//!
//! | sslmode | chain | name |
//! |---|---|---|
//! | allow, prefer, require | only when `sslrootcert` is given | no |
//! | verify-ca | yes | no |
//! | verify-full | yes | yes |
//!
//! A certificate that is itself in the root file is trusted: self-signed servers are common. Unlike
//! OpenSSL, rustls wants the name among the subject's alternative names, not in its common name, and
//! takes X.509 version 3 only where a chain is checked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, ID_MD_5, ID_SHA_1,
    MD_5_WITH_RSA_ENCRYPTION, SHA_1_WITH_RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION,
    SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};

use crate::pg::settings::{RootCertificates, Settings, SslMode};

/// The root certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is not PEM.
    #[error("cannot read root certificates from `{}`", file.display())]
    File {
        /// `sslrootcert`.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file, or the system, has none.
    #[error("no root certificate in {0}")]
    Empty(String),
    /// rustls refuses to be configured so.
    #[error("rustls cannot be set up")]
    Setup(#[source] Error),
}

impl TlsError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::File { .. } => Some("sslrootcert is a PEM file, or `system`".to_owned()),
            Self::Empty(_) => Some("name the authority's PEM file with sslrootcert".to_owned()),
            Self::Setup(_) => None,
        }
    }
}

/// The TLS side of `settings`, with ring's cryptography.
///
/// # Errors
/// When certificates have to be checked and the authorities cannot be read.
pub fn client_config(settings: &Settings) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let check_name = settings.sslmode == SslMode::VerifyFull;
    let check_chain =
        check_name || settings.sslmode == SslMode::VerifyCa || settings.root_certificates.is_some();
    let trust = if check_chain {
        let certificates = authorities(settings.root_certificates.as_ref())?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        Some(Trust { roots, certificates, check_name })
    } else {
        None
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { trust, algorithms }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// For servers on the web: trusts the machine's certificate authorities, those of its company among
/// them.
pub fn web() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn authorities(given: Option<&RootCertificates>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (certificates, origin) = match given {
        Some(RootCertificates::File(file)) => {
            let failed = |source| TlsError::File { file: file.clone(), source };
            let text = std::fs::read(file).map_err(failed)?;
            let certificates: Result<Vec<_>, pem::Error> =
                CertificateDer::pem_slice_iter(&text).collect();
            let certificates = certificates.map_err(|error| failed(io::Error::other(error)))?;
            (certificates, format!("`{}`", file.display()))
        }
        Some(RootCertificates::System) | None => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(error = %error, "some of the system's root certificates cannot be read");
            }
            (found.certs, "the system's store".to_owned())
        }
    };
    if certificates.is_empty() { Err(TlsError::Empty(origin)) } else { Ok(certificates) }
}

#[derive(Debug)]
struct Verifier {
    trust: Option<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Trust {
    roots: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(certificate)?;
        if trust.certificates.contains(certificate) {
            check_dates(certificate, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &trust.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        if trust.check_name {
            verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A certificate that is trusted as it is has no chain whose dates rustls would check.
fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate.validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if validity.not_after.to_unix_duration().as_secs() < now.as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// What ties a SCRAM log-in to a TLS connection (`tls-server-end-point`, RFC 5929).
///
/// It is the server certificate, hashed with the hash of its own signature, MD5 and SHA-1 replaced by SHA-256. `None`
/// when that signature has no such hash (Ed25519), or the certificate cannot be read.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = Certificate::from_der(certificate).ok()?.signature_algorithm.oid;
    let digest = match algorithm {
        ID_MD_5
        | ID_SHA_1
        | MD_5_WITH_RSA_ENCRYPTION
        | SHA_1_WITH_RSA_ENCRYPTION
        | SHA_256_WITH_RSA_ENCRYPTION
        | ECDSA_WITH_SHA_256 => Sha256::digest(certificate).to_vec(),
        SHA_384_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_384 => Sha384::digest(certificate).to_vec(),
        SHA_512_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_512 => Sha512::digest(certificate).to_vec(),
        _ => return None,
    };
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse(text, |name| (name == "USER").then(|| "me".to_owned())).unwrap()
    }

    #[test]
    fn a_root_file_that_is_not_there_is_named() {
        let error = client_config(&settings("host=h sslmode=verify-ca sslrootcert=/no/ca.pem"));

        assert_eq!(
            error.unwrap_err().to_string(),
            "cannot read root certificates from `/no/ca.pem`"
        );
    }

    #[test]
    fn require_needs_no_authorities() {
        assert!(client_config(&settings("host=h sslmode=require")).is_ok());
    }

    #[test]
    fn what_is_no_certificate_has_no_digest() {
        assert_eq!(server_end_point(b"not a certificate"), None);
    }
}
