//! Certificates of devices: by the authority of this hub, or signed by themselves.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use devicebound::hub::ClientCertificate;
use devicebound::iothub::CertificateRequest;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509CertificationRequest};

use super::authority::{self, Authority, Files, cannot_make};
use super::chain;
use super::validity::{Standing, Validity};
use crate::Failure;
use crate::clock::unix_time;
use crate::state::StateDir;
use crate::state::provider::provider;

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

/// The hub's authority for devices, for certificates whose keys devices have made.
pub struct Issuer(Authority);

/// Without the key.
impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer(…)")
    }
}

impl Issuer {
    /// The authority of a state folder, which is made if it is missing.
    ///
    /// # Errors
    /// When the state folder cannot be used.
    pub fn load(state: &StateDir) -> Result<Self, Failure> {
        Authority::load_or_make(state, &AUTHORITY).map(Self)
    }

    /// Whether a request is signed with the key that it brings.
    #[must_use]
    pub fn is_signed(&self, request: &CertificateRequest) -> bool {
        X509CertificationRequest::from_der(request.as_der())
            .is_ok_and(|(rest, request)| rest.is_empty() && request.verify_signature().is_ok())
    }

    /// A certificate for the name and key of a request, good for so long from now on; behind it that of the authority.
    ///
    /// # Errors
    /// When the authority's key is damaged, or the request has a key that cannot be written.
    pub fn issue(
        &self,
        request: &CertificateRequest,
        life: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let key = request_key(request)
            .ok_or_else(|| Failure::new("the key in the request cannot be read", "make another request"))?;
        let leaf = self.0.sign(params(request.common_name(), life), &key)?;
        Ok(vec![leaf.der().clone(), self.0.certificate()])
    }
}

fn request_key(request: &CertificateRequest) -> Option<rcgen::SubjectPublicKeyInfo> {
    let (_, request) = X509CertificationRequest::from_der(request.as_der()).ok()?;
    rcgen::SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw).ok()
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

/// What people are shown of a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// SHA-256, in upper-case hex.
    pub(crate) thumbprint: String,
    pub(crate) validity: Validity,
}

impl Described {
    /// `None` where the certificate cannot be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            thumbprint: thumbprints(certificate).1,
            validity: Validity::of(certificate)?,
        })
    }
}

/// The most certificates that a client may show (own limit: webpki follows six between a device's and its authority).
pub const CHAIN_MAX: usize = 8;

/// The authorities whose word is taken for who a device is. A clone is the same set, which is exchanged as one.
///
/// The default trusts nobody: devices are then known by thumbprints alone.
#[derive(Clone, Debug, Default)]
pub struct DeviceAuthorities(Arc<RwLock<Trusted>>);

#[derive(Debug, Default)]
struct Trusted {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    authorities: Vec<CertificateDer<'static>>,
    warnings: Vec<String>,
}

impl DeviceAuthorities {
    /// The hub's own authority for devices, which is made if it is missing, and those in further PEM files.
    ///
    /// # Errors
    /// When a file cannot be read, holds no certificate or one that is not in its time.
    pub fn load(state: &StateDir, further: &[PathBuf]) -> Result<Self, Failure> {
        Ok(Self(Arc::new(RwLock::new(Trusted::load(state, further)?))))
    }

    /// Reads all of them again.
    ///
    /// # Errors
    /// As [`load`](Self::load); those before are trusted on.
    pub fn reload(&self, state: &StateDir, further: &[PathBuf]) -> Result<(), Failure> {
        let trusted = Trusted::load(state, further)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = trusted;
        Ok(())
    }

