//! What is measured: batches of packets as devices and IoT Hub exchange them.
//!
//! The sizes are those of real packets: a telemetry topic of 76 bytes with three properties, a CONNECT with a SAS token,
//! a SUBSCRIBE to cloud messages, twin answers and methods. A batch is small enough to stay in the cache, as bytes are
//! that were received just now.

use devicebound::packet::{
    Connect, Credentials, Decoded, Packet, PacketId, Publish, PublishQoS, QoS, SubAck, SubAckCode, Subscribe,
    Text, TopicFilter, TopicName, Will, decode, pingreq, puback,
};
use devicebound_hub::telemetry::block::Block;
use devicebound_testkit::live::{DEVICE_ID, TELEMETRY_TOPIC, publish};

/// A batch of packets, one behind the other.
#[derive(Debug)]
pub struct Workload {
    /// Kind and size.
    pub name: &'static str,
    /// How many packets there are.
    pub packets: usize,
    /// The packets.
    pub bytes: Vec<u8>,
}

impl Workload {
    fn new(name: &'static str, packets: usize, mut encode: impl FnMut(PacketId, &mut Vec<u8>)) -> Self {
        let mut bytes = Vec::new();
        for id in packet_ids(0).take(packets) {
            encode(id, &mut bytes);
        }
        Self { name, packets, bytes }
    }

    /// The packets, decoded.
    ///
    /// # Panics
    /// Never: the packets are good.
    pub fn decoded(&self) -> impl Iterator<Item = Packet<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || match decode(&mut rest, usize::MAX).expect("the packets are good") {
            Decoded::Packet(packet) => Some(packet),
            Decoded::Incomplete { .. } => None,
        })
    }
}

/// Every workload of the codec.
#[must_use]
pub fn all() -> Vec<Workload> {
    let mut all = telemetry();
    // More than a message of IoT Hub may have: for the codec alone.
    all.push(telemetry_of("publish 256 KiB", 262_144, 2));
    all.extend([telemetry_at_most_once(), pubacks(), connect(), subscribe(), suback(), mixed()]);
    all
}

/// QoS 1 PUBLISHes of telemetry, by the size of their payload.
#[must_use]
pub fn telemetry() -> Vec<Workload> {
    vec![
        telemetry_of("publish 16 B", 16, 512),
        telemetry_of("publish 128 B", 128, 300),
        telemetry_of("publish 1 KiB", 1024, 60),
        telemetry_of("publish 16 KiB", 16_384, 8),
    ]
}

/// As many QoS 1 PUBLISHes of telemetry, with payloads of `size` bytes.
#[must_use]
pub fn telemetry_of(name: &'static str, size: usize, packets: usize) -> Workload {
    let payload = payload(size);
    Workload::new(name, packets, |id, out| {
        out.extend(publish(TELEMETRY_TOPIC, id.get(), &payload));
    })
}

