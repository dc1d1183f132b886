//! Which certificate a client is shown: one that it can use and that is for the name it asks for. They are exchanged while
//! the hub runs.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::CipherSuite;
use rustls::SignatureAlgorithm;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::Failure;
use crate::state::certs::ServerCertificate;
use crate::state::provider::provider;

/// The certificates of a hub.
#[derive(Debug)]
pub struct Offer(RwLock<Certificates>);

#[derive(Debug, Default)]
struct Certificates {
    /// The owner's.
    own: Vec<Arc<CertifiedKey>>,
    /// Those of the hub's own authority.
    issued: Vec<Arc<CertifiedKey>>,
}

impl Offer {
    /// Certificates of the owner, and those of the hub's own authority.
    ///
    /// # Errors
    /// When a certificate and its key do not belong together, or the key is of no kind that can be used.
    pub fn new(own: Vec<ServerCertificate>, issued: Vec<ServerCertificate>) -> Result<Arc<Self>, Failure> {
        let certificates = Certificates { own: certify_all(own)?, issued: certify_all(issued)? };
        Ok(Arc::new(Self(RwLock::new(certificates))))
    }

    /// The certificates without their chains, in the order in which they are offered.
    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let certificates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = certificates.own.iter().chain(&certificates.issued);
        all.filter_map(|key| key.cert.first().cloned()).collect()
    }

    /// From now on these are the owner's.
    ///
    /// # Errors
    /// As [`new`](Self::new); what was shown before is shown on.
    pub fn exchange_own(&self, own: Vec<ServerCertificate>) -> Result<(), Failure> {
        let own = certify_all(own)?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).own = own;
        Ok(())
    }

    /// From now on these are those of the hub's own authority.
    ///
    /// # Errors
    /// As [`new`](Self::new); what was shown before is shown on.
    pub fn exchange_issued(&self, issued: Vec<ServerCertificate>) -> Result<(), Failure> {
        let issued = certify_all(issued)?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).issued = issued;
        Ok(())
    }
}

fn certify_all(certificates: Vec<ServerCertificate>) -> Result<Vec<Arc<CertifiedKey>>, Failure> {
    let certify = |ServerCertificate { chain, key }| {
        CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(|error| {
            Failure::new(
                format!("a server certificate cannot be used: {error}"),
                "give --cert and --key as PEM files of one pair; of the hub's own, server*.pem and server*.key in the state folder, remove both",
            )
        })
    };
    certificates.into_iter().map(certify).collect()
}

impl ResolvesServerCert for Offer {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Certificates { own, issued } = &*certificates;
        // By its own certificate a hub is known elsewhere; on this machine, as localhost, by that of its authority.
        let is_for_issued = hello.server_name().is_some_and(|name| {
            !own.iter().any(|own| covers(own, name)) && issued.iter().any(|issued| covers(issued, name))
        });
        let (first, second) = if is_for_issued { (issued, own) } else { (own, issued) };
        let all = || first.iter().chain(second);
        // To a client that can use none, the first shows what there is: the handshake says what is missing.
        all().find(|key| can_use(key, &hello)).or_else(|| all().next()).cloned()
    }
}

