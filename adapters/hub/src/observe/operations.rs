//! What begins, fails and ends, in the shape of Azure's operations monitoring: `GET /operations`.
//!
//! The fields are those of the documented categories (IoT Hub operations monitoring; for twins and methods, of its
//! successor, the resource logs), one flat JSON object per event:
//!
//! | category | operations | from |
//! |---|---|---|
//! | `Connections` | `deviceConnect`, `deviceDisconnect` | connections |
//! | `DeviceTelemetry` | `ingress`, failures alone | connections |
//! | `D2CTwinOperations` | `read`, `update`; what went well only while somebody follows | connections |
//! | `DeviceIdentityOperations` | `create`, `update`, `delete`, `get`, `bulk` | the service API |
//! | `C2DCommands` | `ingress`, `purge`, `feedback` | the service API |
//! | `C2DCommands` | `messageExpired`, `messageDeliveryCountExceeded` | queues |
//! | `C2DTwinOperations` | `read`, `update`, `replace` | the service API |
//! | `DirectMethods` | `send` | the service API |
//! | `FileUploadOperations` | `ingest`: a begin, and an end | the service API |
//! | `TwinQueries` | `query` | the service API |
//! | `Connections` | `amqpRefused`, `amqpRejected`, `amqpDetached`, `amqpBroken`; names of our own | AMQP |
//! | `Administrative` | consumer groups; as Azure's activity log has them | the service API |
//!
//! `messageDeliveryCountExceeded` is a name of our own: the documents have the event, and an example of the other alone.
//! Twins that went well are left out where nobody follows, because a device can make any number of them, and what failed
//! is to be kept. What Azure leaves out is added under names of its own: `rule`, `mend` and `bytes`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{Comparison, DeadLetter, FeedbackRequest, Outcome, TwinRefusal, Warning};
use devicebound::session::CloseReason;
use serde_json::{Map, Value};

use super::amqp_client::{AmqpClient, AmqpFailure};
use super::wording::{End, cut};
use crate::clock::unix_time;
use crate::observe::event_log::EventLog;
pub use crate::observe::event_log::Standing;
use crate::observe::view::Who;
use crate::telemetry::sender::Sender;

/// Events that are kept, and their bytes: strangers can make as many as they like, and the older ones give way.
const KEPT_EVENTS: usize = 10_000;
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// So many of the offending bytes are told.
const OFFENDING_MAX: usize = 64;

const EXPIRED: &str = "the message's time to live was over before the device had completed it";
const EXPIRED_MEND: &str =
    "see that the device connects in time and subscribes to its messages, or send with a later expiry";
const IN_VAIN: &str = "the message was delivered in vain as often as it may be";
const IN_VAIN_MEND: &str =
    "see why the device does not complete it, or allow more deliveries: devicebound hub --max-delivery-count";

/// The events that are kept.
#[derive(Debug)]
pub struct Operations {
    /// The lines, for whoever reads them.
    pub log: Arc<EventLog>,
}

impl Default for Operations {
    fn default() -> Self {
        Self { log: Arc::new(EventLog::new(KEPT_EVENTS, KEPT_BYTES)) }
    }
}

/// What a request to the service API did, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// `Https` or `Amqp`.
    pub protocol: &'static str,
    /// One of the documented categories.
    pub category: &'static str,
    /// Its operation.
    pub operation: &'static str,
    /// The device that it is about; empty where there is none.
    pub device_id: &'r str,
    /// The module, if it is about one.
    pub module_id: Option<&'r str>,
    /// The HTTP status.
    pub status: u16,
    /// Azure's six-digit number and the message, where it failed.
    pub error: Option<(u32, &'r str)>,
    /// How long it took.
    pub duration: Duration,
    /// The policy that it was signed with.
    pub policy: Option<&'r str>,
    /// What the client calls itself.
    pub user_agent: Option<&'r str>,
    /// Length of the body, in bytes.
    pub size: Option<u64>,
    /// Whether the caller was let in.
    pub standing: Standing,
}

impl Operations {
    /// A device is connected, with this software.
    pub fn connected(&self, who: Who<'_>, auth_type: &str, sdk_version: Option<&str>) {
        tracing::info!(event = "connected", device = who.client_id, peer = %who.peer, "connected");
        Event::of_connection("Connections", "deviceConnect", who, Some(auth_type))
            .of_sdk(sdk_version)
            .succeeded()
            .append(&self.log);
    }

