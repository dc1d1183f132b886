//! A server certificate of the owner's: `--cert FILE --key FILE`, read again when the files change.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use super::certs::ServerCertificate;
use super::validity::{Standing, Validity};
use crate::Failure;
use crate::clock::unix_time;

/// The files of one certificate.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    certificate: PathBuf,
    key: PathBuf,
    /// What they held when they were read last.
    seen: Option<[u8; 32]>,
    validity: Option<Validity>,
}

impl OwnCertificate {
    /// A certificate with those of its authorities behind it, and its key, both as PEM.
    #[must_use]
    pub const fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, seen: None, validity: None }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read, hold no certificate or key, do not belong together or are not in their time.
    pub fn load(&mut self) -> Result<ServerCertificate, Failure> {
        let texts = [read(&self.certificate)?, read(&self.key)?];
        self.seen = Some(digest(&texts));
        let [certificates, key] = &texts;
        let of = |path: &Path, what: &str| {
            Failure::new(
                format!("{} {what}", path.display()),
                "give --cert and --key as PEM files of one pair",
            )
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
        let chain = chain.map_err(|error| of(&self.certificate, &format!("cannot be read: {error}")))?;
        let Some(leaf) = chain.first() else { return Err(of(&self.certificate, "holds no certificate")) };
        let validity =
            Validity::of(leaf).ok_or_else(|| of(&self.certificate, "holds no X.509 certificate"))?;
        if let Some(complaint) = validity.complaint(unix_time()) {
            return Err(Failure::new(
                format!("{} cannot be used: {complaint}", self.certificate.display()),
                "renew it, or set the clock of this machine",
            ));
        }
        self.validity = Some(validity);
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| of(&self.key, &format!("holds no private key: {error}")))?;
        Ok(ServerCertificate { chain, key })
    }

    /// Whether the files hold something else than what was read last. Files that cannot be read have not changed: they may
    /// be on their way.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        let (Ok(certificate), Ok(key)) = (read(&self.certificate), read(&self.key)) else { return false };
        self.seen != Some(digest(&[certificate, key]))
    }

    /// What is said of the certificate when it is over soon.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let validity = self.validity?;
        (validity.at(unix_time()) == Standing::EndsSoon).then(|| {
            format!(
                "{} is good until {}; renew it, and it is taken at once",
                self.certificate.display(),
                validity.end
            )
        })
    }

    /// What to call it.
    #[must_use]
    pub fn name(&self) -> String {
        self.certificate.display().to_string()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", path.display()), "check --cert and --key")
    })
}

fn digest(texts: &[Vec<u8>; 2]) -> [u8; 32] {
    texts.iter().fold(Sha256::new(), |hash, text| hash.chain_update(Sha256::digest(text))).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::device_certs::self_signed;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn files(folder: &Path, life: Duration) -> OwnCertificate {
        let made = self_signed("hub.example", life).unwrap();
        let own = OwnCertificate::new(folder.join("own.pem"), folder.join("own.key"));
        std::fs::write(&own.certificate, made.chain).unwrap();
        std::fs::write(&own.key, made.key).unwrap();
        own
    }

    #[test]
    fn files_that_change_are_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut own = files(folder.path(), 100 * DAY);
        let first = own.load().unwrap();
        assert!(!own.has_changed());
        files(folder.path(), 100 * DAY);
        assert!(own.has_changed());
        assert_ne!(own.load().unwrap().chain, first.chain);
        assert!(!own.has_changed());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut own = files(folder.path(), 100 * DAY);
        std::fs::write(&own.key, "no key").unwrap();
        assert!(own.load().unwrap_err().cause().contains("holds no private key"));
        std::fs::write(&own.certificate, "").unwrap();
        assert!(own.load().unwrap_err().cause().contains("holds no certificate"));
        std::fs::remove_file(&own.certificate).unwrap();
        assert!(own.load().unwrap_err().cause().contains("cannot read"));
        assert!(!own.has_changed());
    }

    #[test]
    fn one_that_is_over_soon_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let mut own = files(folder.path(), 29 * DAY);
        drop(own.load().unwrap());
        assert!(own.warning().unwrap().contains("own.pem is good until"));
        let mut own = files(folder.path(), 31 * DAY);
        drop(own.load().unwrap());
        assert_eq!(own.warning(), None);
    }
}
