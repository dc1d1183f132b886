//! Which client certificates the TLS handshake takes: any whose key the client holds.
//!
//! A device may be known by the thumbprint of a self-signed certificate, so no chain is looked at here: whose certificate it
//! is, and which authority is behind it, gets decided at CONNECT. That the client holds the key is checked, or a copied
//! certificate would do.
//!
//! The signature is verified with the key from the certificate, and not by rustls' way through the whole of it: that knows
//! X.509 v3 only, and `openssl x509 -req` without extensions makes v1, which Azure takes.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::state::device_certs::CHAIN_MAX;

type Verified = Result<rustls::client::danger::HandshakeSignatureValid, Error>;

/// Takes any certificate whose key the client holds.
#[derive(Debug)]
pub(super) struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl AnyCertificate {
    pub(super) const fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }

    /// Verifies a signature with the key from a certificate, by one of the algorithms of its scheme.
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        is_tls13: bool,
    ) -> Verified {
        let key = SubjectPublicKeyInfoDer::from(key_of(certificate)?);
        let key =
            RawPublicKeyEntity::try_from(&key).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        let mapping = self.provider.signature_verification_algorithms.mapping;
        let algorithms = mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let algorithms = algorithms.map_or(&[][..], |(_, algorithms)| algorithms);
        // TLS 1.3 names the curve with the scheme: the first is the one (RFC 8446 §4.2.3).
        let algorithms = if is_tls13 { algorithms.get(..1).unwrap_or_default() } else { algorithms };
        let verifies = |algorithm: &&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
            key.verify_signature(*algorithm, message, signed.signature()).is_ok()
        };
        if algorithms.iter().any(verifies) {
            return Ok(rustls::client::danger::HandshakeSignatureValid::assertion());
        }
        Err(CertificateError::BadSignature.into())
    }
}

/// The public key of a certificate of any version, as it was encoded.
fn key_of<'c>(certificate: &'c CertificateDer<'_>) -> Result<&'c [u8], Error> {
    let parsed = X509Certificate::from_der(certificate);
    let (_, parsed) = parsed.map_err(|_| Error::from(CertificateError::BadEncoding))?;
    Ok(parsed.tbs_certificate.subject_pki.raw)
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
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        key_of(end_entity)?;
        if intermediates.len() >= CHAIN_MAX {
            let shown = intermediates.len().saturating_add(1);
            return Err(Error::General(format!("the client showed a chain of {shown} certificates")));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verified {
        self.verify(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verified {
        // PKCS #1 v1.5 and SHA-1 are for certificates alone there (RFC 8446 §4.2.3).
        let is_for_certificates = matches!(
            signed.scheme,
            SignatureScheme::RSA_PKCS1_SHA1
                | SignatureScheme::ECDSA_SHA1_Legacy
                | SignatureScheme::RSA_PKCS1_SHA256
                | SignatureScheme::RSA_PKCS1_SHA384
                | SignatureScheme::RSA_PKCS1_SHA512
        );
        if is_for_certificates {
            return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        self.verify(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::client::ResolvesClientCert;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::sign::CertifiedKey;

    use super::super::offer::Offer;
    use super::super::offer::tests::{own, shake};
    use super::*;
    use crate::state::device_certs::{self_signed, tests::as_v1};
    use crate::state::provider::provider;

    /// Shows what it is given, whatever that is.
    #[derive(Debug)]
    struct Shown(Arc<CertifiedKey>);

    impl ResolvesClientCert for Shown {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    /// A device's certificate of version 1, and keys.
    fn v1() -> (CertificateDer<'static>, [PrivateKeyDer<'static>; 2]) {
        let made = self_signed("pump", Duration::from_secs(3600)).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap();
        let key = rcgen::KeyPair::from_pem(&made.key).unwrap();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let keys = [made.key, other].map(|pem| PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap());
        (as_v1(&certificate, &key), keys)
    }

    fn offer() -> Arc<Offer> {
        Offer::new(vec![own("hub.example")], Vec::new()).unwrap()
    }

    /// A handshake in one version of TLS, in which the client shows this chain.
    fn show(
        version: &'static rustls::SupportedProtocolVersion,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<(), Error> {
        let key = provider().key_provider.load_private_key(key.clone_key()).unwrap();
        let shown = Shown(Arc::new(CertifiedKey::new(chain, key)));
        let (_, server) = shake(&offer(), "hub.example", provider(), &[version], Arc::new(shown))?;
        assert!(server.peer_certificates().is_some());
        Ok(())
    }

    #[test]
    fn a_client_certificate_of_version_1_is_taken_if_the_client_has_its_key() {
        let (certificate, [own, other]) = v1();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            show(version, vec![certificate.clone()], &own).unwrap();
            let refused = show(version, vec![certificate.clone()], &other).unwrap_err();
            assert_eq!(refused, Error::InvalidCertificate(CertificateError::BadSignature));
        }
    }

    #[test]
    fn a_chain_of_junk_ends_the_handshake_before_anything_of_it_is_verified() {
        let (certificate, [own, _]) = v1();
        let version = &rustls::version::TLS13;
        show(version, vec![certificate.clone(); CHAIN_MAX], &own).unwrap();
        let refused = show(version, vec![certificate; 90], &own).unwrap_err();
        assert!(refused.to_string().contains("a chain of 90 certificates"), "{refused}");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let (_, [own, _]) = v1();
        let junk = CertificateDer::from(vec![0x30, 0x03, 2, 1, 1]);
        let refused = show(&rustls::version::TLS12, vec![junk], &own).unwrap_err();
        assert_eq!(refused, Error::InvalidCertificate(CertificateError::BadEncoding));
    }
}
