//! An event as Event Hubs clients see it: annotations, properties, application properties, body.
//!
//! What is the same for all messages of a sender is encoded once for each block and copied; the rest is numbers.

use std::io::Write as _;

use devicebound::iothub::SystemProperty;
use devicebound::time::UnixTime;
use devicebound_amqp::message::{self, Properties};
use devicebound_amqp::types::{Value, Writer as _};

use crate::observe::event_log::Entry;
use crate::store::partitions::Partition;
use crate::telemetry::message::Content;
use crate::telemetry::sender::SenderFields;

/// The annotations that a sender's messages have in common.
#[derive(Debug)]
pub(super) struct SenderAnnotations {
    bytes: Vec<u8>,
    /// Keys and values.
    count: u32,
}

/// Where an event is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) cursor: u64,
}

impl SenderAnnotations {
    pub(super) fn of(sender: &SenderFields<'_>) -> Self {
        let (mut bytes, mut count) = (Vec::new(), 0);
        let auth_method = sender.auth_method();
        for (name, value) in [
            ("iothub-connection-device-id", Some(sender.device_id)),
            ("iothub-connection-module-id", sender.module_id),
            ("iothub-connection-auth-method", Some(auth_method.as_str())),
            ("iothub-connection-auth-generation-id", Some(sender.generation_id)),
            ("iothub-message-source", Some("Telemetry")),
            ("dt-dataschema", sender.model_id),
        ] {
            let Some(value) = value else { continue };
            bytes.symbol(name);
            bytes.string(value);
            count += 2;
        }
        Self { bytes, count }
    }
}

/// Appends an event. `newest` is what a reader asked to be told of its partition with each event.
pub(super) fn write(
    sender: &SenderAnnotations,
    content: &Content<'_>,
    place: Place,
    newest: Option<(&Partition, UnixTime)>,
    tx: &mut Vec<u8>,
) {
    if let Some((partition, now)) = newest {
        write_newest(partition, now, tx);
    }
    let annotations = message::begin_annotations(tx);
    write_place(place, content.enqueued, tx);
    tx.symbol("iothub-enqueuedtime");
    tx.timestamp(millis(content.enqueued));
    tx.extend_from_slice(&sender.bytes);
    let mut count = sender.count.saturating_add(8);
    if !content.has_properties() {
        tx.end(annotations, count);
        return message::data(tx, content.body);
    }
    let mut properties = Vec::new();
    let mut application = Vec::new();
    for (name, value) in content.properties() {
        match SystemProperty::from_wire(&name) {
            // These the hub says itself, and nobody else.
            Some(SystemProperty::ConnectionDeviceId | SystemProperty::ConnectionModuleId) => {}
            Some(property) if is_of_the_section(property) => {
                properties.push((property, value.unwrap_or_default()));
            }
            Some(property) => {
                tx.symbol(property.event_hubs_name());
                tx.string(&value.unwrap_or_default());
                count = count.saturating_add(2);
            }
            None => application.push((name, value)),
        }
    }
    tx.end(annotations, count);
    write_properties(&properties, tx);
    if !application.is_empty() {
        let map = message::begin_application_properties(tx);
        for (name, value) in &application {
            tx.string(name);
            tx.optional_string(value.as_deref());
        }
        tx.end(map, u32::try_from(application.len()).unwrap_or(0).saturating_mul(2));
    }
    message::data(tx, content.body);
}

/// Appends what tells the operations hub's readers of something.
pub(super) fn write_operation(entry: &Entry, newest: Option<&(Partition, UnixTime)>, tx: &mut Vec<u8>) {
    if let Some((partition, now)) = newest {
        write_newest(partition, *now, tx);
    }
    let annotations = message::begin_annotations(tx);
    let place = Place { sequence: entry.cursor.saturating_sub(1), cursor: entry.cursor };
    write_place(place, entry.time, tx);
    tx.end(annotations, 6);
    let (content_type, content_encoding) = (Some("application/json"), Some("utf-8"));
    Properties { content_type, content_encoding, ..Properties::default() }.write(tx);
    message::data(tx, entry.line.as_bytes());
}

/// Appends the three annotations of every event: six keys and values.
fn write_place(place: Place, enqueued: UnixTime, tx: &mut Vec<u8>) {
    tx.symbol("x-opt-sequence-number");
    tx.long(i64::try_from(place.sequence).unwrap_or(i64::MAX));
    tx.symbol("x-opt-offset");
    // A string: of a long Python makes nothing, and loses its checkpoints.
    let mut digits = [0; 20];
    let mut rest = &mut digits[..];
    // Twenty digits are as many as there are.
    let _ = write!(rest, "{}", place.cursor);
    let left = rest.len();
    tx.string(std::str::from_utf8(digits.get(..20 - left).unwrap_or_default()).unwrap_or_default());
    tx.symbol("x-opt-enqueued-time");
    tx.timestamp(millis(enqueued));
}

const fn is_of_the_section(property: SystemProperty) -> bool {
    use SystemProperty::{ContentEncoding, ContentType, CorrelationId, Expiry, MessageId, To, UserId};
    matches!(property, MessageId | UserId | To | CorrelationId | ContentType | ContentEncoding | Expiry)
}

fn write_properties(values: &[(SystemProperty, std::borrow::Cow<'_, str>)], tx: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let mut section = Properties::default();
    for (property, value) in values {
        let value: &str = value;
        match property {
            SystemProperty::MessageId => section.message_id = Value::String(value),
            SystemProperty::UserId => section.user_id = Some(value.as_bytes()),
            SystemProperty::To => section.to = Some(value),
            SystemProperty::CorrelationId => section.correlation_id = Value::String(value),
            SystemProperty::ContentType => section.content_type = Some(value),
            SystemProperty::ContentEncoding => section.content_encoding = Some(value),
            SystemProperty::Expiry => section.absolute_expiry_time = timestamp(value),
            _ => {}
        }
    }
    section.write(tx);
}

fn timestamp(text: &str) -> Option<i64> {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// `com.microsoft:enable-receiver-runtime-metric`
fn write_newest(partition: &Partition, now: UnixTime, tx: &mut Vec<u8>) {
    let annotations = message::begin_delivery_annotations(tx);
    tx.symbol("last_enqueued_sequence_number");
    tx.long(i64::try_from(partition.next).unwrap_or(i64::MAX).saturating_sub(1));
    tx.symbol("last_enqueued_offset");
    tx.string(&partition.last.to_string());
    tx.symbol("last_enqueued_time_utc");
    tx.timestamp(millis(partition.enqueued));
    tx.symbol("runtime_info_retrieval_time_utc");
    tx.timestamp(millis(now));
    tx.end(annotations, 8);
}

/// Milliseconds for a timestamp.
pub(super) fn millis(time: UnixTime) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