    /// What somebody should do before it is too late.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).warnings.clone()
    }

    /// Their certificates.
    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).authorities.clone()
    }

    /// What the machine wants to know of the chain that a client has shown, its own certificate first; that the client
    /// holds the key was checked in the handshake.
    #[must_use]
    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let (certificate, intermediates) = chain.split_first()?;
        let intermediates = intermediates.get(..CHAIN_MAX).unwrap_or(intermediates);
        let (sha1, sha256) = thumbprints(certificate);
        let judged = self.0.read().unwrap_or_else(PoisonError::into_inner).judge(certificate, intermediates);
        Some(ClientCertificate {
            sha1,
            sha256,
            common_name: common_name(certificate),
            validity: Validity::of(certificate).map(|validity| (validity.begin, validity.end)),
            is_trusted: matches!(judged, Some(Ok(()))),
            distrust: judged.and_then(Result::err),
        })
    }
}

impl Trusted {
    fn load(state: &StateDir, further: &[PathBuf]) -> Result<Self, Failure> {
        let unusable = |file: &str, error: &dyn std::fmt::Display| {
            Failure::new(
                format!("{file} cannot be used: {error}"),
                "name a PEM file with certificates of authorities that are in their time: --device-ca FILE",
            )
        };
        let own = Authority::load_or_make(state, &AUTHORITY)?;
        let (mut authorities, mut warnings) = (vec![own.certificate()], Vec::from_iter(own.warning()));
        for path in further {
            let name = path.display().to_string();
            let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            let found = found.map_err(|error| unusable(&name, &error))?;
            if found.is_empty() {
                return Err(unusable(&name, &"it holds no certificate"));
            }
            for certificate in found {
                let validity = Validity::of(&certificate)
                    .ok_or_else(|| unusable(&name, &"it holds something else than certificates"))?;
                if let Some(complaint) = validity.complaint(unix_time()) {
                    return Err(unusable(&name, &complaint));
                }
                if validity.at(unix_time()) == Standing::EndsSoon {
                    warnings.push(format!(
                        "{name} is good until {}; renew it, and it is taken at once",
                        validity.end
                    ));
                }
                authorities.push(certificate);
            }
        }
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            let added = roots.add(authority.clone());
            added.map_err(|error| unusable("an authority for devices", &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider())
            .build()
            .map_err(|error| unusable(AUTHORITY.certificate, &error))?;
        Ok(Self { verifier: Some(verifier), authorities, warnings })
    }

    /// Whether an authority is behind a certificate, or why not; `None` where nobody is trusted.
    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Option<Result<(), String>> {
        let verifier = self.verifier.as_ref()?;
        if chain::is_v1(certificate) {
            let is_trusted =
                chain::leads_to_authority(certificate, intermediates, &self.authorities, unix_time());
            let why =
                "no authority for devices has signed it (an X.509 v1 certificate), or it is not in its time";
            return Some(if is_trusted { Ok(()) } else { Err(why.to_owned()) });
        }
        let judged = verifier.verify_client_cert(certificate, intermediates, UnixTime::now());
        Some(judged.map(drop).map_err(|error| error.to_string()))
    }
}

/// The common name of a certificate's subject.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
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

