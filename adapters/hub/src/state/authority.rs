//! A certificate authority in the state folder.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, PrimitiveDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::validity::{Standing, Validity};
use crate::Failure;
use crate::clock::unix_time;
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

/// An authority with its key, which belong together and are in their time.
pub(super) struct Authority {
    files: &'static Files,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    validity: Validity,
    key_pem: String,
}

impl Authority {
    /// The one in the folder; makes it where there is none. Where the key is there without a certificate, the first start
    /// was cut short, or somebody wants a new certificate for it: it is made.
    ///
    /// # Errors
    /// When the folder cannot be read or written; when what is there is damaged, lost in part, not of one pair, or not in
    /// its time.
    pub(super) fn load_or_make(state: &StateDir, files: &'static Files) -> Result<Self, Failure> {
        let Files { certificate, key, when_lost, .. } = files;
        match (state.read(certificate)?, state.read(key)?) {
            (Some(certificate_pem), Some(key_pem)) => Self::load(files, certificate_pem, key_pem),
            (None, Some(key_pem)) => Self::certify(state, files, &files.key(&key_pem)?),
            (Some(_), None) => Err(Failure::new(
                format!("{key} is missing in the state folder, and {certificate} is there"),
                format!("restore {key}, or remove {certificate} to have both made anew; {when_lost}"),
            )),
            (None, None) => {
                let made = KeyPair::generate().map_err(|error| cannot_make("the authority", &error))?;
                // The key first: a certificate without its key would be taken for a whole authority by devices, not by us.
                state.write(key, made.serialize_pem().as_bytes(), Secrecy::Secret)?;
                Self::certify(state, files, &made)
            }
        }
    }

    fn certify(state: &StateDir, files: &'static Files, key: &KeyPair) -> Result<Self, Failure> {
        let failed = |error| cannot_make("the authority", &error);
        let made = params(key, files.name).self_signed(key).map_err(failed)?;
        state.write(files.certificate, made.pem().as_bytes(), Secrecy::Open)?;
        Self::load(files, made.pem(), key.serialize_pem())
    }

    fn load(files: &'static Files, certificate_pem: String, key_pem: String) -> Result<Self, Failure> {
        let damaged = |error: &dyn std::fmt::Display| unusable(files.certificate, files.when_lost, error);
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| damaged(&error))?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|error| damaged(&error))?;
        // An owner's may be signed by another authority; what this program makes signs itself, whatever of it was changed.
        let is_made_here = [parsed.issuer(), parsed.subject()].iter().any(|name| {
            let mut names = name.iter_common_name().filter_map(|name| name.as_str().ok());
            names.any(|name| name.starts_with(files.name))
        });
        let signs_itself = is_made_here || parsed.issuer() == parsed.subject();
        if signs_itself && parsed.verify_signature(None).is_err() {
            return Err(damaged(&"it is not what was signed"));
        }
        if !parsed.is_ca() {
            return Err(damaged(&"it is not the certificate of an authority"));
        }
        let key = files.key(&key_pem)?;
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(Failure::new(
                format!("{} and {} in the state folder do not belong together", files.certificate, files.key),
                format!(
                    "restore the one that was changed, or remove {} to have it made for the key; {}",
                    files.certificate, files.when_lost
                ),
            ));
        }
        let validity = Validity::of(&certificate).ok_or_else(|| damaged(&"it has no dates"))?;
        if let Some(complaint) = validity.complaint(unix_time()) {
            return Err(Failure::new(
                format!("{} in the state folder cannot be used: {complaint}", files.certificate),
                format!(
                    "set the clock of this machine; if that is right, remove {}, and it is made anew for the same key; {}",
                    files.certificate, files.when_lost
                ),
            ));
        }
        Ok(Self { files, certificate_pem, certificate, validity, key_pem })
    }

    /// Its certificate.
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// The same as text.
    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What somebody should do before it is too late; `None` as long as there is time.
    pub(super) fn warning(&self) -> Option<String> {
        let Files { certificate, when_lost, .. } = self.files;
        (self.validity.at(unix_time()) == Standing::EndsSoon).then(|| {
            let end = self.validity.end;
            format!("{certificate} is good until {end}; remove it and start the hub again to have it made anew for the same key; {when_lost}")
        })
    }

    /// A certificate with a key of its own, both as PEM.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn issue(&self, params_of_leaf: CertificateParams) -> Result<(String, String), Failure> {
        let key = KeyPair::generate().map_err(|error| cannot_make("the certificate", &error))?;
        Ok((self.sign(params_of_leaf, &key)?.pem(), key.serialize_pem()))
    }

    /// A certificate for a key that is there already.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn sign(
        &self,
        mut params_of_leaf: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<rcgen::Certificate, Failure> {
        let failed = |error| cannot_make("the certificate", &error);
        params_of_leaf.use_authority_key_identifier_extension = true;
        // By the certificate and not by the name that we would give: the authority may be the owner's.
        let issuer = Issuer::from_ca_cert_der(&self.certificate, self.files.key(&self.key_pem)?);
        params_of_leaf.signed_by(key, &issuer.map_err(failed)?).map_err(failed)
    }
}

impl Files {
    fn key(&self, pem: &str) -> Result<KeyPair, Failure> {
        KeyPair::from_pem(pem).map_err(|error| unusable(self.key, self.when_lost, &error))
    }
}

