//! A telemetry message on its way from the machine to those who read it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::hub::{Authentication, DeviceRecord, Telemetry};
use devicebound::iothub::SystemProperty;
use devicebound::time::UnixTime;
use serde_json::{Map, Value, json};

/// What the hub itself says about the sender of a message; a device cannot forge it.
#[derive(Debug)]
pub struct Sender {
    /// The device.
    pub device_id: Arc<str>,
    /// The module, if it is one.
    pub module_id: Option<String>,
    generation_id: String,
    /// JSON text, as Azure writes it.
    auth_method: String,
    model_id: Option<String>,
}

impl Sender {
    /// The sender behind a record.
    #[must_use]
    pub fn of(record: &DeviceRecord) -> Self {
        let identity = record.identity.identity();
        let kind = match record.identity.authentication {
            Authentication::Sas { .. } => "sas",
            Authentication::SelfSigned { .. } | Authentication::CertificateAuthority => "x509",
        };
        let scope = if identity.module_id().is_some() { "module" } else { "device" };
        Self {
            device_id: identity.device_id().into(),
            module_id: identity.module_id().map(str::to_owned),
            generation_id: record.identity.generation_id.clone(),
            auth_method: format!(
                r#"{{"scope":"{scope}","type":"{kind}","issuer":"iothub","acceptingIpFilterRule":null}}"#
            ),
            model_id: record.model_id().map(str::to_owned),
        }
    }

    /// The client id: device id, for a module device id, slash, module id.
    #[must_use]
    pub fn client_id(&self) -> String {
        match &self.module_id {
            None => self.device_id.to_string(),
            Some(module_id) => format!("{}/{module_id}", self.device_id),
        }
    }
}

/// A telemetry message with all that outlives the bytes that it came in.
#[derive(Debug)]
pub struct Message {
    /// Who sent it.
    pub sender: Arc<Sender>,
    /// When the hub took it.
    pub enqueued: UnixTime,
    /// All properties, in order; `None` is a name without a value.
    pub properties: Vec<(String, Option<String>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// Copies what the machine hands out.
    #[must_use]
    pub fn new(telemetry: &Telemetry<'_>, sender: Arc<Sender>, enqueued: UnixTime) -> Self {
        let owned = |(name, value): (std::borrow::Cow<'_, str>, Option<std::borrow::Cow<'_, str>>)| {
            (name.into_owned(), value.map(std::borrow::Cow::into_owned))
        };
        Self {
            sender,
            enqueued,
            properties: telemetry.properties().map(owned).collect(),
            body: telemetry.payload.to_vec(),
        }
    }

    /// Bytes that it holds, near enough to bound a queue.
    #[must_use]
    pub fn size(&self) -> usize {
        let text = |(name, value): &(String, Option<String>)| {
            name.len() + value.as_ref().map_or(0, String::len) + 64
        };
        self.body.len() + self.properties.iter().map(text).sum::<usize>() + 128
    }

    /// The line of `GET /messages/events`, with the names of Event Hubs.
    #[must_use]
    pub fn to_line(&self, cursor: u64) -> String {
        let enqueued = self.enqueued.to_string();
        let mut application = Map::new();
        let mut system = Map::new();
        for (name, value) in &self.properties {
            let value = value.clone().map_or(Value::Null, Value::from);
            match SystemProperty::from_wire(name) {
                Some(property) => system.insert(property.event_hubs_name().to_owned(), value),
                None => application.insert(name.clone(), value),
            };
        }
        // Stamped last: what a device says about itself under these names does not count.
        let sender = &self.sender;
        for (name, value) in [
            ("iothub-connection-device-id", Some(&*sender.device_id)),
            ("iothub-connection-module-id", sender.module_id.as_deref()),
            ("iothub-connection-auth-generation-id", Some(sender.generation_id.as_str())),
            ("iothub-connection-auth-method", Some(sender.auth_method.as_str())),
            ("iothub-enqueuedtime", Some(enqueued.as_str())),
            ("iothub-message-source", Some("Telemetry")),
            ("dt-dataschema", sender.model_id.as_deref()),
        ] {
            match value {
                Some(value) => system.insert(name.to_owned(), value.into()),
                None => system.remove(name),
            };
        }
        let mut line = json!({
            "cursor": cursor,
            "deviceId": &*sender.device_id,
            "enqueuedTime": enqueued,
            "body": STANDARD.encode(&self.body),
            "properties": application,
            "systemProperties": system,
        });
        if let (Some(module_id), Some(line)) = (&sender.module_id, line.as_object_mut()) {
            line.insert("moduleId".to_owned(), module_id.as_str().into());
        }
        line.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender() -> Sender {
        Sender {
            device_id: "demo".into(),
            module_id: None,
            generation_id: "1".to_owned(),
            auth_method: "{}".to_owned(),
            model_id: None,
        }
    }

    fn line(properties: &[(&str, Option<&str>)]) -> Value {
        let owned = |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
        let message = Message {
            sender: Arc::new(sender()),
            enqueued: UnixTime::from_secs(1_700_000_000),
            properties: properties.iter().map(owned).collect(),
            body: vec![0, 255],
        };
        serde_json::from_str(&message.to_line(7)).unwrap()
    }

    #[test]
    fn system_properties_get_their_event_hubs_names() {
        let line = line(&[("$.mid", Some("m1")), ("alert", Some("true")), ("bare", None)]);
        assert_eq!(line["cursor"], 7);
        assert_eq!(line["body"], "AP8=");
        assert_eq!(line["enqueuedTime"], "2023-11-14T22:13:20.000Z");
        assert_eq!(line["systemProperties"]["message-id"], "m1");
        assert_eq!(line["properties"], json!({"alert": "true", "bare": null}));
        assert!(line.get("moduleId").is_none());
    }

    #[test]
    fn a_device_cannot_send_in_the_name_of_another() {
        let line = line(&[("$.cdid", Some("other")), ("$.cmid", Some("module"))]);
        assert_eq!(line["systemProperties"]["iothub-connection-device-id"], "demo");
        assert!(line["systemProperties"].get("iothub-connection-module-id").is_none());
    }
}
