//! Who sent a telemetry message, as the hub knows it.

use std::cell::Cell;

use devicebound::hub::{Authentication, Credential, DeviceRecord};

use crate::telemetry::bytes::{Reader, put_text};

/// What the hub itself says about the sender of a message; a device cannot forge it.
///
/// Each connection keeps one, so it is as short as it goes into a [`Block`](crate::telemetry::block::Block).
#[derive(Debug)]
pub struct Sender {
    pub(super) encoded: Box<[u8]>,
    /// The number of the block that it was written into last, and its place among that block's senders.
    pub(super) mark: Cell<(u64, u32)>,
}

/// The same, readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderFields<'b> {
    /// The device.
    pub device_id: &'b str,
    /// The module, if it is one.
    pub module_id: Option<&'b str>,
    pub(crate) generation_id: &'b str,
    /// `sas` or `x509`, and in front of it, with a slash, whose credential it was where it was not the sender's own: `hub`
    /// or `device`.
    pub(super) auth_type: &'b str,
    pub(crate) model_id: Option<&'b str>,
}

impl Sender {
    /// The sender of a record, by what the registry knows it by.
    #[must_use]
    pub fn of(record: &DeviceRecord) -> Self {
        let auth_type = match record.identity.authentication {
            Authentication::Sas { .. } => "sas",
            Authentication::SelfSigned { .. } | Authentication::CertificateAuthority => "x509",
        };
        Self::by(record, auth_type)
    }

    /// The sender at a connection, by what that proved itself with.
    #[must_use]
    pub fn of_connection(record: &DeviceRecord, credential: Credential) -> Self {
        let auth_type = match credential {
            Credential::Other => "hub/sas",
            Credential::DeviceKey(_) => "device/sas",
            Credential::Key(_) => "sas",
            Credential::Thumbprint(_) | Credential::CertificateAuthority => "x509",
        };
        Self::by(record, auth_type)
    }

    fn by(record: &DeviceRecord, auth_type: &str) -> Self {
        let identity = record.identity.identity();
        Self::new(&SenderFields {
            device_id: identity.device_id(),
            module_id: identity.module_id(),
            generation_id: &record.identity.generation_id,
            auth_type,
            model_id: record.model_id(),
        })
    }

    fn new(fields: &SenderFields<'_>) -> Self {
        let mut encoded = Vec::new();
        // No id is empty, so that an empty text says that there is none.
        for text in [
            fields.device_id,
            fields.module_id.unwrap_or_default(),
            fields.generation_id,
            fields.auth_type,
            fields.model_id.unwrap_or_default(),
        ] {
            put_text(text, &mut encoded);
        }
        Self { encoded: encoded.into(), mark: Cell::default() }
    }

    /// The client id: device id, for a module device id, slash, module id.
    #[must_use]
    pub fn client_id(&self) -> String {
        match SenderFields::read(&mut Reader::new(&self.encoded)) {
            Some(SenderFields { device_id, module_id: None, .. }) => device_id.to_owned(),
            Some(SenderFields { device_id, module_id: Some(module_id), .. }) => {
                format!("{device_id}/{module_id}")
            }
            None => String::new(),
        }
    }

    /// How it proved itself: JSON text, as Azure writes it.
    #[must_use]
    pub fn auth_method(&self) -> String {
        SenderFields::read(&mut Reader::new(&self.encoded))
            .map_or_else(String::new, |fields| fields.auth_method())
    }
}

impl<'b> SenderFields<'b> {
    pub(super) fn read(reader: &mut Reader<'b>) -> Option<Self> {
        let present = |text: &'b str| Some(text).filter(|text| !text.is_empty());
        Some(Self {
            device_id: reader.text()?,
            module_id: present(reader.text()?),
            generation_id: reader.text()?,
            auth_type: reader.text()?,
            model_id: present(reader.text()?),
        })
    }

    /// JSON text, as Azure writes it.
    pub(crate) fn auth_method(&self) -> String {
        let (scope, auth_type) = self.auth_scope_and_type();
        format!(
            r#"{{"scope":"{scope}","type":"{auth_type}","issuer":"iothub","acceptingIpFilterRule":null}}"#
        )
    }

    /// Whose credential it was, and of which type.
    pub(crate) fn auth_scope_and_type(&self) -> (&'b str, &'b str) {
        let own = if self.module_id.is_some() { "module" } else { "device" };
        self.auth_type.split_once('/').unwrap_or((own, self.auth_type))
    }
}

#[cfg(test)]
mod tests {
    use devicebound::hub::{DeviceIdentity, KeySlot};
    use devicebound::iothub::sas::SymmetricKey;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_way_that_a_sender_proved_itself_is_stamped_as_azure_writes_it() {
        let key = || SymmetricKey::from_bytes(&[7; 32]);
        let record = |client_id| {
            let authentication = Authentication::Sas { primary: key(), secondary: key() };
            DeviceRecord::new(DeviceIdentity::new(client_id, "1".to_owned(), authentication).unwrap())
        };
        for (client_id, credential, scope, auth_type) in [
            ("a", Credential::Key(KeySlot::Secondary), "device", "sas"),
            ("a", Credential::Thumbprint(KeySlot::Primary), "device", "x509"),
            ("a", Credential::CertificateAuthority, "device", "x509"),
            ("a", Credential::Other, "hub", "sas"),
            ("a/b", Credential::Key(KeySlot::Primary), "module", "sas"),
            ("a/b", Credential::DeviceKey(KeySlot::Primary), "device", "sas"),
            ("a/b", Credential::Other, "hub", "sas"),
        ] {
            let sender = Sender::of_connection(&record(client_id), credential);
            let method: Value = serde_json::from_str(&sender.auth_method()).unwrap();
            let expected =
                json!({"scope": scope, "type": auth_type, "issuer": "iothub", "acceptingIpFilterRule": null});
            assert_eq!(method, expected, "{client_id} {credential:?}");
        }
    }

    #[test]
    fn a_sender_is_known_by_its_client_id() {
        let fields = SenderFields {
            device_id: "a",
            module_id: Some("b"),
            generation_id: "1",
            auth_type: "sas",
            model_id: None,
        };
        assert_eq!(Sender::new(&fields).client_id(), "a/b");
        assert_eq!(Sender::new(&SenderFields { module_id: None, ..fields }).client_id(), "a");
    }
}
