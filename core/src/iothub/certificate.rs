//! Certificates that a service issues for a device: requests for them, what comes back, and how a device asks its hub for a
//! newer one (IoT Hub: certificate issuance and renewal).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode as _, Reader as _, SliceReader};
use x509_cert::name::Name;
use x509_cert::request::CertReq;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::json_text;
use crate::limits::{CSR_MAX, REPLACE_ID};
use crate::rule::Rule;
use crate::time::UnixTime;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ELLIPTIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Shortest modulus of an RSA key, in bits.
const RSA_MIN: usize = 2048;

/// Why a certificate, a chain or a request for one is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is not base64, or longer than [`CSR_MAX`].
    #[error("a certificate request is base64 of its DER, at most {CSR_MAX} characters, without PEM lines")]
    Base64,
    /// Its DER is not that of a PKCS #10 request.
    #[error("what is in the base64 is not the DER of a certificate request (PKCS #10)")]
    Request,
    /// Its subject has no common name, or more than that of the device.
    #[error(
        "the subject of a certificate request is CN={{id}}, with the id that the device registers or connects with"
    )]
    CommonName,
    /// Its key is of another kind, or too short.
    #[error("the key is elliptic, P-384 or P-256, or RSA of at least {RSA_MIN} bits")]
    Key,
    /// The chain is empty, or one of it is not the DER of a certificate.
    #[error("an issued certificate is not the DER of one")]
    Chain,
}

impl CertificateError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Base64 | Self::Request => Rule::Csr,
            Self::CommonName => Rule::CsrName,
            Self::Key => Rule::CsrKey,
            Self::Chain => Rule::IssuedChain,
        }
    }
}

/// A request for a certificate (PKCS #10). Its signature is not checked here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    base64: String,
    der: Vec<u8>,
    common_name: String,
}

impl CertificateRequest {
    /// Takes the DER of a request, as a library for certificates makes it.
    ///
    /// # Errors
    /// [`CertificateError`], all but [`CertificateError::Chain`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        Self::from_base64(&STANDARD.encode(der))
    }

    /// Reads a request as it stands in a message.
    ///
    /// # Errors
    /// [`CertificateError`], all but [`CertificateError::Chain`].
    pub fn from_base64(text: &str) -> Result<Self, CertificateError> {
        if text.len() > CSR_MAX {
            return Err(CertificateError::Base64);
        }
        let der = STANDARD.decode(text).map_err(|_| CertificateError::Base64)?;
        let request = CertReq::from_der(&der).map_err(|_| CertificateError::Request)?;
        let common_name = common_name(&request.info.subject).ok_or(CertificateError::CommonName)?;
        if !is_strong(&request.info.public_key) {
            return Err(CertificateError::Key);
        }
        Ok(Self { base64: text.to_string(), der, common_name })
    }

    /// The name of the device that it is for.
    #[must_use]
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// As it stands in a message.
    #[must_use]
    pub fn as_base64(&self) -> &str {
        &self.base64
    }

    /// The DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }
}

/// Certificates that were issued: that of the device first, then those that lead to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateChain {
    certificates: Vec<Vec<u8>>,
    common_name: String,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl CertificateChain {
    /// Reads certificates, each in base64 of its DER.
    ///
    /// # Errors
    /// [`CertificateError::Chain`] where there is none, or one is not a certificate.
    pub fn from_base64<T: AsRef<str>>(certificates: &[T]) -> Result<Self, CertificateError> {
        let decoded = certificates.iter().map(|text| base64_of(text.as_ref()));
        Self::from_der(decoded.collect::<Option<Vec<_>>>().ok_or(CertificateError::Chain)?)
    }

    /// Reads certificates in DER.
    ///
    /// # Errors
    /// [`CertificateError::Chain`] where there is none, or one is not a certificate.
    pub fn from_der(certificates: Vec<Vec<u8>>) -> Result<Self, CertificateError> {
        let mut read = certificates.iter().map(|der| Certificate::from_der(der));
        let Some(Ok(leaf)) = read.next() else { return Err(CertificateError::Chain) };
        if read.any(|certificate| certificate.is_err()) {
            return Err(CertificateError::Chain);
        }
        let leaf = leaf.tbs_certificate();
        let time = |time: x509_cert::time::Time| UnixTime::from_secs(time.to_unix_duration().as_secs());
        Ok(Self {
            common_name: common_name(leaf.subject()).unwrap_or_default(),
            not_before: time(leaf.validity().not_before),
            not_after: time(leaf.validity().not_after),
            certificates,
        })
    }

    /// The certificates in DER, that of the device first.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// The name of the device, empty where the certificate has none.
    #[must_use]
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// From when the certificate of the device is good.
    #[must_use]
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// Until when the certificate of the device is good.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// All of them as PEM, in which TLS libraries read them.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut pem = String::new();
        for certificate in &self.certificates {
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            let mut text = &*STANDARD.encode(certificate);
            while !text.is_empty() {
                // base64 is ASCII, so that every place is between two characters
                let (line, rest) = text.split_at(text.len().min(64));
                pem.push_str(line);
                pem.push('\n');
                text = rest;
            }
            pem.push_str("-----END CERTIFICATE-----\n");
        }
        pem
    }
}