    /// A connection is over: one that was never accepted has no `auth_type`, and a name only where its client said one.
    pub fn closed(&self, who: Who<'_>, auth_type: Option<&str>, sdk_version: Option<&str>, end: End<'_>) {
        let close = end.close;
        let (operation, standing) = match auth_type {
            Some(_) => ("deviceDisconnect", Standing::Known),
            None => ("deviceConnect", Standing::Stranger),
        };
        if is_about_telemetry(close.rule()) {
            Event::of_connection("DeviceTelemetry", "ingress", who, auth_type)
                .failed(end)
                .by(standing)
                .append(&self.log);
        }
        let event = Event::of_connection("Connections", operation, who, auth_type).of_sdk(sdk_version);
        let event = match close.reason() {
            CloseReason::Disconnected => event.succeeded(),
            _ => event.failed(end),
        };
        event.by(standing).append(&self.log);
    }

    /// Something was taken that the real hub may not take.
    pub fn warned(&self, who: Who<'_>, warning: &Warning) {
        let (category, operation) = category_of(warning.rule);
        Event::of_connection(category, operation, who, None).warned(warning).append(&self.log);
    }

    /// A registration was taken that the real hub may not take so.
    pub fn registration_warned(&self, device_id: &str, module_id: Option<&str>, warning: &Warning) {
        let event = Event::new("DeviceIdentityOperations", "update", device_id, module_id);
        event.warned(warning).append(&self.log);
    }

    /// A device has read its twin, or changed its reported properties.
    pub fn twin_answered(&self, sender: &Sender, is_patch: bool) {
        if self.log.is_followed() {
            Event::of_twin(sender, &sender.client_id(), is_patch).succeeded().append(&self.log);
        }
    }

    /// A device's twin request was answered with an error.
    pub fn twin_refused(&self, sender: &Sender, refusal: &TwinRefusal) {
        let TwinRefusal { is_patch, status, rule, .. } = *refusal;
        let client_id = sender.client_id();
        tracing::warn!(
            event = "twinRefused",
            rule = rule.id(),
            says = rule.says(),
            fix = rule.fix(),
            source = rule.source(),
            device = client_id,
            "twin request answered with {status}"
        );
        let mut event = Event::of_twin(sender, &client_id, is_patch);
        event.set("statusCode", status);
        let description = format!("answered with {status}, {rule}: {}", rule.says());
        event.broke(rule, description).append(&self.log);
    }

    /// A back end was refused something over AMQP, or something of it has ended because of an error.
    pub(crate) fn amqp_failed(&self, client: AmqpClient<'_>, failure: AmqpFailure<'_>, standing: Standing) {
        let mut event = Event::new("Connections", failure.event, "", None);
        event.set("protocol", "Amqp");
        event.set("maskedIpAddress", masked(client.peer.ip()));
        event.set("level", "Error");
        event.set("statusDescription", failure.says);
        event.set("mend", failure.fix);
        event.set("rule", failure.rule);
        if let Some(link) = failure.link {
            event.set("address", cut(link.address));
            event.set("credit", link.credit);
        }
        if !client.policy.is_empty() {
            event.set("sharedAccessPolicy", client.policy);
        }
        event.by(standing).append(&self.log);
    }

    /// Nobody gets a cloud-to-device message any more.
    pub fn dead_lettered(&self, device_id: &str, letter: &DeadLetter) {
        let (operation, description, fix) = if letter.outcome == Outcome::Expired {
            ("messageExpired", EXPIRED, EXPIRED_MEND)
        } else {
            ("messageDeliveryCountExceeded", IN_VAIN, IN_VAIN_MEND)
        };
        let message_id = letter.message_id.as_deref().unwrap_or_default();
        let count = letter.delivery_count;
        tracing::warn!(event = operation, device = device_id, message_id, count, fix, "{description}");
        let mut event = Event::new("C2DCommands", operation, device_id, None);
        event.set("level", "Error");
        event.set("statusDescription", description);
        event.set("mend", fix);
        event.set("messageId", message_id);
        event.set("messageSizeInBytes", letter.size);
        event.set("deliveryAcknowledgement", acknowledgement(letter.ack));
        event.set("deliveryCount", count);
        event.set("expiryTime", letter.expiry.to_string());
        event.append(&self.log);
    }