/// The same for the same key, but for the dates.
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

#[cfg(test)]
mod tests {
    use rcgen::date_time_ymd;

    use super::*;

    const FILES: Files = Files {
        certificate: "ca.pem",
        key: "ca.key",
        name: "test",
        when_lost: "devices need the new ca.pem",
    };

    fn folder() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        drop(Authority::load_or_make(&state, &FILES).unwrap());
        (folder, state)
    }

    fn refusal(state: &StateDir) -> Failure {
        match Authority::load_or_make(state, &FILES) {
            Ok(_) => panic!("it was taken"),
            Err(failure) => failure,
        }
    }

    /// Puts a certificate for the authority's own key in its place.
    fn certify(state: &StateDir, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::from_pem(&state.read(FILES.key).unwrap().unwrap()).unwrap();
        let mut params = params(&key, FILES.name);
        change(&mut params);
        let made = params.self_signed(&key).unwrap();
        state.write(FILES.certificate, made.pem().as_bytes(), Secrecy::Open).unwrap();
    }

    #[test]
    fn an_authority_made_under_a_wrong_clock_is_named_with_the_way_out() {
        let (_folder, state) = folder();
        for (begin, end, said) in [(1970, 1990, "good until 1990"), (2099, 2119, "good from 2099")] {
            certify(&state, |params| {
                params.not_before = date_time_ymd(begin, 1, 2);
                params.not_after = date_time_ymd(end, 1, 2);
            });
            let failure = refusal(&state);
            assert!(failure.cause().contains(said), "{failure}");
            assert!(failure.next().contains("set the clock") && failure.next().contains("remove ca.pem"));
            // The way out.
            state.remove(FILES.certificate);
            drop(Authority::load_or_make(&state, &FILES).unwrap());
        }
    }

    #[test]
    fn a_lost_key_is_missed_and_no_new_authority_is_made_in_silence() {
        let (_folder, state) = folder();
        let before = state.read(FILES.certificate).unwrap();
        state.remove(FILES.key);
        assert!(refusal(&state).cause().contains("ca.key is missing"));
        assert_eq!(state.read(FILES.certificate).unwrap(), before);
    }

    #[test]
    fn a_certificate_that_is_lost_is_made_for_the_same_key_and_devices_go_on() {
        let (_folder, state) = folder();
        let before = Authority::load_or_make(&state, &FILES).unwrap();
        state.remove(FILES.certificate);
        let after = Authority::load_or_make(&state, &FILES).unwrap();
        let subject = |authority: &Authority| {
            let (_, parsed) = X509Certificate::from_der(&authority.certificate).unwrap();
            (parsed.subject().to_string(), parsed.public_key().raw.to_vec())
        };
        assert_eq!(subject(&after), subject(&before));
    }

    #[test]
    fn files_that_are_damaged_or_of_two_authorities_are_named_at_start() {
        let ((_one, state), (_other, other)) = (folder(), folder());
        let whole = [FILES.certificate, FILES.key].map(|name| (name, state.read(name).unwrap().unwrap()));
        let foreign = other.read(FILES.certificate).unwrap().unwrap();
        let mut changed = whole[0].1.clone();
        // In the middle of the base64: among names and dates.
        changed.replace_range(200..204, "AAAA");
        for (name, text, said) in [
            (FILES.certificate, "", "ca.pem"),
            (FILES.certificate, "-----BEGIN CERTIFICATE-----\n", "ca.pem"),
            (FILES.certificate, changed.as_str(), "ca.pem"),
            (FILES.certificate, foreign.as_str(), "do not belong together"),
            (FILES.key, "", "ca.key"),
            (FILES.key, "nothing", "ca.key"),
        ] {
            whole
                .iter()
                .for_each(|(name, text)| state.write(name, text.as_bytes(), Secrecy::Secret).unwrap());
            state.write(name, text.as_bytes(), Secrecy::Secret).unwrap();
            let failure = refusal(&state);
            assert!(failure.cause().contains(said) && failure.next().contains("remove"), "{name}: {failure}");
        }
        whole.iter().for_each(|(name, text)| state.write(name, text.as_bytes(), Secrecy::Secret).unwrap());
        drop(Authority::load_or_make(&state, &FILES).unwrap());
    }

    #[test]
    fn a_person_is_warned_30_days_before_the_end() {
        let (_folder, state) = folder();
        assert_eq!(Authority::load_or_make(&state, &FILES).unwrap().warning(), None);
        certify(&state, |params| params.not_after = OffsetDateTime::now_utc() + time::Duration::days(29));
        let warning = Authority::load_or_make(&state, &FILES).unwrap().warning().unwrap();
        assert!(warning.contains("ca.pem is good until") && warning.contains("remove it"), "{warning}");
    }

    #[test]
    fn the_authority_of_an_owner_signs_in_its_own_name() {
        let (_folder, state) = folder();
        certify(&state, |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "Owner");
        });
        let authority = Authority::load_or_make(&state, &FILES).unwrap();
        let (leaf, _) = authority.issue(lasting(Duration::from_secs(60))).unwrap();
        let leaf = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        assert_eq!(leaf.issuer().to_string(), "O=Owner");
    }
}
