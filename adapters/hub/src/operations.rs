//! Connections that begin, fail and end, in the shape of Azure's operations monitoring.

use std::sync::Arc;

use devicebound::Rule;
use devicebound::session::{Close, CloseReason};
use serde_json::{Value, json};

use crate::clock::unix_time;
use crate::log::EventLog;

/// The events of the category `Connections`, as `GET /messages/operationsMonitoringEvents` serves them.
#[derive(Debug)]
pub struct Operations {
    /// The lines; few are kept, because strangers can make as many as they like.
    pub log: Arc<EventLog>,
}

impl Default for Operations {
    fn default() -> Self {
        Self { log: Arc::new(EventLog::new(1000, 1024 * 1024)) }
    }
}

impl Operations {
    /// A device is connected.
    pub fn connected(&self, client_id: &str) {
        self.append(client_id, event("deviceConnect", "Information", client_id));
    }

    /// A connection that was never accepted (`client_id` empty), or an accepted one, is over.
    pub fn closed(&self, client_id: Option<&str>, close: &Close, offending: &[u8]) {
        let rule = close.rule();
        let orderly = close.reason() == CloseReason::Disconnected;
        let level = if orderly { "Information" } else { "Error" };
        let operation = if client_id.is_some() { "deviceDisconnect" } else { "deviceConnect" };
        let client_id = client_id.unwrap_or_default();
        let mut event = event(operation, level, client_id);
        if let (Some(event), false) = (event.as_object_mut(), orderly) {
            let error = error_number(rule);
            event.insert("statusCode".to_owned(), error.map_or(400, |number| number / 1000).into());
            event.insert(
                "statusType".to_owned(),
                error.map_or(Value::Null, |number| number.to_string().into()),
            );
            event.insert(
                "statusDescription".to_owned(),
                format!("{}: {}", close.reason(), rule.says()).into(),
            );
            event.insert("mend".to_owned(), rule.mend().into());
            event.insert("rule".to_owned(), rule.id().into());
            let bytes: String = offending.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
            event.insert("bytes".to_owned(), bytes.into());
        }
        self.append(client_id, event);
    }

    fn append(&self, client_id: &str, mut event: Value) {
        let device_id: Arc<str> = client_id.split('/').next().unwrap_or_default().into();
        self.log.append(device_id, |cursor| {
            if let Some(event) = event.as_object_mut() {
                event.insert("cursor".to_owned(), cursor.into());
            }
            event.to_string()
        });
    }
}

fn event(operation: &str, level: &str, client_id: &str) -> Value {
    let (device, module) =
        client_id.split_once('/').map_or((client_id, None), |(device, module)| (device, Some(module)));
    let mut event = json!({
        "time": unix_time().to_string(),
        "operationName": operation,
        "category": "Connections",
        "level": level,
        "statusCode": 200,
        "deviceId": device,
        "protocol": "Mqtt",
    });
    if let (Some(event), Some(module)) = (event.as_object_mut(), module) {
        event.insert("moduleId".to_owned(), module.into());
    }
    event
}

/// The six-digit number of the real service that the rule book names as a source of the rule.
fn error_number(rule: Rule) -> Option<u32> {
    let (_, number) = rule.source().rsplit_once("error ")?;
    number.parse().ok().filter(|number| (100_000..1_000_000).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(client_id: Option<&str>, reason: CloseReason, bytes: &[u8]) -> Value {
        let operations = Operations::default();
        operations.closed(client_id, &Close::new(reason), bytes);
        serde_json::from_str(&operations.log.after(0).unwrap().line).unwrap()
    }

    #[test]
    fn a_takeover_has_the_number_of_the_real_service() {
        let event = closed(Some("demo"), CloseReason::Ended(Rule::Takeover), &[]);
        assert_eq!(event["operationName"], "deviceDisconnect");
        assert_eq!((event["statusType"].as_str(), event["statusCode"].as_u64()), (Some("400027"), Some(400)));
        assert_eq!(event["rule"], "HUB-TAKEOVER");
    }

    #[test]
    fn a_broken_rule_comes_with_its_bytes_and_the_way_to_mend_it() {
        let event = closed(Some("demo/mod"), CloseReason::Violation(Rule::PublishQos2), &[0x34, 0x05]);
        assert_eq!((event["deviceId"].as_str(), event["moduleId"].as_str()), (Some("demo"), Some("mod")));
        assert_eq!(
            (event["bytes"].as_str(), event["mend"].as_str()),
            (Some("3405"), Some(Rule::PublishQos2.mend()))
        );
    }

    #[test]
    fn disconnect_is_no_error() {
        let event = closed(Some("demo"), CloseReason::Disconnected, &[]);
        assert_eq!((event["level"].as_str(), event["statusCode"].as_u64()), (Some("Information"), Some(200)));
    }
}