    /// Automatic configurations apply to a twin from now on, those that are named.
    pub fn configured(&self, client_id: &str, configurations: &str) {
        let (device, module) = split(client_id);
        let mut event = Event::new("Configurations", "apply", device, module);
        event.set("level", "Information");
        event.set("configurations", configurations);
        event.append(&self.log);
    }

    /// A job is over; `has_failures` where it came to nothing with some of its devices.
    pub fn job_ended(&self, id: &str, kind: &str, status: &str, has_failures: bool) {
        let operation = if status == "cancelled" { "jobCancelled" } else { "jobCompleted" };
        let mut event = Event::new("JobsOperations", operation, "", None);
        event.set("level", if has_failures { "Warning" } else { "Information" });
        event.set("jobId", id);
        event.set("messageType", kind);
        event.append(&self.log);
    }

    /// An endpoint of a route fails, recovers, or misses messages (Azure resource logs: category Routes).
    pub fn routed(&self, operation: &str, endpoint: &str, level: &str, description: &str) {
        let mut event = Event::new("Routes", operation, "", None);
        event.set("level", level);
        event.set("endpointName", endpoint);
        event.set("statusDescription", description);
        event.append(&self.log);
    }

    /// The service API did something, or could not.
    pub fn requested(&self, request: &Request<'_>) {
        let mut event = Event::new(request.category, request.operation, request.device_id, request.module_id);
        event.set("protocol", request.protocol);
        event.set("level", if request.error.is_some() { "Error" } else { "Information" });
        event.set("statusCode", request.status);
        if let Some((number, message)) = request.error {
            event.set("statusType", number.to_string());
            event.set("statusDescription", message);
        }
        event.set("durationMs", u64::try_from(request.duration.as_millis()).unwrap_or(u64::MAX));
        if let Some(policy) = request.policy {
            event.set("sharedAccessPolicy", policy);
            let auth_type = r#"{"scope":"hub","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#;
            event.set("authType", auth_type);
        }
        if let Some(user_agent) = request.user_agent {
            event.set("userAgent", user_agent);
        }
        if let Some(size) = request.size {
            event.set("messageSizeInBytes", size);
        }
        event.by(request.standing).append(&self.log);
    }
}

/// One event while its fields are gathered.
struct Event {
    device_id: String,
    standing: Standing,
    fields: Map<String, Value>,
}

impl Event {
    fn new(category: &str, operation: &str, device_id: &str, module_id: Option<&str>) -> Self {
        let mut event =
            Self { device_id: device_id.to_owned(), standing: Standing::Known, fields: Map::new() };
        event.set("time", unix_time().to_string());
        event.set("operationName", operation);
        event.set("category", category);
        event.set("deviceId", device_id);
        if let Some(module_id) = module_id {
            event.set("moduleId", module_id);
        }
        event
    }

    fn of_connection(category: &str, operation: &str, who: Who<'_>, auth_type: Option<&str>) -> Self {
        let (device, module) = split(who.client_id.unwrap_or_default());
        let mut event = Self::new(category, operation, device, module);
        event.set("protocol", "Mqtt");
        event.set("maskedIpAddress", masked(who.peer.ip()));
        if let Some(auth_type) = auth_type {
            event.set("authType", auth_type);
        }
        event
    }

