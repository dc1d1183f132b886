//! TLS as the hub speaks it: 1.2 and 1.3, a client certificate asked for and never required.

use std::sync::Arc;

use devicebound::hub::ClientCertificate;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CipherSuite, CommonState, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use super::certs::Certificates;
use super::device_certs::DeviceAuthorities;
use crate::Failure;

/// The cryptography behind every TLS connection of this crate.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The server side of TLS 1.2 and 1.3 for both ports.
///
/// # Errors
/// When certificate and key do not belong together.
pub fn server_config(certificates: Certificates) -> Result<Arc<ServerConfig>, Failure> {
    let provider = server_provider();
    let verifier = Arc::new(AnyCertificate { provider: Arc::clone(&provider) });
    let build = || {
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates.chain, certificates.key)
    };
    let mut config = build().map_err(|error| {
        Failure::new(
            format!("server.pem and server.key in the state folder cannot be used: {error}"),
            "remove both; the hub makes new ones of the same authority",
        )
    })?;
    config.ignore_client_order = true;
    // Devices stay connected for days, and few keep tickets: one that comes back makes a full handshake. Tickets would cost
    // each handshake two more messages, and the hub memory for sessions.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The same cryptography with AES-128 before AES-256: SHA-256, for which processors have instructions, makes a handshake
/// cheaper by a tenth than SHA-384, and the keys of the exchange have 128 bits of strength either way.
fn server_provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    // Stable: else in the order of rustls, so that TLS 1.3 stays before 1.2.
    let is_aes_128 = |suite: CipherSuite| {
        matches!(
            suite,
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
    Arc::new(provider)
}

/// The certificate that the client showed in a finished handshake, and whether one of the authorities stands behind it.
#[must_use]
pub fn client_certificate(
    connection: &CommonState,
    authorities: &DeviceAuthorities,
) -> Option<ClientCertificate> {
    authorities.judge(connection.peer_certificates()?)
}

/// Takes any certificate whose key the client holds.
///
/// A device may be known by the thumbprint of a self-signed certificate, so no chain is looked at here: whose
/// certificate it is, and who stands behind it, gets decided at CONNECT. That the client holds the key is checked, or a copied certificate would do.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
