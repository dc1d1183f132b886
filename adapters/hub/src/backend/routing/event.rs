//! A stored message on its way to an endpoint.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::message::{RoutedMessage, decoded};
use super::source::Source;
use crate::backend::ClientId;

/// Names of system properties: at Event Hubs, and in conditions and files.
const NAMES: [(&str, &str); 10] = [
    ("content-type", "contentType"),
    ("content-encoding", "contentEncoding"),
    ("message-id", "messageId"),
    ("correlation-id", "correlationId"),
    ("user-id", "userId"),
    ("iothub-connection-device-id", "connectionDeviceId"),
    ("iothub-connection-module-id", "connectionModuleId"),
    ("iothub-connection-auth-method", "connectionAuthMethod"),
    ("iothub-connection-auth-generation-id", "connectionDeviceGenerationId"),
    ("iothub-enqueuedtime", "enqueuedTime"),
];

/// A message as readers see it, with its cursor.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) cursor: u64,
    /// Who sent it.
    pub(super) client_id: ClientId,
    line: Map<String, Value>,
}

impl StoredMessage {
    /// The message of a [line](crate::telemetry::line).
    pub(super) fn of_line(cursor: u64, line: &str) -> Option<Self> {
        let Ok(Value::Object(line)) = serde_json::from_str(line) else { return None };
        let text = |name: &str| line.get(name).and_then(Value::as_str);
        let client_id = ClientId::new(text("deviceId")?, text("moduleId")).ok()?;
        Some(Self { cursor, client_id, line })
    }

    fn members(&self, name: &str) -> Vec<(String, String)> {
        let members = self.line.get(name).and_then(Value::as_object);
        // A property without a value reads as an empty one.
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        members.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
    }

    fn body(&self) -> &str {
        self.line.get("body").and_then(Value::as_str).unwrap_or_default()
    }

    /// As conditions see it.
    pub(super) fn routed(&self, twin: Value) -> RoutedMessage {
        let mut system = self.members("systemProperties");
        for (name, _) in &mut system {
            if let Some((_, known)) = NAMES.iter().find(|(known, _)| name == known) {
                (*known).clone_into(name);
            }
        }
        let encoding =
            system.iter().find(|(name, _)| name == "contentEncoding").map(|(_, value)| value.as_str());
        let body = STANDARD.decode(self.body()).ok().and_then(|body| decoded(&body, encoding));
        RoutedMessage::new(Source::DeviceMessages, body.as_deref(), self.members("properties"), system, twin)
    }

    /// As a file of a container has it: a line of JSON.
    pub(super) fn to_record(&self, message: &RoutedMessage, enrichments: Vec<(String, String)>) -> String {
        let mut system = Map::new();
        for (name, value) in self.members("systemProperties") {
            let known = NAMES.iter().find(|(known, _)| name == *known);
            system.insert(known.map_or(name.as_str(), |(_, name)| *name).to_owned(), value.into());
        }
        json!({
            "EnqueuedTimeUtc": self.line.get("enqueuedTime"),
            "Properties": self.properties(enrichments),
            "SystemProperties": system,
            "Body": self.json_or_base64(message),
        })
        .to_string()
    }

    fn properties(&self, enrichments: Vec<(String, String)>) -> Map<String, Value> {
        let all = self.members("properties").into_iter().chain(enrichments);
        all.map(|(name, value)| (name, value.into())).collect()
    }

    fn json_or_base64(&self, message: &RoutedMessage) -> Value {
        message.json_body().cloned().unwrap_or_else(|| self.body().into())
    }

    /// As Event Grid sends it: a list of one event. Its id is the same however often it is sent.
    pub(super) fn to_event_grid(
        &self,
        message: &RoutedMessage,
        hub_name: &str,
        enrichments: Vec<(String, String)>,
    ) -> String {
        let mut system = Map::new();
        for (name, value) in self.members("systemProperties") {
            let is_content = matches!(name.as_str(), "content-type" | "content-encoding");
            system.insert(if is_content { format!("iothub-{name}") } else { name }, value.into());
        }
        let device_id = self.client_id.device_id();
        let subject = match self.client_id.module_id() {
            None => format!("devices/{device_id}"),
            Some(module_id) => format!("devices/{device_id}/modules/{module_id}"),
        };
        json!([{
            "id": format!("{hub_name}-{}", self.cursor),
            "topic": topic(hub_name),
            "subject": subject,
            "eventType": "Microsoft.Devices.DeviceTelemetry",
            "eventTime": self.line.get("enqueuedTime"),
            "data": {
                "body": self.json_or_base64(message),
                "properties": self.properties(enrichments),
                "systemProperties": system,
            },
            "dataVersion": "",
            "metadataVersion": "1",
        }])
        .to_string()
    }
}

/// The resource that events are about, as Event Grid names it.
pub(super) fn topic(hub_name: &str) -> String {
    format!("/providers/Microsoft.Devices/IotHubs/{hub_name}")
}
