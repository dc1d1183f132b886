//! Certificates of enrollments: read in every form that clients send them in, and compared with what a device shows.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::time::UnixTime;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime as RustlsTime};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::identifiers::moment;
use crate::Failure;
use crate::state::StateDir;
use crate::state::device_certs;
use crate::state::provider::provider;

/// Longest text that a certificate is read from: more than any has.
const TEXT_MAX: usize = 64 * 1024;

/// The certificate in `text`: PEM, base64 of PEM, or base64 of DER.
pub(super) fn read(text: &str) -> Option<CertificateDer<'static>> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let from_pem = |pem: &[u8]| CertificateDer::from_pem_slice(pem).ok();
    let found = from_pem(text.as_bytes()).or_else(|| {
        let plain: String = text.split_ascii_whitespace().collect();
        let decoded = STANDARD.decode(plain).ok()?;
        from_pem(&decoded).or_else(|| Some(CertificateDer::from(decoded)))
    })?;
    let is_one = X509Certificate::from_der(&found).is_ok_and(|(rest, _)| rest.is_empty());
    is_one.then_some(found)
}

/// What the service tells of a certificate (`info`).
pub(super) fn info(certificate: &CertificateDer<'_>) -> Value {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Value::Null };
    let time = |time: x509_parser::time::ASN1Time| {
        moment(UnixTime::from_secs(u64::try_from(time.timestamp()).unwrap_or_default()))
    };
    json!({
        "subjectName": parsed.subject().to_string(),
        "sha1Thumbprint": hex(&Sha1::digest(certificate)),
        "sha256Thumbprint": hex(&Sha256::digest(certificate)),
        "issuerName": parsed.issuer().to_string(),
        "notBeforeUtc": time(parsed.validity().not_before),
        "notAfterUtc": time(parsed.validity().not_after),
        "serialNumber": hex(parsed.tbs_certificate.raw_serial()),
        "version": parsed.version().0.saturating_add(1),
    })
}

/// SHA-256 of a certificate in upper-case hex.
pub(super) fn thumbprint(certificate: &CertificateDer<'_>) -> String {
    hex(&Sha256::digest(certificate))
}

/// The common name of a certificate's subject.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    device_certs::common_name(certificate)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// How many of the further certificates in `chain` it takes to come from its first to `authority`, each signed by the
/// next and good at `now`; `None` where there is no such way. The authority may be any: a root or an intermediate.
pub(super) fn distance(
    chain: &[CertificateDer<'static>],
    authority: &CertificateDer<'static>,
    now: UnixTime,
) -> Option<usize> {
    let (leaf, further) = chain.split_first()?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).ok()?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build().ok()?;
    let now = RustlsTime::since_unix_epoch(std::time::Duration::from_millis(now.as_millis()));
    (0..=further.len()).find(|count| {
        let taken = further.get(..*count).unwrap_or_default();
        // A chain that contains the authority itself would pass through it.
        !taken.contains(authority) && verifier.verify_client_cert(leaf, taken, now).is_ok()
    })
}

/// Whether the certificate is in its time.
pub(super) fn is_in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let seconds = |time: x509_parser::time::ASN1Time| time.timestamp();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| {
        let validity = certificate.validity();
        (seconds(validity.not_before)..=seconds(validity.not_after)).contains(&now)
    })
}

/// A certificate that enrollment groups can name.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its name: that of its file, without what comes behind the last dot.
    pub(super) name: String,
    pub(super) certificate: CertificateDer<'static>,
}

impl Authority {
    /// The hub's own authority for devices, `device-ca`, and those of further files.
    ///
    /// # Errors
    /// When a file cannot be read, or holds no certificate.
    pub(super) fn load(state: &StateDir, further: &[PathBuf]) -> Result<Vec<Self>, Failure> {
        let own = device_certs::authority_path(state)?;
        let load = |path: &PathBuf| {
            let certificate = CertificateDer::from_pem_file(path).map_err(|error| {
                Failure::new(
                    format!("{} cannot be used: {error}", path.display()),
                    "name a PEM file with certificates of authorities",
                )
            })?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Self { name, certificate })
        };
        std::iter::once(&own).chain(further).map(load).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::unix_time;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_certificate_is_read_in_every_form_that_clients_send() {
        let pem = device_certs::self_signed("dev-1", DAY).unwrap().chain;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        for form in [pem.clone(), STANDARD.encode(&pem), STANDARD.encode(&der), format!("\n{pem}\n")] {
            assert_eq!(read(&form), Some(der.clone()));
        }
        for wrong in
            ["", "MAA=", "no certificate", &STANDARD.encode("no certificate"), &"A".repeat(TEXT_MAX + 1)]
        {
            assert_eq!(read(wrong), None);
        }
        let info = info(&der);
        assert_eq!((info["subjectName"].as_str(), info["version"].as_u64()), (Some("CN=dev-1"), Some(3)));
        assert_eq!(info["sha256Thumbprint"], thumbprint(&der));
    }

    #[test]
    fn a_chain_is_as_long_as_it_must_be_and_ends_with_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let issued = device_certs::issue(&state, "dev-1", DAY).unwrap();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(issued.chain.as_bytes()).map(Result::unwrap).collect();
        let [leaf, authority] = chain.as_slice() else { panic!("a leaf and its authority") };
        let now = unix_time();
        assert_eq!(distance(&chain, authority, now), Some(0));
        assert_eq!(distance(std::slice::from_ref(leaf), authority, now), Some(0));
        assert_eq!(distance(&chain, authority, now.after(2 * DAY)), None, "it has expired");
        let stranger = device_certs::self_signed("dev-1", DAY).unwrap().chain;
        let stranger = CertificateDer::from_pem_slice(stranger.as_bytes()).unwrap();
        assert_eq!(distance(std::slice::from_ref(&stranger), authority, now), None);
        assert_eq!(distance(&[], authority, now), None);
        assert!(is_in_time(&stranger, now) && !is_in_time(&stranger, now.after(2 * DAY)));
    }
}