    fn of_twin(sender: &Sender, client_id: &str, is_patch: bool) -> Self {
        let (device, module) = split(client_id);
        let operation = if is_patch { "update" } else { "read" };
        let mut event = Self::new("D2CTwinOperations", operation, device, module);
        event.set("protocol", "Mqtt");
        event.set("authType", sender.auth_method());
        event
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    fn of_sdk(mut self, version: Option<&str>) -> Self {
        if let Some(version) = version {
            self.set("sdkVersion", version);
        }
        self
    }

    const fn by(mut self, standing: Standing) -> Self {
        self.standing = standing;
        self
    }

    fn succeeded(mut self) -> Self {
        self.set("level", "Information");
        self.set("statusCode", 200);
        self
    }

    fn failed(mut self, end: End<'_>) -> Self {
        let End { close, offending, comparison } = end;
        let rule = close.rule();
        self.set("statusCode", error_number(rule).map_or(400, |number| number / 1000));
        let bytes: String = offending.iter().take(OFFENDING_MAX).map(|byte| format!("{byte:02x}")).collect();
        self.set("bytes", bytes);
        self.compare(comparison);
        self.broke(rule, format!("{}: {}", close.reason(), rule.says()))
    }

    fn warned(mut self, warning: &Warning) -> Self {
        self.compare(warning.comparison.as_ref());
        self.set("level", "Warning");
        self.set("statusDescription", warning.rule.says());
        self.set("mend", warning.rule.fix());
        self.set("rule", warning.rule.id());
        self
    }

    fn compare(&mut self, comparison: Option<&Comparison>) {
        if let Some(Comparison { received, expected }) = comparison {
            self.set("received", received.as_str());
            self.set("expected", expected.as_str());
        }
    }

    fn broke(mut self, rule: Rule, description: String) -> Self {
        self.set("level", "Error");
        self.set("statusType", error_number(rule).map_or(Value::Null, |number| number.to_string().into()));
        self.set("statusDescription", description);
        self.set("mend", rule.fix());
        self.set("rule", rule.id());
        self
    }

    fn append(mut self, log: &EventLog) {
        log.append(self.device_id.as_str().into(), self.standing, |cursor| {
            self.set("cursor", cursor);
            Value::Object(self.fields).to_string()
        });
    }
}

/// As the documents write it in this category.
const fn acknowledgement(ack: FeedbackRequest) -> &'static str {
    match ack {
        FeedbackRequest::None => "None",
        FeedbackRequest::Positive => "PositiveOnly",
        FeedbackRequest::Negative => "NegativeOnly",
        FeedbackRequest::Full => "Full",
    }
}

/// Device id and module id of a client id.
fn split(client_id: &str) -> (&str, Option<&str>) {
    client_id.split_once('/').map_or((client_id, None), |(device, module)| (device, Some(module)))
}

/// An address without its last part, as Azure shows it.
fn masked(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.XXX")
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}:XXX")
        }
    }
}

/// Whether a rule is about a telemetry message, so that its breach is a failure of the category `DeviceTelemetry`, too.
const fn is_about_telemetry(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::MessageSize
            | Rule::PropertyBag
            | Rule::PublishQos2
            | Rule::StoreFailed
            | Rule::Throttled
            | Rule::QuotaExceeded
    )
}

/// Category and operation of what a hub warns of.
const fn category_of(rule: Rule) -> (&'static str, &'static str) {
    match rule {
        Rule::BagSlash => ("DeviceTelemetry", "ingress"),
        Rule::MethodJson => ("DirectMethods", "send"),
        _ => ("Connections", "deviceConnect"),
    }
}

/// The six-digit number of the real service that the rule book names as a source of the rule.
fn error_number(rule: Rule) -> Option<u32> {
    let (_, number) = rule.source().rsplit_once("error ")?;
    number.parse().ok().filter(|number| (100_000..1_000_000).contains(number))
}

#[cfg(test)]
mod tests {
    use devicebound::hub::SequenceNumber;
    use devicebound::packet::ConnectReturnCode;
    use devicebound::session::Close;
    use devicebound::time::UnixTime;

    use super::*;

    const AUTH_TYPE: &str = r#"{"scope":"device","type":"sas"}"#;

