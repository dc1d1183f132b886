//! TLS as the hub speaks it: 1.2 and 1.3, a client certificate asked for and never required.

use std::sync::Arc;

use devicebound::hub::{ClientCertificate, ServerName, TlsClient};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{CipherSuite, CommonState, ServerConfig};

use super::any_certificate::AnyCertificate;
use super::offer::Offer;
use crate::Failure;
use crate::state::certs::Certificates;
use crate::state::device_certs::DeviceAuthorities;

/// The server side of TLS 1.2 and 1.3 for both ports.
///
/// # Errors
/// When certificate and key do not belong together.
pub fn server_config(certificates: Certificates) -> Result<Arc<ServerConfig>, Failure> {
    server_config_with(&Offer::new(Vec::new(), certificates.servers)?)
}

/// The same with certificates that are exchanged while the hub runs.
///
/// # Errors
/// When the cryptography has no version of TLS.
pub fn server_config_with(offer: &Arc<Offer>) -> Result<Arc<ServerConfig>, Failure> {
    let provider = server_provider();
    let verifier = Arc::new(AnyCertificate::new(Arc::clone(&provider)));
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(
            |error| Failure::new(format!("TLS cannot be used: {error}"), "build with TLS 1.2 and 1.3"),
        )?;
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Offer>::clone(offer);
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
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

/// What a client showed in a finished handshake.
#[derive(Clone, Debug)]
pub struct ShownCertificate {
    /// What the hub machine looks at.
    pub judged: ClientCertificate,
    /// All certificates that it sent, its own first.
    pub chain: Arc<[CertificateDer<'static>]>,
}

/// A certificate that is known, and no more than that.
impl From<ClientCertificate> for ShownCertificate {
    fn from(judged: ClientCertificate) -> Self {
        Self { judged, chain: Arc::default() }
    }
}

/// What a TLS handshake told of a client.
#[derive(Clone, Debug)]
pub struct TlsPeer {
    /// The certificate that it showed.
    pub certificate: Option<ShownCertificate>,
    /// The server that it asked for (SNI).
    pub server_name: Option<Box<str>>,
}

impl TlsPeer {
    /// What a finished handshake told, and whether one of the authorities stands behind the certificate.
    #[must_use]
    pub fn of(
        connection: &CommonState,
        authorities: &DeviceAuthorities,
        server_name: Option<Box<str>>,
    ) -> Self {
        let shown = |chain: &[CertificateDer<'_>]| {
            let owned = chain.iter().map(|certificate| certificate.clone().into_owned());
            Some(ShownCertificate { judged: authorities.judge(chain)?, chain: owned.collect() })
        };
        Self { certificate: connection.peer_certificates().and_then(shown), server_name }
    }

    /// The same for the machine.
    #[must_use]
    pub fn client(&self) -> TlsClient<'_> {
        let server_name = self.server_name.as_deref().map_or(ServerName::Absent, ServerName::Name);
        TlsClient { certificate: self.certificate.as_ref().map(|shown| &shown.judged), server_name }
    }

    /// All certificates that it sent.
    pub(crate) fn chain(&self) -> Option<Arc<[CertificateDer<'static>]>> {
        self.certificate.as_ref().map(|shown| Arc::clone(&shown.chain))
    }
}
