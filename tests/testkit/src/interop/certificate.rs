//! Client certificates, which nobody but the device has signed.

use std::fs;
use std::path::Path;

use rcgen::CertifiedKey;
use sha2::{Digest as _, Sha256};

/// A certificate in files, as clients want it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The file with the certificate.
    pub certificate: String,
    /// The file with its private key.
    pub key: String,
    /// SHA-256 in hex, as the registry wants it.
    pub thumbprint: String,
}

impl Certificate {
    /// A self-signed certificate, in files of `folder`.
    ///
    /// # Panics
    /// When the files cannot be written.
    #[must_use]
    pub fn self_signed(folder: &Path, name: &str) -> Self {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()])
            .unwrap_or_else(|error| panic!("a certificate for {name}: {error}"));
        let thumbprint = Sha256::digest(cert.der()).iter().map(|byte| format!("{byte:02X}")).collect();
        let certificate = write(folder, &format!("{name}.pem"), &cert.pem());
        let key = write(folder, &format!("{name}.key"), &signing_key.serialize_pem());
        Self { certificate, key, thumbprint }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    path.display().to_string()
}