    fn who(client_id: Option<&str>) -> Who<'_> {
        Who { client_id, peer: ([192, 0, 2, 77], 4711).into() }
    }

    /// The last event behind a close.
    fn closed(client_id: Option<&str>, reason: CloseReason, bytes: &[u8]) -> Value {
        let operations = Operations::default();
        let close = Close::new(reason);
        let end = End { offending: bytes, ..End::of(&close) };
        operations.closed(who(client_id), client_id.map(|_| AUTH_TYPE), None, end);
        event(&operations, operations.log.newest())
    }

    fn event(operations: &Operations, cursor: u64) -> Value {
        serde_json::from_str(&operations.log.after(cursor - 1).unwrap().line).unwrap()
    }

    #[test]
    fn a_takeover_has_the_number_of_the_real_service() {
        let event = closed(Some("demo"), CloseReason::Ended(Rule::Takeover), &[]);
        assert_eq!(event["operationName"], "deviceDisconnect");
        assert_eq!((event["statusType"].as_str(), event["statusCode"].as_u64()), (Some("400027"), Some(400)));
        assert_eq!(event["rule"], "HUB-TAKEOVER");
    }

    #[test]
    fn a_broken_rule_comes_with_its_bytes_and_the_way_to_fix_it() {
        let event = closed(Some("demo/mod"), CloseReason::Violation(Rule::PublishQos2), &[0x34, 0x05]);
        assert_eq!((event["deviceId"].as_str(), event["moduleId"].as_str()), (Some("demo"), Some("mod")));
        assert_eq!(
            (event["bytes"].as_str(), event["mend"].as_str()),
            (Some("3405"), Some(Rule::PublishQos2.fix()))
        );
    }

    #[test]
    fn a_refused_connection_has_the_name_that_its_client_said_and_a_masked_address() {
        let operations = Operations::default();
        let refused = CloseReason::Refused(ConnectReturnCode::NotAuthorized, Rule::UnknownDevice);
        operations.closed(who(Some("stranger")), None, None, End::of(&Close::new(refused)));
        let event = event(&operations, 1);
        assert_eq!(event["operationName"], "deviceConnect");
        assert_eq!(
            (event["deviceId"].as_str(), event["statusType"].as_str()),
            (Some("stranger"), Some("404001"))
        );
        assert_eq!((event["maskedIpAddress"].as_str(), event.get("authType")), (Some("192.0.2.XXX"), None));
        assert_eq!(masked("2001:db8::1".parse().unwrap()), "2001:db8:0:0:XXX");
    }

    #[test]
    fn disconnect_is_no_error() {
        let event = closed(Some("demo"), CloseReason::Disconnected, &[]);
        assert_eq!((event["level"].as_str(), event["statusCode"].as_u64()), (Some("Information"), Some(200)));
    }

    #[test]
    fn a_message_that_breaks_a_rule_is_a_failure_of_telemetry_and_of_the_connection() {
        let operations = Operations::default();
        let close = Close::new(CloseReason::Violation(Rule::MessageSize));
        operations.closed(who(Some("demo")), Some(AUTH_TYPE), None, End::of(&close));
        let [telemetry, connection] = [1, 2].map(|cursor| event(&operations, cursor));
        assert_eq!(
            (telemetry["category"].as_str(), telemetry["operationName"].as_str()),
            (Some("DeviceTelemetry"), Some("ingress"))
        );
        assert_eq!(connection["category"], "Connections");
    }

    #[test]
    fn a_message_that_expired_is_told_with_what_there_is_to_know_of_it() {
        let operations = Operations::default();
        let (enqueued, expiry) = (UnixTime::from_secs(1_700_000_000), UnixTime::from_secs(1_700_003_600));
        let letter = DeadLetter {
            sequence: SequenceNumber(7),
            message_id: None,
            outcome: Outcome::Expired,
            enqueued,
            expiry,
            ack: FeedbackRequest::Negative,
            delivery_count: 2,
            size: 5,
        };
        operations.dead_lettered("demo", &letter);
        let event = event(&operations, 1);
        for (name, value) in [
            ("category", "C2DCommands"),
            ("operationName", "messageExpired"),
            ("deliveryAcknowledgement", "NegativeOnly"),
            ("expiryTime", &expiry.to_string()),
        ] {
            assert_eq!(event[name], value, "{event}");
        }
    }

    #[test]
    fn a_request_is_told_with_its_number_its_time_and_who_asked() {
        let operations = Operations::default();
        operations.requested(&Request {
            protocol: "Https",
            category: "DeviceIdentityOperations",
            operation: "get",
            device_id: "nobody",
            module_id: None,
            status: 404,
            error: Some((404_001, "there is none")),
            duration: Duration::from_millis(12),
            policy: Some("iothubowner"),
            user_agent: Some("curl"),
            size: None,
            standing: Standing::Known,
        });
        let event = event(&operations, 1);
        for (name, value) in [
            ("category", "DeviceIdentityOperations"),
            ("level", "Error"),
            ("statusType", "404001"),
            ("deviceId", "nobody"),
            ("sharedAccessPolicy", "iothubowner"),
            ("userAgent", "curl"),
        ] {
            assert_eq!(event[name], value, "{event}");
        }
        assert_eq!((event["statusCode"].as_u64(), event["durationMs"].as_u64()), (Some(404), Some(12)));
    }
}