fn covers(key: &CertifiedKey, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    let Ok(certificate) = key.end_entity_cert() else { return false };
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

/// Whether a client can verify what is signed with this key, in one of the suites that it offers.
fn can_use(key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
    if key.key.choose_scheme(hello.signature_schemes()).is_none() {
        return false;
    }
    let suites = hello.cipher_suites();
    // The suites of TLS 1.3 (RFC 8446 §B.4) leave the kind of key open, those of TLS 1.2 name it.
    let is_tls13 = |suite: &CipherSuite| {
        matches!(
            suite,
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        )
    };
    suites.iter().any(|suite| is_tls13(suite) || names_key(*suite, key.key.algorithm()))
}

fn names_key(suite: CipherSuite, key: SignatureAlgorithm) -> bool {
    match suite {
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            matches!(key, SignatureAlgorithm::ECDSA | SignatureAlgorithm::ED25519)
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => key == SignatureAlgorithm::RSA,
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, SupportedCipherSuite};

    use super::*;
    use crate::state::StateDir;
    use crate::state::certs::load_or_make_all;
    use crate::state::device_certs::self_signed;
    use crate::transport::tls::server_config_with;

    /// Which certificate a client is shown that asks for this name and offers these suites.
    fn shown(
        offer: &Arc<Offer>,
        name: &'static str,
        suites: impl Fn(CipherSuite) -> bool,
    ) -> Result<CertificateDer<'static>, rustls::Error> {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites.retain(|suite| suites(suite.suite()));
        let is_tls13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();
        let mut versions = Vec::new();
        if provider.cipher_suites.iter().any(is_tls13) {
            versions.push(&rustls::version::TLS13);
        }
        if !provider.cipher_suites.iter().all(is_tls13) {
            versions.push(&rustls::version::TLS12);
        }
        let (client, _) = shake(offer, name, Arc::new(provider), &versions, Arc::new(Nobody))?;
        Ok(client.peer_certificates().map(|chain| chain[0].clone().into_owned()).unwrap())
    }

    /// Shows no certificate.
    #[derive(Debug)]
    struct Nobody;

    impl rustls::client::ResolvesClientCert for Nobody {
        fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }

        fn has_certs(&self) -> bool {
            false
        }
    }

    /// A whole handshake without sockets.
    pub(crate) fn shake(
        offer: &Arc<Offer>,
        name: &'static str,
        provider: Arc<rustls::crypto::CryptoProvider>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        shown: Arc<dyn rustls::client::ResolvesClientCert>,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_client_cert_resolver(shown);
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap())?;
        let mut server = ServerConnection::new(server_config_with(offer).unwrap())?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut sent = bytes.as_slice();
            while !sent.is_empty() {
                server.read_tls(&mut sent).unwrap();
                server.process_new_packets()?;
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut sent = bytes.as_slice();
            while !sent.is_empty() {
                client.read_tls(&mut sent).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok((client, server))
    }

    /// Looks at nothing but the signature.
    #[derive(Debug)]
    struct AnyServer;

    impl rustls::client::danger::ServerCertVerifier for AnyServer {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &provider().signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    }

    pub(crate) fn own(name: &str) -> ServerCertificate {
        let made = self_signed(name, Duration::from_secs(3600)).unwrap();
        ServerCertificate {
            chain: vec![CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap()],
            key: PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap(),
        }
    }

    #[test]
    fn each_client_is_shown_a_certificate_of_the_kind_that_it_takes() {
        let folder = tempfile::tempdir().unwrap();
        let made = load_or_make_all(&StateDir::open(folder.path()).unwrap(), &[]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.servers[0].chain[1].clone()).unwrap();
        let [ecdsa, rsa] = [0, 1].map(|index| made.servers[index].chain[0].clone());
        let offer = Offer::new(Vec::new(), made.servers).unwrap();
        let has = |suite: CipherSuite, text: &str| format!("{suite:?}").contains(text);
        for (wanted, suites) in [("any", ""), ("ECDSA", "ECDHE_ECDSA"), ("TLS 1.3", "TLS13")] {
            assert_eq!(shown(&offer, "localhost", |suite| has(suite, suites)).unwrap(), ecdsa, "{wanted}");
        }
        assert_eq!(shown(&offer, "localhost", |suite| has(suite, "ECDHE_RSA")).unwrap(), rsa);
    }

    #[test]
    fn the_owners_certificate_is_shown_by_its_name_and_localhost_stays_the_hubs() {
        let folder = tempfile::tempdir().unwrap();
        let issued = load_or_make_all(&StateDir::open(folder.path()).unwrap(), &[]).unwrap().servers;
        let hubs = issued[0].chain[0].clone();
        let (first, second) = (own("hub.example"), own("hub.example"));
        let [one, other] = [&first, &second].map(|own| own.chain[0].clone());
        let offer = Offer::new(vec![first], issued).unwrap();
        let any = |_| true;
        assert_eq!(shown(&offer, "hub.example", any).unwrap(), one);
        assert_eq!(shown(&offer, "localhost", any).unwrap(), hubs);
        offer.exchange_own(vec![second]).unwrap();
        assert_eq!(shown(&offer, "hub.example", any).unwrap(), other);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_the_old_one_is_shown_on() {
        let (first, second, third) = (own("a.example"), own("a.example"), own("a.example"));
        let shown_first = first.chain[0].clone();
        let offer = Offer::new(vec![first], Vec::new()).unwrap();
        let mixed = ServerCertificate { chain: second.chain, key: third.key };
        assert!(offer.exchange_own(vec![mixed]).unwrap_err().cause().contains("cannot be used"));
        assert_eq!(shown(&offer, "a.example", |_| true).unwrap(), shown_first);
    }
}
