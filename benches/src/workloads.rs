//! What is measured: batches of packets as devices and IoT Hub exchange them.
//!
//! The sizes are those of real packets: a telemetry topic of 76 bytes with three properties, a CONNECT with a SAS token,
//! a SUBSCRIBE to cloud messages, twin answers and methods. A batch is small enough to stay in the cache, as bytes are
//! that were received just now.

use devicebound::packet::{
    Connect, Credentials, Decoded, Packet, PacketId, QoS, Subscribe, TopicFilter, TopicName, Will, decode,
    puback,
};
use devicebound_tests::live::{DEVICE_ID, TELEMETRY_TOPIC, publish};

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
    all.extend([pubacks(), connect(), subscribe()]);
    all
}

/// QoS 1 PUBLISHes of telemetry, by the size of their payload.
#[must_use]
pub fn telemetry() -> Vec<Workload> {
    [
        ("publish 16 B", 16, 512),
        ("publish 128 B", 128, 300),
        ("publish 1 KiB", 1024, 60),
        ("publish 16 KiB", 16_384, 8),
    ]
    .into_iter()
    .map(|(name, size, packets)| {
        let payload = payload(size);
        Workload::new(name, packets, |id, out| {
            out.extend(publish(TELEMETRY_TOPIC, id.get(), &payload));
        })
    })
    .collect()
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
            client_id: DEVICE_ID,
            will: Some(will),
            credentials: Some(Credentials { username: &username, password: Some(password.as_bytes()) }),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_as_many_packets_of_one_size_as_it_says() {
        let sizes = [98, 211, 1107, 16_468, 4, 378, 93];
        for (workload, size) in all().iter().zip(sizes) {
            assert_eq!(workload.decoded().count(), workload.packets, "{}", workload.name);
            assert_eq!(workload.bytes.len(), workload.packets * size, "{}", workload.name);
        }
    }

    #[test]
    fn packet_ids_skip_0() {
        let ids: Vec<_> = packet_ids(65_533).take(3).map(PacketId::get).collect();
        assert_eq!(ids, [65_534, 65_535, 1]);
    }
}
