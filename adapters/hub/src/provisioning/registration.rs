//! The registration of a device: where it was assigned to, and how that was answered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::iothub::provisioning::Status;
use serde_json::{Map, Value, json};

use super::error::Refusal;
use super::identifiers::guid;

/// From this api-version on, a device is told how to speak with its hub.
const WITH_PROFILE: &str = "2026-11";
/// From this one on, it is told that it was assigned again.
const WITH_REASSIGNMENT: &str = "2021-10-01";

/// What the service remembers of a device.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    /// As the device writes it.
    pub(super) id: String,
    /// The group that it came in by; `None`: an individual enrollment.
    pub(super) group: Option<String>,
    pub(super) operation_id: String,
    /// `DeviceRegistrationState`, the issued certificates included.
    pub(super) state: Map<String, Value>,
}

impl Registration {
    pub(super) fn key(&self) -> String {
        self.id.to_ascii_lowercase()
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.state.get(name).and_then(Value::as_str)
    }

    pub(super) fn status(&self) -> Status {
        self.text("status").and_then(Status::from_word).unwrap_or(Status::Unassigned)
    }

    /// The hub that the device has, if it was assigned to one.
    pub(super) fn hub(&self) -> Option<&str> {
        self.text("assignedHub").filter(|_| self.status() == Status::Assigned)
    }

    pub(super) fn of_document(document: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
        let state = document.get("state")?.as_object()?.clone();
        let id = state.get("registrationId")?.as_str()?.to_owned();
        Some(Self { id, group: text("group"), operation_id: text("operationId")?, state })
    }

    pub(super) fn to_document(&self) -> Value {
        json!({"group": self.group, "operationId": self.operation_id, "state": self.state})
    }

    /// What the device is told first: that somebody works on it.
    pub(super) fn assigning(&self) -> Value {
        json!({"operationId": self.operation_id, "status": Status::Assigning.word()})
    }

    /// What it is told in the end, in the words of the api-version that it speaks.
    pub(super) fn outcome(&self, api_version: &str) -> Value {
        let mut state = self.state.clone();
        if api_version < WITH_REASSIGNMENT
            && state.get("substatus").is_some_and(|substatus| substatus == "reprovisionedToInitialAssignment")
        {
            state.insert("substatus".to_owned(), "initialAssignment".into());
        }
        if api_version >= WITH_PROFILE && self.status() == Status::Assigned {
            state.insert("connectionProfile".to_owned(), "classic".into());
        }
        json!({"operationId": self.operation_id, "status": self.status().word(), "registrationState": state})
    }

    /// What everybody else is told, and the device when it looks itself up: without the certificates.
    pub(super) fn shown(&self) -> Value {
        let mut state = self.state.clone();
        state.remove("issuedCertificateChain");
        Value::Object(state)
    }
}

/// What a device is told whose enrollment is disabled. Nothing is remembered of it.
pub(super) fn disabled(id: &str) -> Value {
    let status = Status::Disabled.word();
    json!({
        "operationId": "", "status": status,
        "registrationState": {"registrationId": id, "status": status},
    })
}

/// An etag as registrations have it: base64 of a quoted GUID.
pub(super) fn new_etag() -> Result<String, Refusal> {
    Ok(STANDARD.encode(format!("\"{}\"", guid()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_in_the_words_of_its_api_version() {
        let state = json!({
            "registrationId": "dev-1", "status": "assigned", "substatus": "reprovisionedToInitialAssignment",
            "assignedHub": "h", "deviceId": "d", "issuedCertificateChain": ["QQ=="],
        });
        let registration = Registration {
            id: "dev-1".to_owned(),
            group: None,
            operation_id: "5.op".to_owned(),
            state: state.as_object().unwrap().clone(),
        };
        for (version, substatus, profile) in [
            ("2019-03-31", "initialAssignment", Value::Null),
            ("2021-10-01", "reprovisionedToInitialAssignment", Value::Null),
            ("2025-07-01-preview", "reprovisionedToInitialAssignment", Value::Null),
            ("2026-11-02-preview", "reprovisionedToInitialAssignment", "classic".into()),
        ] {
            let outcome = registration.outcome(version);
            let state = &outcome["registrationState"];
            assert_eq!((&state["substatus"], &state["connectionProfile"]), (&substatus.into(), &profile));
        }
        assert_eq!(registration.shown()["issuedCertificateChain"], Value::Null);
        let kept = registration.to_document();
        let again = Registration::of_document(kept.as_object().unwrap()).unwrap();
        assert_eq!(again.to_document(), kept);
    }
}
