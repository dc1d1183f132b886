//! A telemetry message as a line of `GET /messages/events`: JSON, with the names of Event Hubs.
//!
//! A reader follows devices that send more than a million messages a second, so the line is written into the text where it
//! is sent from, without a tree of values.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::iothub::SystemProperty;
use serde_json::Value;

use crate::telemetry::message::Message;
use crate::telemetry::sender::SenderFields;

/// A property, decoded; without a value where it had no `=`.
struct Property<'b> {
    name: Cow<'b, str>,
    value: Option<Cow<'b, str>>,
    system: Option<SystemProperty>,
}

impl<'b> Message<'b> {
    /// The line, without a line end.
    #[must_use]
    pub fn to_line(&self, cursor: u64) -> String {
        let mut line = String::new();
        self.write_line(cursor, &mut line);
        line
    }

    /// Appends the line, without a line end.
    pub fn write_line(&self, cursor: u64, out: &mut String) {
        let properties = self.properties();
        let append = |out: &mut String, text: std::fmt::Arguments<'_>| {
            let _ = out.write_fmt(text); // a String takes everything
        };
        append(out, format_args!(r#"{{"cursor":{cursor},"deviceId":"#));
        quote(self.sender.device_id, out);
        if let Some(module_id) = self.sender.module_id {
            out.push_str(r#","moduleId":"#);
            quote(module_id, out);
        }
        out.push_str(r#","enqueuedTime":""#);
        let start = out.len();
        append(out, format_args!("{}", self.enqueued));
        let enqueued = start..out.len();
        out.push_str(r#"","body":""#);
        STANDARD.encode_string(self.body, out);
        out.push_str(r#"","properties":{"#);
        let mut separator = "";
        for property in properties.iter().filter(|property| property.system.is_none()) {
            out.push_str(separator);
            member(&property.name, property.value.as_deref(), out);
            separator = ",";
        }
        out.push_str(r#"},"systemProperties":{"#);
        for property in &properties {
            if let Some(system) = property.system.filter(|&system| !is_stamped(system)) {
                member(system.event_hubs_name(), property.value.as_deref(), out);
                out.push(',');
            }
        }
        stamp(&self.sender, out);
        out.push_str(r#""iothub-enqueuedtime":""#);
        out.extend_from_within(enqueued);
        out.push_str(r#"","iothub-message-source":"Telemetry"}}"#);
    }

    /// The properties by name; of those with the same name the last one counts.
    fn properties(&self) -> Vec<Property<'b>> {
        let property = |(name, value): (Cow<'b, str>, _)| Property {
            system: SystemProperty::from_wire(&name),
            name,
            value,
        };
        let mut properties: Vec<_> = self.content().properties().map(property).collect();
        // The sort keeps the order of equals, and the search for duplicates keeps the first: so backwards.
        properties.reverse();
        properties.sort_by(|one, other| one.name.cmp(&other.name));
        properties.dedup_by(|later, kept| later.name == kept.name);
        properties
    }
}

/// What the hub says about the sender: a device says nothing of that about itself.
const fn is_stamped(property: SystemProperty) -> bool {
    matches!(property, SystemProperty::ConnectionDeviceId | SystemProperty::ConnectionModuleId)
}

/// Appends what the hub says about the sender, each member with a comma behind it.
fn stamp(sender: &SenderFields<'_>, out: &mut String) {
    for (name, value) in [
        (r#""iothub-connection-device-id":"#, Some(sender.device_id)),
        (r#""iothub-connection-module-id":"#, sender.module_id),
        (r#""iothub-connection-auth-generation-id":"#, Some(sender.generation_id)),
        (r#""dt-dataschema":"#, sender.model_id),
    ] {
        if let Some(value) = value {
            out.push_str(name);
            quote(value, out);
            out.push(',');
        }
    }
    let (scope, auth_type) = sender.auth_scope_and_type();
    // JSON within a text of JSON. The words are the hub's own, and need no escapes.
    out.extend([
        r#""iothub-connection-auth-method":"{\"scope\":\""#,
        scope,
        r#"\",\"type\":\""#,
        auth_type,
        r#"\",\"issuer\":\"iothub\",\"acceptingIpFilterRule\":null}","#,
    ]);
}

fn member(name: &str, value: Option<&str>, out: &mut String) {
    quote(name, out);
    out.push(':');
    match value {
        Some(value) => quote(value, out),
        None => out.push_str("null"),
    }
}

/// Appends `text` as a text of JSON. Nearly all need no escapes, which is found out without a branch for each byte.
fn quote(text: &str, out: &mut String) {
    let needs_escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if text.bytes().fold(false, |found, byte| found | needs_escape(byte)) {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::message::tests::message;

    fn line(bag: &str) -> Value {
        serde_json::from_str(&message(bag).to_line(7)).unwrap()
    }

    #[test]
    fn a_line_is_the_message_with_what_the_hub_says_of_it() {
        let expected = json!({
            "cursor": 7,
            "deviceId": "demo",
            "enqueuedTime": "2023-11-14T22:13:20.000Z",
            "body": "AP8=",
            "properties": {"alert": "true", "bare": null, "$.xyz": "1"},
            "systemProperties": {
                "message-id": "m1",
                "iothub-connection-device-id": "demo",
                "iothub-connection-auth-generation-id": "1",
                "iothub-connection-auth-method":
                    r#"{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#,
                "iothub-enqueuedtime": "2023-11-14T22:13:20.000Z",
                "iothub-message-source": "Telemetry",
            },
        });
        assert_eq!(line("$.mid=m1&alert=true&bare&%24.xyz=1"), expected);
    }

    #[test]
    fn of_properties_with_one_name_the_last_counts_and_the_line_has_one() {
        let text = message("a=1&b=2&a&$.mid=x&%61=3&$.mid=y").to_line(7);
        assert_eq!(text.matches(r#""a":"#).count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["properties"], json!({"a": "3", "b": "2"}));
        assert_eq!(line["systemProperties"]["message-id"], "y");
    }

    #[test]
    fn every_character_is_escaped_as_json_has_it() {
        for character in (0..=0x2FF).filter_map(char::from_u32) {
            let text = format!("a{character}b");
            let mut quoted = String::new();
            quote(&text, &mut quoted);
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text, "{quoted}");
        }
        let quote_in_name = line("a%22%5C%0A=%22");
        assert_eq!(quote_in_name["properties"], json!({"a\"\\\n": "\""}));
    }

    #[test]
    fn a_device_cannot_send_in_the_name_of_another() {
        let text = message("$.cdid=other&$.cmid=module").to_line(7);
        assert!(!text.contains("other") && !text.contains("iothub-connection-module-id"), "{text}");
    }

    #[test]
    fn a_module_and_its_model_are_named() {
        let mut message = message("");
        message.sender.module_id = Some("m");
        message.sender.model_id = Some("dtmi:a;1");
        let line: Value = serde_json::from_str(&message.to_line(1)).unwrap();
        assert_eq!(line["moduleId"], "m");
        assert_eq!(line["systemProperties"]["iothub-connection-module-id"], "m");
        assert_eq!(line["systemProperties"]["dt-dataschema"], "dtmi:a;1");
    }

    #[test]
    fn the_model_cannot_be_claimed() {
        let claimed = line("dt-dataschema=claimed&iothub-message-source=claimed");
        assert_eq!(claimed["systemProperties"].get("dt-dataschema"), None);
        assert_eq!(claimed["systemProperties"]["iothub-message-source"], "Telemetry");
    }
}