    /// An X.509 v1 certificate, as `openssl x509 -req` makes it: the same without version and extensions, signed anew.
    pub(crate) fn as_v1(certificate: &CertificateDer<'_>, signer: &KeyPair) -> CertificateDer<'static> {
        use rcgen::SigningKey as _;
        let element = |tag: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82][..], &length, content].concat()
        };
        let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
        let tbs = &parsed.tbs_certificate;
        // [0] EXPLICIT version is five bytes, at the front; [3] EXPLICIT extensions are at the end (RFC 5280 §4.1).
        let whole = tbs.as_ref();
        let begin = whole.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap() + 5;
        let end = whole.windows(tbs.subject_pki.raw.len()).position(|bytes| bytes == tbs.subject_pki.raw);
        let end = end.unwrap() + tbs.subject_pki.raw.len();
        let tbs = element(0x30, &whole[begin..end]);
        let signature = [&[0][..], &signer.sign(&tbs).unwrap()].concat();
        // ecdsa-with-SHA256
        let algorithm = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        element(0x30, &[&tbs[..], &algorithm, &element(3, &signature)].concat()).into()
    }

    fn own_v1(made: &DeviceCertificate) -> CertificateDer<'static> {
        let key = KeyPair::from_pem(&made.key).unwrap();
        as_v1(&chain(made)[0], &key)
    }

    #[test]
    fn a_certificate_of_version_1_is_known_by_its_thumbprint_and_dates() {
        let (_folder, state) = state();
        let v1 = own_v1(&self_signed("pump", DAY).unwrap());
        let judged = DeviceAuthorities::load(&state, &[]).unwrap().judge(std::slice::from_ref(&v1)).unwrap();
        assert!(chain::is_v1(&v1) && !judged.is_trusted);
        assert_eq!((judged.common_name.as_deref(), judged.sha1), (Some("pump"), thumbprints(&v1).0));
        assert!(judged.validity.is_some());
    }

    #[test]
    fn a_certificate_of_version_1_is_trusted_if_an_authority_has_signed_it_and_no_other() {
        let ((_folder, state), (_other_folder, other)) = (state(), state());
        let authorities = DeviceAuthorities::load(&state, &[]).unwrap();
        let is_trusted = |chain: &[CertificateDer<'_>]| authorities.judge(chain).unwrap().is_trusted;
        let signed_by = |state: &StateDir| {
            let issued = chain(&issue(state, "pump", DAY).unwrap())[0].clone();
            as_v1(&issued, &KeyPair::from_pem(&state.read(AUTHORITY.key).unwrap().unwrap()).unwrap())
        };
        assert!(is_trusted(&[signed_by(&state)]));
        drop(DeviceAuthorities::load(&other, &[]).unwrap());
        assert!(!is_trusted(&[signed_by(&other)]));
        // In the name of the authority, and by another key.
        let issued = chain(&issue(&state, "pump", DAY).unwrap())[0].clone();
        let forged = as_v1(&issued, &KeyPair::generate().unwrap());
        assert!(!is_trusted(std::slice::from_ref(&forged)));
        // A device's certificate is no authority.
        let device = issue(&state, "pump", DAY).unwrap();
        let key = KeyPair::from_pem(&device.key).unwrap();
        let [leaf, ..] = &chain(&device)[..] else { panic!("there is one") };
        let issuer = rcgen::Issuer::from_ca_cert_der(leaf, &key).unwrap();
        let own = KeyPair::generate().unwrap();
        let below = params("valve", DAY).signed_by(&own, &issuer).unwrap();
        let below = as_v1(below.der(), &key);
        assert!(!is_trusted(&[below, leaf.clone()]));
    }

    #[test]
    fn an_authority_that_is_not_in_its_time_is_refused_by_that_name() {
        let (_folder, state) = state();
        let key = KeyPair::generate().unwrap();
        let mut params = authority::lasting(DAY);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        let path = state.file("old.pem");
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        let failure = DeviceAuthorities::load(&state, &[path]).unwrap_err();
        assert!(
            failure.cause().contains("old.pem") && failure.cause().contains("good until 2002"),
            "{failure}"
        );
    }

    #[test]
    fn what_is_read_again_counts_for_every_clone() {
        let ((_folder, state), (_other_folder, other)) = (state(), state());
        let authorities = DeviceAuthorities::load(&state, &[]).unwrap();
        let clone = authorities.clone();
        let shown = chain(&issue(&other, "pump", DAY).unwrap());
        assert!(!clone.judge(&shown).unwrap().is_trusted);
        authorities.reload(&state, &[other.file(AUTHORITY.certificate)]).unwrap();
        assert!(clone.judge(&shown).unwrap().is_trusted);
        assert!(authorities.reload(&state, &["no such file".into()]).is_err());
        assert!(clone.judge(&shown).unwrap().is_trusted);
    }
}
