//! What a packet tells by itself, and how it is told.

use devicebound::explain::Sender;
use devicebound::packet::{Packet, PacketType};
use devicebound::time::UnixTime;

/// Longest text of a peer in a remark.
const SHORT: usize = 100;
/// How topics of an IoT Hub begin.
const KNOWN_TOPICS: [&[u8]; 2] = [b"devices/", b"$iothub/"];

/// Stands for a device that no packet has named yet.
pub(super) const SOMEBODY: &str = "somebody";

/// Who sends such a packet; `publisher` sent the last PUBLISH, which an acknowledgement answers.
pub(super) fn sender(packet: &Packet<'_>, publisher: Sender) -> Sender {
    match packet {
        Packet::Connect(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::Disconnect => Sender::Device,
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => Sender::Hub,
        Packet::Publish(publish) if is_of_hub(publish.topic.as_str()) => Sender::Hub,
        Packet::Publish(_) => Sender::Device,
        Packet::PubRel(_) => publisher,
        Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) => match publisher {
            Sender::Device => Sender::Hub,
            Sender::Hub => Sender::Device,
        },
    }
}

fn is_of_hub(topic: &str) -> bool {
    let is_request = ["$iothub/methods/POST/", "$iothub/twin/res/", "$iothub/twin/PATCH/properties/desired/"];
    is_request.iter().any(|prefix| topic.starts_with(prefix))
        || (topic.starts_with("devices/")
            && (topic.contains("/messages/devicebound/") || topic.contains("/inputs/")))
}

/// The client id that stands in a topic or filter of the packet.
pub(super) fn client_id(packet: &Packet<'_>) -> Option<String> {
    match packet {
        Packet::Publish(publish) => in_topic(publish.topic.as_str()),
        Packet::Subscribe(subscribe) => subscribe.filters().find_map(|(filter, _)| in_topic(filter.as_str())),
        Packet::Unsubscribe(unsubscribe) => {
            unsubscribe.filters().find_map(|filter| in_topic(filter.as_str()))
        }
        _ => None,
    }
}

fn in_topic(topic: &str) -> Option<String> {
    let mut levels = topic.strip_prefix("devices/")?.split('/');
    let device = levels.next().filter(|device| !device.is_empty() && *device != "+")?;
    match (levels.next(), levels.next()) {
        (Some("modules"), Some(module)) => Some(format!("{device}/{module}")),
        _ => Some(device.to_owned()),
    }
}

pub(super) const fn name(sender: Sender) -> &'static str {
    match sender {
        Sender::Device => "device",
        Sender::Hub => "hub",
    }
}

/// Hours to milliseconds, in UTC; nothing where the time is not known.
pub(super) fn time_of_day(time: Option<UnixTime>) -> String {
    let text = time.filter(|time| *time != UnixTime::default()).map(|time| time.to_string());
    text.as_deref().and_then(|text| text.get(11..23)).unwrap_or_default().to_owned()
}

/// Whether one is the front of the other.
pub(super) fn is_front_of(bytes: &[u8], whole: &[u8]) -> bool {
    bytes.iter().zip(whole).all(|(byte, expected)| byte == expected)
}

/// Text of a peer, cut to a readable length.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Whether this side sends packets of this type.
pub(super) const fn may_send(sender: Sender, packet: PacketType) -> bool {
    use PacketType as Type;
    match packet {
        Type::Connect | Type::Subscribe | Type::Unsubscribe | Type::PingReq | Type::Disconnect => {
            matches!(sender, Sender::Device)
        }
        Type::ConnAck | Type::SubAck | Type::UnsubAck | Type::PingResp => matches!(sender, Sender::Hub),
        Type::Publish | Type::PubAck | Type::PubRec | Type::PubRel | Type::PubComp => true,
    }
}

/// Whether these bytes begin as a packet that no other bytes look like, and that this side sends.
pub(super) fn has_known_topic_of(bytes: &[u8], sender: Sender) -> bool {
    let is_of_device = matches!(bytes, [0x10 | 0x82 | 0xa2, ..]);
    (sender == Sender::Device || !is_of_device) && has_known_topic(bytes)
}

/// Whether these bytes begin as a packet that no other bytes look like: by a topic of an IoT Hub, or as a CONNECT.
pub(super) fn has_known_topic(bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else { return false };
    let length = rest.iter().take_while(|byte| **byte & 0x80 != 0).count();
    let body = match rest.get(length.saturating_add(1)..) {
        Some(body) if length <= 3 => body,
        _ => return false,
    };
    let text = match first {
        0x10 => return body.starts_with(b"\0\x04MQTT\x04"),
        0x30..=0x35 | 0x38..=0x3d => body,
        // The packet id comes first.
        0x82 | 0xa2 => body.get(2..).unwrap_or_default(),
        _ => return false,
    };
    KNOWN_TOPICS.iter().any(|known| text.get(2..).is_some_and(|topic| topic.starts_with(known)))
}