/// What a device asks its hub for, when it wants a newer certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueBody {
    /// Base64 of the request's DER.
    pub csr: String,
    /// The `$rid` of the request that this one takes the place of, or `*` for whichever there is.
    pub replace: Option<String>,
}

/// Why the body of such a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueBodyError {
    /// It is not a JSON object.
    #[error("the body is not a JSON object")]
    NotJson,
    /// A member is missing, unknown or of another type, or the id is another device's.
    #[error("{}", Rule::IssueBody.says())]
    Member,
}

impl IssueBody {
    /// Reads the request of the device `device_id`.
    ///
    /// # Errors
    /// [`IssueBodyError`].
    pub fn parse(body: &[u8], device_id: &str) -> Result<Self, IssueBodyError> {
        let members: BTreeMap<String, &RawValue> =
            serde_json::from_slice(body).map_err(|_| IssueBodyError::NotJson)?;
        if members.keys().any(|name| !matches!(name.as_str(), "id" | "csr" | "replace")) {
            return Err(IssueBodyError::Member);
        }
        let member = |name| members.get(name).map(|value| value.get()).filter(|text| *text != "null");
        let text =
            |name| member(name).map(|value| json_text(value).ok_or(IssueBodyError::Member)).transpose();
        if text("id")?.is_none_or(|id| id != device_id) {
            return Err(IssueBodyError::Member);
        }
        let replace = text("replace")?;
        if replace.as_deref().is_some_and(|replace| replace != "*" && !is_issue_id(replace)) {
            return Err(IssueBodyError::Member);
        }
        Ok(Self { csr: text("csr")?.ok_or(IssueBodyError::Member)?, replace })
    }
}

/// Whether `rid` can name a request for a certificate: 4 to 36 letters, digits and hyphens, no hyphen at an end.
#[must_use]
pub fn is_issue_id(rid: &str) -> bool {
    REPLACE_ID.contains(&rid.len())
        && rid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !rid.starts_with('-')
        && !rid.ends_with('-')
}

/// Writes the body of a request for a certificate of the device `device_id`; with `replace` it takes the place of an
/// earlier one.
#[must_use]
pub fn issue_certificate_body(
    device_id: &str,
    request: &CertificateRequest,
    replace: Option<&str>,
) -> String {
    // Neither ids nor base64 have a character that JSON escapes.
    let csr = request.as_base64();
    match replace {
        None => format!("{{\"id\":\"{device_id}\",\"csr\":\"{csr}\"}}"),
        Some(replace) => format!("{{\"id\":\"{device_id}\",\"csr\":\"{csr}\",\"replace\":\"{replace}\"}}"),
    }
}

/// Reads the certificates in the last answer to such a request: the member `certificates`, or a bare list; base64 of DER,
/// or PEM (services and documents differ).
///
/// # Errors
/// [`CertificateError::Chain`].
pub fn issued_certificates(body: &[u8]) -> Result<CertificateChain, CertificateError> {
    let text = core::str::from_utf8(body).map_err(|_| CertificateError::Chain)?;
    let list: Vec<String> = match serde_json::from_str(text) {
        Ok(list) => list,
        Err(_) => {
            let members: BTreeMap<String, &RawValue> =
                serde_json::from_str(text).map_err(|_| CertificateError::Chain)?;
            let list = members.get("certificates").ok_or(CertificateError::Chain)?;
            serde_json::from_str(list.get()).map_err(|_| CertificateError::Chain)?
        }
    };
    CertificateChain::from_base64(&list)
}

/// The bytes that base64 stands for, with PEM lines or without.
fn base64_of(text: &str) -> Option<Vec<u8>> {
    let plain: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    STANDARD.decode(plain).ok()
}

/// The one common name of a subject.
fn common_name(name: &Name) -> Option<String> {
    let name = name.common_name().ok()??;
    Some(name.value().to_string()).filter(|name| !name.is_empty())
}

fn is_strong(key: &SubjectPublicKeyInfoOwned) -> bool {
    match key.algorithm.oid {
        ELLIPTIC => {
            let curve = key.algorithm.parameters.as_ref();
            let curve = curve.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
            matches!(curve, Some(P256 | P384))
        }
        RSA => modulus_bits(key.subject_public_key.raw_bytes()).is_some_and(|bits| bits >= RSA_MIN),
        _ => false,
    }
}

