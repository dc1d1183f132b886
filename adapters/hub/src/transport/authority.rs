//! A certificate authority in the state folder.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::Failure;
use crate::state::{Secrecy, StateDir};

/// A day back, because a device's clock may be behind ours.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);
/// The authority outlives the projects that use it.
const LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Where an authority is kept, and what it is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files {
    pub(super) certificate: &'static str,
    pub(super) key: &'static str,
    pub(super) name: &'static str,
    /// What follows when it has to be made anew.
    pub(super) when_lost: &'static str,
}

/// An authority with its key.
pub(super) struct Authority {
    files: &'static Files,
    certificate_pem: String,
    key_pem: String,
}

impl Authority {
    /// The one in the folder; makes it where it is missing.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub(super) fn load_or_make(state: &StateDir, files: &'static Files) -> Result<Self, Failure> {
        match (state.read(files.certificate)?, state.read(files.key)?) {
            (Some(certificate_pem), Some(key_pem)) => Ok(Self { files, certificate_pem, key_pem }),
            _ => Self::make(state, files),
        }
    }

    fn make(state: &StateDir, files: &'static Files) -> Result<Self, Failure> {
        let failed = |error| cannot_make("the authority", &error);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params(&key, files.name).self_signed(&key).map_err(failed)?;
        let made = Self { files, certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
        // The key first: a certificate without its key would be taken for a whole authority by devices, not by us.
        state.write(files.key, made.key_pem.as_bytes(), Secrecy::Secret)?;
        state.write(files.certificate, made.certificate_pem.as_bytes(), Secrecy::Open)?;
        Ok(made)
    }

    /// Its certificate.
    ///
    /// # Errors
    /// When the file is damaged.
    pub(super) fn certificate(&self) -> Result<CertificateDer<'static>, Failure> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|error| unusable(self.files.certificate, self.files.when_lost, &error))
    }

    /// The same as text.
    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate with a key of its own, both as PEM.
    ///
    /// # Errors
    /// When the authority's key is damaged.
    pub(super) fn issue(&self, mut params_of_leaf: CertificateParams) -> Result<(String, String), Failure> {
        let failed = |error| cannot_make("the certificate", &error);
        let ca_key = KeyPair::from_pem(&self.key_pem)
            .map_err(|error| unusable(self.files.key, self.files.when_lost, &error))?;
        let ca_params = params(&ca_key, self.files.name);
        params_of_leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let issuer = Issuer::from_params(&ca_params, ca_key);
        let certificate = params_of_leaf.signed_by(&key, &issuer).map_err(failed)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// The same for the same key, so that the key alone is enough to issue.
fn params(key: &KeyPair, name: &str) -> CertificateParams {
    let mut params = lasting(LIFE);
    // Two authorities of one name in a trust store are told apart badly by some libraries: the name carries the key.
    let fingerprint = Sha256::digest(key.public_key_raw());
    let short: String = fingerprint.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("{name} {short}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Parameters that say how long a certificate is good, from now on.
pub(super) fn lasting(life: Duration) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = now - BACKDATED;
    // No certificate is good for longer (RFC 5280 §4.1.2.5).
    let end = time::Duration::try_from(life).ok().and_then(|life| now.checked_add(life));
    params.not_after = end.unwrap_or_else(|| PrimitiveDateTime::MAX.assume_utc());
    params
}

pub(super) fn cannot_make(what: &str, error: &rcgen::Error) -> Failure {
    Failure::new(format!("cannot make {what}: {error}"), "check the names that it is for")
}

pub(super) fn unusable(file: &str, when_lost: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        format!("{file} in the state folder cannot be used: {error}"),
        format!("restore {file}, or remove it to have a new one made; {when_lost}"),
    )
}
