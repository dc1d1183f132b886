//! What a device sends when it registers.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;

use serde_json::value::RawValue;

use super::RegistrationId;
use crate::iothub::json_text;
use crate::limits::DPS_MESSAGE_MAX;
use crate::rule::Rule;

/// The members of a register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterBody {
    /// JSON for the enrollment's custom allocation, as it was sent; `None` where it is missing or null.
    pub payload: Option<String>,
    /// A certificate request: base64 of its DER.
    pub csr: Option<String>,
    /// The device shows a TPM.
    pub tpm: bool,
}

/// Why the body of a register is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is not a JSON object, or a member has another type.
    #[error("{}", Rule::DpsBody.says())]
    Malformed,
    /// It is longer than [`DPS_MESSAGE_MAX`].
    #[error("{}", Rule::DpsBodySize.says())]
    TooLarge,
    /// It names another registration id than the connection does.
    #[error("{}", Rule::DpsBodyId.says())]
    OtherId,
}

impl BodyError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Malformed => Rule::DpsBody,
            Self::TooLarge => Rule::DpsBodySize,
            Self::OtherId => Rule::DpsBodyId,
        }
    }
}

impl RegisterBody {
    /// Reads the body of a register of `registration_id`. An empty one is legal: it has no members.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn parse(body: &[u8], registration_id: RegistrationId<'_>) -> Result<Self, BodyError> {
        if body.len() > DPS_MESSAGE_MAX {
            return Err(BodyError::TooLarge);
        }
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let members: BTreeMap<String, &RawValue> =
            serde_json::from_slice(body).map_err(|_| BodyError::Malformed)?;
        let member = |name| members.get(name).map(|value| value.get()).filter(|text| *text != "null");
        let text = |name| member(name).map(|value| json_text(value).ok_or(BodyError::Malformed)).transpose();
        if text("registrationId")?.is_some_and(|id| !id.eq_ignore_ascii_case(registration_id.as_str())) {
            return Err(BodyError::OtherId);
        }
        Ok(Self {
            payload: member("payload").map(ToOwned::to_owned),
            csr: text("csr")?,
            tpm: member("tpm").is_some(),
        })
    }
}

/// Writes the body of a register. `payload` is JSON and stands as it is; `csr` is base64.
#[must_use]
pub fn register_body(
    registration_id: RegistrationId<'_>,
    payload: Option<&str>,
    csr: Option<&str>,
) -> String {
    let mut body = String::from("{\"registrationId\":\"");
    body.push_str(registration_id.as_str()); // none of its characters is escaped in JSON
    body.push('"');
    if let Some(payload) = payload {
        body.push_str(",\"payload\":");
        body.push_str(payload);
    }
    if let Some(csr) = csr {
        body.push_str(",\"csr\":\"");
        body.push_str(csr); // nor of base64's
        body.push('"');
    }
    body.push('}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<RegisterBody, BodyError> {
        RegisterBody::parse(body.as_bytes(), RegistrationId::new("dev-1").unwrap())
    }

    #[test]
    fn a_payload_is_handed_on_to_the_letter() {
        let payload = r#"{"b" : 1e2,"a":[1.10 , "\u00e4"]}"#;
        let body = alloc::format!("{{\"payload\":{payload}}}");
        assert_eq!(parse(&body).unwrap().payload.as_deref(), Some(payload));
        for payload in ["1", "\"text\"", "[]", "false"] {
            let body = register_body(RegistrationId::new("dev-1").unwrap(), Some(payload), Some("QQ=="));
            let read = parse(&body).unwrap();
            assert_eq!((read.payload.as_deref(), read.csr.as_deref()), (Some(payload), Some("QQ==")));
        }
    }

    #[test]
    fn what_is_no_register_is_refused() {
        for body in
            ["[]", "1", "null", "{\"csr\":1}", "{\"registrationId\":[]}", "{} x", "\u{0}", "{\"payload\":}"]
        {
            assert_eq!(parse(body), Err(BodyError::Malformed), "{body}");
        }
        assert_eq!(
            parse("{\"registrationId\":\"DEV-1\"}"),
            Ok(RegisterBody::default()),
            "case does not count"
        );
        assert_eq!(parse("{\"registrationId\":\"\"}"), Err(BodyError::OtherId));
        assert_eq!(parse(&" ".repeat(DPS_MESSAGE_MAX + 1)), Err(BodyError::TooLarge));
        let deep = alloc::format!("{{\"payload\":{}1{}}}", "[".repeat(40_000), "]".repeat(40_000));
        assert!(parse(&deep).is_ok(), "what is not looked into may be as deep as it likes");
    }
}