/// As many messages as the hub stores them, all of one sender, with payloads of `size` bytes and three properties.
///
/// # Panics
/// Never: it is a block.
#[must_use]
pub fn stored_telemetry(size: usize, messages: usize) -> Block {
    let bag = TELEMETRY_TOPIC.rsplit('/').next().unwrap_or_default();
    let field = |bytes: &[u8], out: &mut Vec<u8>| {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    let mut block = vec![0]; // a sender
    for text in [DEVICE_ID, "", "638000000000000000", "sas", ""] {
        field(text.as_bytes(), &mut block);
    }
    for _ in 0..messages {
        block.push(1); // a message
        block.extend_from_slice(&0_u32.to_le_bytes());
        block.extend_from_slice(&1_700_000_000_123_u64.to_le_bytes());
        field(bag.as_bytes(), &mut block);
        field(&payload(size), &mut block);
    }
    Block::from_bytes(block).expect("it is a block")
}

/// QoS 0 PUBLISHes of telemetry.
///
/// # Panics
/// Never: PUBLISH is short enough.
#[must_use]
pub fn telemetry_at_most_once() -> Workload {
    let payload = payload(128);
    let publish = Publish {
        qos: PublishQoS::AtMostOnce,
        retain: false,
        topic: TopicName::new(TELEMETRY_TOPIC).expect("it is a topic name"),
        payload: &payload,
    };
    Workload::new("publish 128 B, QoS 0", 300, |_, out| {
        publish.encode(out).expect("PUBLISH is short enough");
    })
}

/// PUBACKs.
#[must_use]
pub fn pubacks() -> Workload {
    Workload::new("puback", 2048, puback)
}

/// CONNECTs with everything that IoT Hub asks for and a will: 378 bytes each.
///
/// # Panics
/// Never: CONNECT is short enough.
#[must_use]
pub fn connect() -> Workload {
    let username = format!(
        "contoso.azure-devices.net/{DEVICE_ID}/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.2.3"
    );
    let username = Text::new(&username).expect("it is text");
    let password = "SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2Fsensor-42\
                    &sig=7VNTj3zJSgDEuGU4kJ9Ee5tnYMuwh3dpjYyvBx9aUXk%3D&se=1700003600";
    let will = Will {
        topic: TopicName::new(TELEMETRY_TOPIC).expect("it is a topic name"),
        message: &payload(32),
        qos: QoS::AtLeastOnce,
        retain: false,
    };
    Workload::new("connect", 100, |_, out| {
        let connect = Connect {
            clean_session: false,
            keep_alive: 240,
            client_id: Text::new(DEVICE_ID).expect("it is text"),
            will: Some(will),
            credentials: Some(Credentials { username, password: Some(password.as_bytes()) }),
        };
        connect.encode(out).expect("CONNECT is short enough");
    })
}

/// SUBSCRIBEs to all that a device listens to: three filters each.
///
/// # Panics
/// Never: the filters are good.
#[must_use]
pub fn subscribe() -> Workload {
    let filters =
        ["devices/sensor-42/messages/devicebound/#", "$iothub/twin/res/#", "$iothub/methods/POST/#"]
            .map(|filter| (TopicFilter::new(filter).expect("it is a filter"), QoS::AtLeastOnce));
    Workload::new("subscribe", 400, |id, out| {
        Subscribe::encode(id, &filters, out).expect("SUBSCRIBE is short enough");
    })
}

/// SUBACKs that grant three filters.
///
/// # Panics
/// Never: there are return codes.
#[must_use]
pub fn suback() -> Workload {
    Workload::new("suback", 1500, |id, out| {
        let codes = [SubAckCode::Granted(QoS::AtLeastOnce); 3];
        SubAck::encode(id, codes.into_iter(), out).expect("there are return codes");
    })
}

/// What a hub receives: telemetry, PUBACKs, and now and then a PINGREQ or a patch of the twin, in no order.
#[must_use]
pub fn mixed() -> Workload {
    let patch = payload(1024);
    mixed_with("mixed", |id, out| {
        out.extend(publish("$iothub/twin/PATCH/properties/reported/?$rid=7", id.get(), &patch));
    })
}

/// As [`mixed`], with more telemetry for the patches: what a machine of ours does about one is to read its JSON, which
/// no peer does.
#[must_use]
pub fn mixed_without_patches() -> Workload {
    let telemetry = payload(128);
    mixed_with("mixed without patches", |id, out| out.extend(publish(TELEMETRY_TOPIC, id.get(), &telemetry)))
}

fn mixed_with(name: &'static str, mut patch: impl FnMut(PacketId, &mut Vec<u8>)) -> Workload {
    let telemetry = payload(128);
    let mut random = 1_u64;
    Workload::new(name, 400, |id, out| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match (random >> 33) % 20 {
            0 => pingreq(out),
            1 => patch(id, out),
            2..=10 => out.extend(publish(TELEMETRY_TOPIC, id.get(), &telemetry)),
            _ => puback(id, out),
        }
    })
}

/// A payload of any size.
#[must_use]
pub fn payload(size: usize) -> Vec<u8> {
    br#"{"temperature":21.5,"humidity":40.1}"#.iter().copied().cycle().take(size).collect()
}

/// The packet ids that follow when `used` were used: 1 to 65535, and 1 again.
///
/// # Panics
/// Never: the ids are never 0.
pub fn packet_ids(used: usize) -> impl Iterator<Item = PacketId> {
    (used..).map(|used| PacketId::new((used % 65_535 + 1) as u16).expect("it is at least 1"))
}
