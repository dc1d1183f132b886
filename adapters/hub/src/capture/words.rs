//! What a packet tells by itself, and how it is told.

use devicebound::explain::Sender;
use devicebound::packet::Packet;
use devicebound::time::UnixTime;

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
