//! Certificates for devices that ask for one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::Rule;
use devicebound::hub::Authentication;
use devicebound::iothub::{CertificateError, CertificateRequest};
use serde_json::Value;

use super::Provisioning;
use super::certificates::thumbprint;
use super::error::Refusal;

/// A certificate that was issued.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    /// By which the hub knows it.
    pub(super) thumbprint: String,
    /// As the device gets it: base64 of DER, its own first.
    pub(super) chain: Value,
}

impl Provisioning {
    /// Reads a request and checks that it is of this device.
    pub(super) fn request(&self, csr: &str, id: &str) -> Result<CertificateRequest, Refusal> {
        let refuse = |error: CertificateError| Refusal::of(400_040, error.rule(), error);
        let request = CertificateRequest::from_base64(csr).map_err(refuse)?;
        if !request.common_name().eq_ignore_ascii_case(id) {
            let came = format!("CN={} came from `{id}`", request.common_name());
            return Err(Refusal::of(400_040, Rule::CsrName, came));
        }
        // The signature is checked as well: that the device has the key.
        if !self.settings.issuer.is_signed(&request) {
            return Err(Refusal::of(400_040, Rule::Csr, "its signature is not of its key"));
        }
        Ok(request)
    }

    /// Signs what was asked for.
    pub(super) fn issue(&self, request: &CertificateRequest) -> Result<Issued, Refusal> {
        let issued = self.settings.issuer.issue(request, self.settings.certificate_life);
        let chain = issued.map_err(|failure| Refusal::unavailable(failure.to_string()))?;
        let leaf = chain.first().ok_or_else(|| Refusal::unavailable("the authority has issued nothing"))?;
        Ok(Issued {
            thumbprint: thumbprint(leaf),
            chain: chain.iter().map(|certificate| Value::from(STANDARD.encode(certificate))).collect(),
        })
    }
}

/// A newer certificate takes its place beside the one that the device has: until it uses the new one, it needs the old.
pub(super) fn beside(new: Authentication, known: Option<&Authentication>) -> Authentication {
    match (new, known) {
        (
            Authentication::SelfSigned { primary, secondary: None },
            Some(Authentication::SelfSigned { primary: old, secondary }),
        ) => {
            let secondary = if *old == primary { secondary.clone() } else { Some(old.clone()) };
            Authentication::SelfSigned { primary, secondary }
        }
        (new, _) => new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_certificate_stands_beside_the_older_one() {
        let by = |primary: &str, secondary: Option<&str>| Authentication::SelfSigned {
            primary: primary.to_owned(),
            secondary: secondary.map(str::to_owned),
        };
        assert_eq!(beside(by("B", None), Some(&by("A", None))), by("B", Some("A")));
        assert_eq!(beside(by("C", None), Some(&by("B", Some("A")))), by("C", Some("B")));
        assert_eq!(beside(by("B", None), Some(&by("B", Some("A")))), by("B", Some("A")));
        assert_eq!(beside(by("B", None), None), by("B", None));
    }
}