/// The length of an RSA key: `SEQUENCE { modulus INTEGER, exponent INTEGER }`.
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    let modulus = reader.sequence(|inner: &mut SliceReader<'_>| {
        let modulus = UintRef::decode(inner)?;
        UintRef::decode(inner)?;
        Ok::<_, x509_cert::der::Error>(modulus)
    });
    let bytes = modulus.ok()?.as_bytes();
    let leading = bytes.first()?.leading_zeros() as usize;
    bytes.len().checked_mul(8)?.checked_sub(leading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_no_certificate_and_no_request() {
        for text in ["", "!", "QQ==", "MIIB", "MAA=", "-----BEGIN CERTIFICATE REQUEST-----"] {
            assert!(CertificateRequest::from_base64(text).is_err(), "{text}");
            assert_eq!(CertificateChain::from_base64(&[text]), Err(CertificateError::Chain), "{text}");
        }
        assert_eq!(CertificateChain::from_base64::<&str>(&[]), Err(CertificateError::Chain));
        assert_eq!(CertificateRequest::from_base64(&"A".repeat(CSR_MAX + 1)), Err(CertificateError::Base64));
    }

    /// A request with an RSA key of 1024 bits, and one with P-256; both for CN=dev1.
    const WEAK: &str = "MIIBTjCBuAIBADAPMQ0wCwYDVQQDDARkZXYxMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDdfPXUqp3SpQNrCPSCGcvYfLtrVb3Vdj/dR6heU/xd+gvTBZoA5XGvTPP587F46C4ox4UVEIEUEtQBpd53I/4BMZT/RzuFcPaajBvfAWEa5HypXNBjS7vikIjmjFnYBLVhNcxXJ2CQzuhJII+DcC8+oLz+vbn8pdgDOEr1/Oz2qQIDAQABoAAwDQYJKoZIhvcNAQELBQADgYEAmksuJeWhVGpU1yUXo49/xwMYppzdZGu50XomItj5/AnotpNrKqPcXsZ8LLuaRThHdk4Ig1eKCoFa4CNrInVSOqNZ56z/RP8mUSFzRKDh+yOHc+uEAKIah3RQWSkFt3N5N4+xnriCFHcPcykPxRsWvlbspE0o6Wt6eKW3b3VXfQk=";
    const STRONG: &str = "MIHJMHECAQAwDzENMAsGA1UEAwwEZGV2MTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHE47ICld8IZbKYpzWFu3hdbp5kTtERCNrUsTQJap80whYyUWTz9J60X56K9iSxZZWobAGggKGGiDQtOxhQjsESgADAKBggqhkjOPQQDAgNIADBFAiEAxe4PlKT7qIzgS8UQFvU19UqFY391CLkog1TZq8Rc3yYCICLbfk2Siru54CEpa4fs9lH2n+SXm9E6FRenFrIyErlU";

    #[test]
    fn a_request_names_its_device_and_has_a_strong_key() {
        assert_eq!(CertificateRequest::from_base64(WEAK), Err(CertificateError::Key));
        let request = CertificateRequest::from_base64(STRONG).unwrap();
        assert_eq!((request.common_name(), request.as_base64()), ("dev1", STRONG));
        assert_eq!(CertificateRequest::from_der(request.as_der()), Ok(request));
    }

    #[test]
    fn a_request_at_the_hub_has_the_documented_members_and_no_other() {
        let parse = |body: &str| IssueBody::parse(body.as_bytes(), "d");
        let body =
            |replace: Option<&str>| Ok(IssueBody { csr: "QQ==".into(), replace: replace.map(Into::into) });
        assert_eq!(parse(r#"{"id":"d","csr":"QQ=="}"#), body(None));
        assert_eq!(parse(r#"{"id":"d","csr":"QQ==","replace":null}"#), body(None));
        assert_eq!(parse(r#"{"id":"d","csr":"QQ==","replace":"*"}"#), body(Some("*")));
        assert_eq!(parse(r#"{"id":"d","csr":"QQ==","replace":"req-001"}"#), body(Some("req-001")));
        for wrong in [
            "{}",
            r#"{"id":"d"}"#,
            r#"{"csr":"QQ=="}"#,
            r#"{"id":"D","csr":"QQ=="}"#,
            r#"{"id":"d","csr":1}"#,
            r#"{"id":"d","csr":"QQ==","x":1}"#,
            r#"{"id":"d","csr":"QQ==","replace":"-req"}"#,
            r#"{"id":"d","csr":"QQ==","replace":"abc"}"#,
        ] {
            assert_eq!(parse(wrong), Err(IssueBodyError::Member), "{wrong}");
        }
        for wrong in ["", "[]", "1", "{"] {
            assert_eq!(parse(wrong), Err(IssueBodyError::NotJson), "{wrong}");
        }
    }
}
