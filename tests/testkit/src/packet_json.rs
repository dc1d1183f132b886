//! Packets as the vectors' JSON writes them (`tests/vectors/README.md`).

#![allow(clippy::panic, reason = "a vector that is not what its README says must stop the test")]

use devicebound::packet::{
    Packet, PacketId, Publish, PublishQoS, QoS, SubAckCode, Subscribe, TopicFilter, TopicName, Unsubscribe,
};
use serde_json::{Value, json};

use devicebound_world::vectors::{Members, word};

/// A packet with nothing borrowed, and its payload as bytes beside it.
pub type Seen = (Value, Vec<u8>);

/// The bytes of a packet that a device sends.
///
/// # Panics
/// Where the JSON is no such packet.
#[must_use]
pub fn encode(packet: &Value) -> Vec<u8> {
    let packet = Members::of(packet);
    let mut out = Vec::new();
    let packet_id = || {
        let id = packet["packet_id"].as_u64().expect("packet_id is a number");
        PacketId::new(u16::try_from(id).expect("packet ids are 16 bits"))
            .expect("the harness sends no id 0 so")
    };
    match word(&packet["type"]) {
        "publish" => {
            let dup = packet["dup"].as_bool().unwrap_or(false);
            packet.get("packet_id"); // null at QoS 0
            let topic = word(&packet["topic"]);
            let payload = payload(&packet["payload"]);
            let publish = Publish {
                qos: match qos(&packet["qos"]) {
                    QoS::AtMostOnce => PublishQoS::AtMostOnce,
                    QoS::AtLeastOnce => PublishQoS::AtLeastOnce { packet_id: packet_id(), dup },
                    QoS::ExactlyOnce => PublishQoS::ExactlyOnce { packet_id: packet_id(), dup },
                },
                retain: packet["retain"].as_bool().unwrap_or(false),
                topic: TopicName::new(topic).expect("the vectors' topics are topics"),
                payload: &payload,
            };
            publish.encode(&mut out).expect("it fits");
        }
        "puback" => Packet::PubAck(packet_id()).encode(&mut out).expect("it fits"),
        "pubrec" => Packet::PubRec(packet_id()).encode(&mut out).expect("it fits"),
        "pubrel" => Packet::PubRel(packet_id()).encode(&mut out).expect("it fits"),
        "pubcomp" => Packet::PubComp(packet_id()).encode(&mut out).expect("it fits"),
        "subscribe" => {
            let filters = packet["filters"].as_array().expect("filters is a list");
            let filters: Vec<_> = filters.iter().map(subscription).collect();
            Subscribe::encode(packet_id(), &filters, &mut out).expect("it fits");
        }
        "unsubscribe" => {
            let filters: Vec<_> =
                packet["filters"].as_array().expect("filters is a list").iter().map(filter).collect();
            Unsubscribe::encode(packet_id(), &filters, &mut out).expect("it fits");
        }
        "pingreq" => Packet::PingReq.encode(&mut out).expect("it fits"),
        "disconnect" => Packet::Disconnect.encode(&mut out).expect("it fits"),
        other => panic!("the harness does not send {other}"),
    }
    packet.all_read();
    out
}

fn subscription(entry: &Value) -> (TopicFilter<'_>, QoS) {
    let entry = Members::of(entry);
    let subscription = (filter(entry.get("filter")), qos(&entry["qos"]));
    entry.all_read();
    subscription
}

/// A QoS.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn qos(value: &Value) -> QoS {
    QoS::from_bits(u8::try_from(value.as_u64().expect("QoS is a number")).expect("QoS is small"))
        .expect("QoS is 0 to 2")
}

fn filter(value: &Value) -> TopicFilter<'_> {
    TopicFilter::new(word(value)).expect("the vectors' filters are filters")
}

/// A payload: text, `{"repeat", "count"}`, `{"json_blob_bytes"}`, or none.
///
/// # Panics
/// Where it is something else.
#[must_use]
pub fn payload(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Object(what) if what.len() == 2 && what.contains_key("repeat") => {
            let count = usize::try_from(what["count"].as_u64().expect("count is a number")).expect("it fits");
            word(&what["repeat"]).repeat(count).into_bytes()
        }
        Value::Object(what) if what.len() == 1 && what.contains_key("json_blob_bytes") => {
            let size = usize::try_from(what["json_blob_bytes"].as_u64().expect("a number")).expect("it fits");
            let mut blob = String::from("{");
            for number in 0.. {
                let rest = size - blob.len() - 1;
                if rest < 1100 {
                    blob += &format!(
                        "\"k{number}\":\"{}\"}}",
                        "x".repeat(rest.saturating_sub(6 + number.to_string().len()))
                    );
                    break;
                }
                blob += &format!("\"k{number}\":\"{}\",", "x".repeat(1000));
            }
            blob.into_bytes()
        }
        Value::Null => Vec::new(),
        other => panic!("{other} is no payload"),
    }
}

/// A packet of the hub as the vectors write it.
#[must_use]
pub fn seen(packet: &Packet<'_>) -> Seen {
    let packet = match packet {
        Packet::ConnAck(connack) => {
            json!({"type": "connack", "return_code": connack.return_code(), "session_present": connack.session_present()})
        }
        Packet::Publish(publish) => {
            let value = json!({
                "type": "publish", "dup": publish.qos.dup(), "qos": publish.qos.qos() as u8, "retain": publish.retain,
                "topic": publish.topic.as_str(), "packet_id": publish.qos.packet_id().map(PacketId::get),
            });
            return (value, publish.payload.to_vec());
        }
        Packet::PubAck(id) => json!({"type": "puback", "packet_id": id.get()}),
        Packet::SubAck(suback) => {
            let codes: Vec<_> = suback
                .return_codes()
                .map(|code| match code {
                    SubAckCode::Granted(qos) => qos as u8,
                    SubAckCode::Failure => 0x80,
                })
                .collect();
            json!({"type": "suback", "packet_id": suback.packet_id().get(), "return_codes": codes})
        }
        Packet::UnsubAck(id) => json!({"type": "unsuback", "packet_id": id.get()}),
        Packet::PingResp => json!({"type": "pingresp"}),
        other => json!({"type": format!("{other:?}")}),
    };
    (packet, Vec::new())
}
