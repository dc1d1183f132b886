//! How a device of an enrollment proves itself: as it stands in JSON, and as it is compared.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::iothub::sas::SymmetricKey;
use rustls::pki_types::CertificateDer;
use serde_json::{Map, Value, json};

use super::certificates::{self, Authority};
use super::error::Refusal;
use super::identifiers::key;

/// Lengths of a key that somebody brings (DPS: symmetric key attestation).
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 16..=64;

/// How a device of an enrollment proves itself.
#[derive(Clone, Debug)]
pub(super) enum Attestation {
    /// By a key, or in a group by one that is derived from it.
    Keys { primary: SymmetricKey, secondary: SymmetricKey },
    /// By one of these certificates, each with its DER.
    Certificates(Vec<CertificateDer<'static>>),
    /// By a certificate that leads to one of these.
    Signed(Vec<CertificateDer<'static>>),
    /// By one that leads to an authority of one of these names.
    Authorities(Vec<String>),
    /// By a TPM, which this service does not look at; or not at all.
    Unsupported,
}

impl Attestation {
    /// Reads the member `attestation` of an enrollment; gives it, and its JSON as it is kept. Keys that are not named are
    /// those of `before`, or made.
    pub(super) fn read(value: Option<&Value>, before: Option<&Self>) -> Result<(Self, Value), Refusal> {
        let wrong = |what: &str| Refusal::bad_request(format!("attestation: {what}"));
        let value = value.and_then(Value::as_object).ok_or_else(|| wrong("it is a JSON object with type"))?;
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        match kind.to_ascii_lowercase().as_str() {
            "symmetrickey" => Self::read_keys(value.get("symmetricKey"), before),
            "x509" => Self::read_certificates(value.get("x509").unwrap_or(&Value::Null)),
            "tpm" => {
                let key = value.get("tpm").and_then(|tpm| tpm.get("endorsementKey")).and_then(Value::as_str);
                if key.is_none_or(|key| key.is_empty() || STANDARD.decode(key).is_err()) {
                    return Err(wrong("tpm.endorsementKey is base64"));
                }
                Ok((Self::Unsupported, Value::Object(value.clone())))
            }
            "none" => Ok((Self::Unsupported, json!({"type": "none"}))),
            _ => Err(wrong("type is symmetricKey, x509, tpm or none")),
        }
    }

    fn read_keys(value: Option<&Value>, before: Option<&Self>) -> Result<(Self, Value), Refusal> {
        let (old_primary, old_secondary) = match before {
            Some(Self::Keys { primary, secondary }) => (Some(primary), Some(secondary)),
            _ => (None, None),
        };
        let named = |name: &str, old: Option<&SymmetricKey>| match value
            .and_then(|keys| keys.get(name))
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
        {
            None => match old {
                Some(old) => Ok(old.clone()),
                None => Ok(key()?),
            },
            Some(text) => {
                let length = STANDARD.decode(text).map_or(0, |bytes| bytes.len());
                SymmetricKey::from_base64(text).ok().filter(|_| KEY_LENGTHS.contains(&length)).ok_or_else(|| {
                        Refusal::bad_request(format!(
                            "attestation: symmetricKey.{name} is base64 of 16 to 64 bytes; leave it out to have one made"
                        ))
                    })
            }
        };
        let (primary, secondary) = (named("primaryKey", old_primary)?, named("secondaryKey", old_secondary)?);
        let keys = json!({"primaryKey": primary.to_base64(), "secondaryKey": secondary.to_base64()});
        Ok((Self::Keys { primary, secondary }, json!({"type": "symmetricKey", "symmetricKey": keys})))
    }

    fn read_certificates(value: &Value) -> Result<(Self, Value), Refusal> {
        let wrong = |what: String| Refusal::bad_request(format!("attestation: x509: {what}"));
        let kinds = ["clientCertificates", "signingCertificates", "caReferences"];
        let present = |kind: &&str| value.get(*kind).is_some_and(|part| !part.is_null());
        let mut named = kinds.into_iter().filter(present);
        let (Some(kind), None) = (named.next(), named.next()) else {
            return Err(wrong(format!("one of {} is named", kinds.join(", "))));
        };
        let part = value.get(kind).unwrap_or(&Value::Null);
        let (mut found, mut kept, mut names) = (Vec::new(), Map::new(), Vec::new());
        for slot in ["primary", "secondary"] {
            let Some(part) = part.get(slot).filter(|part| !part.is_null()) else { continue };
            if kind == "caReferences" {
                names
                    .push(part.as_str().ok_or_else(|| wrong(format!("{kind}.{slot} is a name")))?.to_owned());
                kept.insert(slot.to_owned(), part.clone());
                continue;
            }
            let text = part.get("certificate").and_then(Value::as_str).unwrap_or_default();
            let certificate = certificates::read(text).ok_or_else(|| {
                wrong(format!("{kind}.{slot}.certificate is PEM, base64 of PEM or base64 of DER"))
            })?;
            let info = certificates::info(&certificate);
            kept.insert(slot.to_owned(), json!({"certificate": STANDARD.encode(&certificate), "info": info}));
            found.push(certificate);
        }
        if found.is_empty() && names.is_empty() {
            return Err(wrong(format!("{kind} has a primary one")));
        }
        let attestation = match kind {
            "clientCertificates" => Self::Certificates(found),
            "signingCertificates" => Self::Signed(found),
            _ => Self::Authorities(names),
        };
        Ok((attestation, json!({"type": "x509", "x509": {kind: kept}})))
    }

    /// The same without what would let a reader in.
    pub(super) fn without_keys(attestation: &Value) -> Value {
        match attestation.get("type").and_then(Value::as_str) {
            Some("symmetricKey") => json!({"type": "symmetricKey", "symmetricKey": {}}),
            _ => attestation.clone(),
        }
    }

    /// The certificates of a group: one of them must stand behind a device's.
    pub(super) fn authorities<'a>(
        &'a self,
        known: &'a [Authority],
    ) -> impl Iterator<Item = &'a CertificateDer<'static>> {
        let (own, names): (&[CertificateDer<'static>], &[String]) = match self {
            Self::Signed(certificates) => (certificates, &[]),
            Self::Authorities(names) => (&[], names),
            _ => (&[], &[]),
        };
        let named = known.iter().filter(|authority| names.contains(&authority.name));
        own.iter().chain(named.map(|authority| &authority.certificate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_where_none_are_named_and_kept_where_there_are_some() {
        let read = |value: Value, before: Option<&Attestation>| Attestation::read(Some(&value), before);
        let (made, shown) = read(json!({"type": "symmetricKey"}), None).unwrap();
        assert_eq!(shown["symmetricKey"]["primaryKey"].as_str().unwrap().len(), 88);
        let again = read(json!({"type": "symmetricKey", "symmetricKey": {}}), Some(&made)).unwrap().1;
        assert_eq!(again, shown);
        let own = STANDARD.encode([7; 16]);
        let keys = json!({"type": "SymmetricKey", "symmetricKey": {"primaryKey": own}});
        assert_eq!(read(keys, None).unwrap().1["symmetricKey"]["primaryKey"], own);
        assert_eq!(Attestation::without_keys(&shown), json!({"type": "symmetricKey", "symmetricKey": {}}));
    }

    #[test]
    fn what_proves_nothing_is_refused() {
        for wrong in [
            json!(null),
            json!({}),
            json!({"type": "password"}),
            json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": "short"}}),
            json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": STANDARD.encode([7; 65])}}),
            json!({"type": "x509"}),
            json!({"type": "x509", "x509": {"clientCertificates": {}}}),
            json!({"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": "x"}}}}),
            json!({"type": "x509", "x509": {"caReferences": {"primary": 1}}}),
            json!({"type": "x509", "x509": {"caReferences": {"primary": "a"}, "signingCertificates": {}}}),
            json!({"type": "tpm", "tpm": {}}),
        ] {
            assert!(Attestation::read(Some(&wrong), None).is_err(), "{wrong}");
        }
    }
}
