//! A telemetry message as its readers see it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::hub::hub_properties;
use devicebound::iothub::{PropertyBag, SystemProperty};
use devicebound::time::UnixTime;
use serde_json::{Map, Value, json};

use crate::telemetry::sender::SenderFields;

/// A telemetry message of a block.
#[derive(Clone, Copy, Debug)]
pub struct Message<'b> {
    /// Who sent it.
    pub sender: SenderFields<'b>,
    /// When the hub took it.
    pub enqueued: UnixTime,
    /// The properties that the device sent.
    pub bag: PropertyBag<'b>,
    /// The name of the property that stands for the RETAIN flag, if that was set.
    pub retain_property: Option<&'b str>,
    /// The device sent it with DUP 1.
    pub is_dup: bool,
    /// A will.
    pub is_will: bool,
    /// The body.
    pub body: &'b [u8],
}

/// A message of a block without its sender.
#[derive(Clone, Copy, Debug)]
pub struct Content<'b> {
    /// When the hub took it.
    pub enqueued: UnixTime,
    /// The properties that the device sent.
    pub bag: PropertyBag<'b>,
    /// The name of the property that stands for the RETAIN flag, if that was set.
    pub retain_property: Option<&'b str>,
    /// The device sent it with DUP 1.
    pub is_dup: bool,
    /// A will.
    pub is_will: bool,
    /// The body.
    pub body: &'b [u8],
}

impl<'b> Content<'b> {
    pub(crate) const fn of(self, sender: SenderFields<'b>) -> Message<'b> {
        let Self { enqueued, bag, retain_property, is_dup, is_will, body } = self;
        Message { sender, enqueued, bag, retain_property, is_dup, is_will, body }
    }

    /// All properties: those of the bag in order, then the hub's own.
    pub(crate) fn properties(&self) -> impl Iterator<Item = (Cow<'b, str>, Option<Cow<'b, str>>)> {
        let own = hub_properties(self.retain_property, self.is_dup, self.is_will);
        self.bag.iter().chain(own.map(|(name, value)| (name.into(), Some(value.into()))))
    }

    /// Whether there are any.
    pub(crate) fn has_properties(&self) -> bool {
        !self.bag.as_str().is_empty() || self.retain_property.is_some() || self.is_dup || self.is_will
    }
}

impl<'b> Message<'b> {
    const fn content(&self) -> Content<'b> {
        let &Self { enqueued, bag, retain_property, is_dup, is_will, body, .. } = self;
        Content { enqueued, bag, retain_property, is_dup, is_will, body }
    }

    /// The line of `GET /messages/events`, with the names of Event Hubs.
    #[must_use]
    pub fn to_line(&self, cursor: u64) -> String {
        let enqueued = self.enqueued.to_string();
        let mut application = Map::new();
        let mut system = Map::new();
        for (name, value) in self.content().properties() {
            let value = value.map_or(Value::Null, Value::from);
            match SystemProperty::from_wire(&name) {
                Some(property) => system.insert(property.event_hubs_name().to_owned(), value),
                None => application.insert(name.into_owned(), value),
            };
        }
        // Stamped last: what a device says about itself under these names does not count.
        let sender = &self.sender;
        let auth_method = sender.auth_method();
        for (name, value) in [
            ("iothub-connection-device-id", Some(sender.device_id)),
            ("iothub-connection-module-id", sender.module_id),
            ("iothub-connection-auth-generation-id", Some(sender.generation_id)),
            ("iothub-connection-auth-method", Some(auth_method.as_str())),
            ("iothub-enqueuedtime", Some(enqueued.as_str())),
            ("iothub-message-source", Some("Telemetry")),
            ("dt-dataschema", sender.model_id),
        ] {
            match value {
                Some(value) => system.insert(name.to_owned(), value.into()),
                None => system.remove(name),
            };
        }
        let mut line = json!({
            "cursor": cursor,
            "deviceId": sender.device_id,
            "enqueuedTime": enqueued,
            "body": STANDARD.encode(self.body),
            "properties": application,
            "systemProperties": system,
        });
        if let (Some(module_id), Some(line)) = (sender.module_id, line.as_object_mut()) {
            line.insert("moduleId".to_owned(), module_id.into());
        }
        line.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bag: &str) -> Value {
        let sender = SenderFields {
            device_id: "demo",
            module_id: None,
            generation_id: "1",
            auth_type: "sas",
            model_id: None,
        };
        let message = Message {
            sender,
            enqueued: UnixTime::from_secs(1_700_000_000),
            bag: PropertyBag::parse(bag).unwrap(),
            retain_property: None,
            is_dup: false,
            is_will: false,
            body: &[0, 255],
        };
        serde_json::from_str(&message.to_line(7)).unwrap()
    }

    #[test]
    fn system_properties_get_their_event_hubs_names() {
        let line = line("$.mid=m1&alert=true&bare&%24.xyz=1");
        assert_eq!(line["cursor"], 7);
        assert_eq!(line["body"], "AP8=");
        assert_eq!(line["enqueuedTime"], "2023-11-14T22:13:20.000Z");
        assert_eq!(line["systemProperties"]["message-id"], "m1");
        assert_eq!(line["properties"], json!({"alert": "true", "bare": null, "$.xyz": "1"}));
        assert!(line.get("moduleId").is_none());
    }

    #[test]
    fn a_device_cannot_send_in_the_name_of_another() {
        let line = line("$.cdid=other&$.cmid=module");
        assert_eq!(line["systemProperties"]["iothub-connection-device-id"], "demo");
        assert!(line["systemProperties"].get("iothub-connection-module-id").is_none());
    }

    #[test]
    fn the_model_is_stamped_and_cannot_be_claimed() {
        let of = |model_id| {
            let sender = SenderFields {
                device_id: "d",
                module_id: None,
                generation_id: "1",
                auth_type: "sas",
                model_id,
            };
            let message = Message {
                sender,
                enqueued: UnixTime::from_secs(0),
                bag: PropertyBag::parse("dt-dataschema=claimed&iothub-message-source=claimed").unwrap(),
                retain_property: None,
                is_dup: false,
                is_will: false,
                body: &[],
            };
            serde_json::from_str::<Value>(&message.to_line(1)).unwrap()["systemProperties"].take()
        };
        assert_eq!(of(Some("dtmi:a;1"))["dt-dataschema"], "dtmi:a;1");
        assert_eq!(of(None).get("dt-dataschema"), None);
        assert_eq!(of(None)["iothub-message-source"], "Telemetry");
    }
}
