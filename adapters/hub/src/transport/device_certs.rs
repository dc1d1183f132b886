//! Certificates of devices: by the authority of this hub, or signed by themselves.

use std::path::PathBuf;
use std::time::Duration;

use devicebound::hub::ClientCertificate;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::{self, Authority, Files, cannot_make};
use super::tls::provider;
use crate::Failure;
use crate::state::StateDir;

const AUTHORITY: Files = Files {
    certificate: "device-ca.pem",
    key: "device-ca.key",
    name: "devicebound device authority",
    when_lost: "devices then need new certificates",
};

/// A certificate with its key, as PEM.
#[derive(Clone, Debug)]
pub struct DeviceCertificate {
    /// The certificate, with that of the authority behind it if one has signed it.
    pub chain: String,
    /// The private key.
    pub key: String,
    /// SHA-1 and SHA-256 of the certificate, in upper-case hex, as the registry wants them.
    pub thumbprints: (String, String),
}

/// A certificate for a device, signed by the hub's own authority for devices, which is made if it is missing. Its common
/// name is the client id.
///
/// # Errors
/// When the state folder cannot be used.
pub fn issue(state: &StateDir, client_id: &str, life: Duration) -> Result<DeviceCertificate, Failure> {
    let authority = Authority::load_or_make(state, &AUTHORITY)?;
    let (certificate, key) = authority.issue(params(client_id, life))?;
    let thumbprints = thumbprints_of(&certificate)?;
    Ok(DeviceCertificate { chain: certificate + authority.certificate_pem(), key, thumbprints })
}

/// A certificate that nobody but the device has signed.
///
/// # Errors
/// When no key can be made.
pub fn self_signed(client_id: &str, life: Duration) -> Result<DeviceCertificate, Failure> {
    let failed = |error| cannot_make("the certificate", &error);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params(client_id, life).self_signed(&key).map_err(failed)?;
    let chain = certificate.pem();
    let thumbprints = thumbprints_of(&chain)?;
    Ok(DeviceCertificate { chain, key: key.serialize_pem(), thumbprints })
}

/// Where the authority for devices is; made if it is missing.
///
/// # Errors
/// When the state folder cannot be used.
pub fn authority_path(state: &StateDir) -> Result<PathBuf, Failure> {
    Authority::load_or_make(state, &AUTHORITY)?;
    Ok(state.file(AUTHORITY.certificate))
}

fn params(client_id: &str, life: Duration) -> CertificateParams {
    let mut params = authority::lasting(life);
    params.distinguished_name.push(DnType::CommonName, client_id);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn thumbprints_of(pem: &str) -> Result<(String, String), Failure> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| Failure::new(format!("a certificate that was just made: {error}"), "try again"))?;
    Ok(thumbprints(&certificate))
}

/// SHA-1 and SHA-256 in upper-case hex.
fn thumbprints(certificate: &CertificateDer<'_>) -> (String, String) {
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02X}")).collect();
    (hex(&Sha1::digest(certificate)), hex(&Sha256::digest(certificate)))
}

/// The authorities whose word is taken for who a device is.
///
/// The default trusts nobody: devices are then known by thumbprints alone.
#[derive(Clone, Debug, Default)]
pub struct DeviceAuthorities {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl DeviceAuthorities {
    /// The hub's own authority for devices, which is made if it is missing, and those in further PEM files.
    ///
    /// # Errors
    /// When a file cannot be read or holds no certificate.
    pub fn load(state: &StateDir, further: &[PathBuf]) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        let own = Authority::load_or_make(state, &AUTHORITY)?.certificate()?;
        let unusable = |file: &str, error: &dyn std::fmt::Display| {
            Failure::new(
                format!("{file} cannot be used: {error}"),
                "name a PEM file with certificates of authorities",
            )
        };
        roots.add(own).map_err(|error| unusable(AUTHORITY.certificate, &error))?;
        for path in further {
            let name = path.display().to_string();
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| unusable(&name, &error))?;
            let before = roots.len();
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unusable(&name, &error))?;
                roots.add(certificate).map_err(|error| unusable(&name, &error))?;
            }
            if roots.len() == before {
                return Err(unusable(&name, &"it holds no certificate"));
            }
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider())
            .build()
            .map_err(|error| unusable(AUTHORITY.certificate, &error))?;
        Ok(Self { verifier: Some(verifier) })
    }

    /// What the machine wants to know of the chain that a client has shown, its own certificate first; that the client
    /// holds the key was checked in the handshake.
    #[must_use]
    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let (certificate, intermediates) = chain.split_first()?;
        let (sha1, sha256) = thumbprints(certificate);
        let is_trusted = self.verifier.as_ref().is_some_and(|verifier| {
            verifier.verify_client_cert(certificate, intermediates, UnixTime::now()).is_ok()
        });
        Some(ClientCertificate { sha1, sha256, common_name: common_name(certificate), is_trusted })
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn chain(certificate: &DeviceCertificate) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(certificate.chain.as_bytes()).map(Result::unwrap).collect()
    }

    fn state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        (folder, state)
    }

    #[test]
    fn a_certificate_of_the_hubs_own_authority_is_trusted_and_names_its_device() {
        let (_folder, state) = state();
        let authorities = DeviceAuthorities::load(&state, &[]).unwrap();
        let issued = issue(&state, "pump/valve", DAY).unwrap();
        let judged = authorities.judge(&chain(&issued)).unwrap();
        assert!(judged.is_trusted);
        assert_eq!(judged.common_name.as_deref(), Some("pump/valve"));
        assert_eq!((judged.sha1, judged.sha256), issued.thumbprints);
    }

    #[test]
    fn nobody_else_is_trusted() {
        let ((_folder, state), (_other_folder, other)) = (state(), state());
        let authorities = DeviceAuthorities::load(&state, &[]).unwrap();
        let is_trusted =
            |certificate: &DeviceCertificate| authorities.judge(&chain(certificate)).unwrap().is_trusted;
        assert!(!is_trusted(&self_signed("pump", DAY).unwrap()));
        assert!(!is_trusted(&issue(&other, "pump", DAY).unwrap()));
        // The authority of the hub's own certificate is another one.
        super::super::certs::load_or_make(&state, &[]).unwrap();
        let server = CertificateDer::pem_file_iter(state.file("server.pem")).unwrap();
        let server: Vec<_> = server.map(Result::unwrap).collect();
        assert!(!authorities.judge(&server).unwrap().is_trusted);
        assert!(authorities.judge(&[]).is_none());
    }

    #[test]
    fn the_authorities_of_an_owner_are_trusted_when_they_are_named() {
        let ((_folder, state), (_other_folder, other)) = (state(), state());
        let further = [authority_path(&other).unwrap()];
        let authorities = DeviceAuthorities::load(&state, &further).unwrap();
        let issued = issue(&other, "pump", DAY).unwrap();
        assert!(authorities.judge(&chain(&issued)).unwrap().is_trusted);
        assert!(DeviceAuthorities::load(&state, &["no such file".into()]).is_err());
    }
}
