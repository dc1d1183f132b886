//! The machines, ours and those of the peers that have one: bytes in, bytes out.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use devicebound::device::{Message, PreparedProperties};
use devicebound::limits::{IN_FLIGHT_MAX, PACKET_MAX, REMAINING_LENGTH_MAX};
use devicebound::packet::{Decoded, Packet, PacketId, decode, pingresp, puback};
use devicebound_benches::workloads::{self, Workload};
use devicebound_testkit::live::{LiveDevice, LiveHub, PLAIN_TELEMETRY_TOPIC, TELEMETRY_TOPIC, telemetry};
use devicebound_world::hub_host::StoreMode;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Qos, v3_1_1};
use mqtt_protocol_core::mqtt::{Connection, Version, result_code::ConnectReturnCode, role};
use rumqttc::{MqttState, Packet as RumqttPacket, Publish, QoS, Request};

use super::codecs::Kind;
use super::measure::{Contender, sample};

/// The contenders of [`hub`].
pub(crate) const HUBS: [(&str, Kind); 5] = [
    ("devicebound", Kind::Us),
    ("devicebound, stored by 16", Kind::Other),
    ("mqtt-protocol-core Connection", Kind::Peer),
    ("rumqttc MqttState", Kind::Peer),
    ("decode and PUBACK", Kind::Limit),
];

/// The contenders of [`device_sends`] and of [`device_receives`].
pub(crate) const DEVICES: [(&str, Kind); 3] = [
    ("devicebound", Kind::Us),
    ("mqtt-protocol-core Connection", Kind::Peer),
    ("rumqttc MqttState", Kind::Peer),
];

/// Packets in, PUBACKs and PINGRESPs out.
pub(crate) fn hub(workload: &Workload) -> Vec<Contender<'_>> {
    let bytes = workload.bytes.as_slice();
    let stored = |store| {
        let mut hub = LiveHub::new();
        Contender::new(move || {
            sample(|| {
                black_box(hub.receive(black_box(bytes), store));
            })
        })
    };
    vec![
        stored(StoreMode::Immediate),
        stored(StoreMode::Held),
        protocol_core_server(bytes),
        rumqttc_receiver(bytes),
        decode_and_acknowledge(bytes),
    ]
}

/// The least that a hub could do.
fn decode_and_acknowledge(bytes: &[u8]) -> Contender<'_> {
    let mut tx = Vec::new();
    Contender::new(move || {
        tx.clear();
        sample(|| {
            let mut rest = black_box(bytes);
            while let Ok(Decoded::Packet(packet)) = decode(&mut rest, PACKET_MAX) {
                if let Packet::Publish(publish) = packet {
                    black_box(&publish);
                    if let Some(id) = publish.qos.packet_id() {
                        puback(id, &mut tx);
                    }
                } else if packet == Packet::PingReq {
                    pingresp(&mut tx);
                }
            }
            black_box(&tx);
        })
    })
}

fn protocol_core_server(bytes: &[u8]) -> Contender<'_> {
    let mut server = Connection::<role::Server>::new(Version::V3_1_1);
    server.set_auto_pub_response(true);
    server.set_auto_ping_response(true);
    let connect = v3_1_1::Connect::builder().client_id("sensor-42").expect("an id").build().expect("CONNECT");
    server.recv(&mut Cursor::new(connect.to_continuous_buffer().as_slice()));
    let connack = v3_1_1::Connack::builder().session_present(false).return_code(ConnectReturnCode::Accepted);
    server.checked_send(connack.build().expect("CONNACK"));
    let mut tx = Vec::new();
    Contender::new(move || {
        tx.clear();
        sample(|| {
            let mut cursor = Cursor::new(black_box(bytes));
            while !cursor.remaining_slice().is_empty() {
                for event in server.recv(&mut cursor) {
                    if let Event::RequestSendPacket { packet, .. } = black_box(&event) {
                        packet.to_buffers().iter().for_each(|slice| tx.extend_from_slice(slice));
                    }
                }
            }
            black_box(&tx);
        })
    })
}

/// It is a client's, but takes PUBLISH all the same.
fn rumqttc_receiver(bytes: &[u8]) -> Contender<'_> {
    let mut state = MqttState::new(100, false);
    let (mut rx, mut tx) = (BytesMut::new(), BytesMut::new());
    Contender::new(move || {
        rx.extend_from_slice(bytes);
        tx.clear();
        sample(|| {
            receive(&mut state, &mut rx, &mut tx);
            black_box(&tx);
        })
    })
}

/// What is no client's business is an error to it, and is passed over.
fn receive(state: &mut MqttState, rx: &mut BytesMut, tx: &mut BytesMut) {
    while let Ok(packet) = RumqttPacket::read(rx, REMAINING_LENGTH_MAX) {
        if let Ok(Some(answer)) = state.handle_incoming_packet(packet) {
            answer.write(tx, REMAINING_LENGTH_MAX).expect("it fits");
        }
        state.events.drain(..).for_each(|event| drop(black_box(event)));
    }
}

/// QoS 1 PUBLISH out: an id given, the payload kept for sending again; a window of 16 at a time. We write the topic, all of
/// it or what was not prepared, and the peers are given it.
pub(crate) fn device_sends(message: Telemetry) -> Vec<Contender<'static>> {
    fn contender(mut device: impl Device + 'static) -> Contender<'static> {
        Contender::new(move || {
            let sample = sample(|| device.send());
            let pubacks = device.pubacks();
            device.receive(&pubacks);
            sample
        })
    }
    vec![
        contender(OurDevice::new(message)),
        contender(ProtocolCoreClient::new(message)),
        contender(RumqttcSender::new(message)),
    ]
}

/// PUBACK in, what was kept let go: a window of 16 at a time.
pub(crate) fn device_receives(message: Telemetry) -> Vec<Contender<'static>> {
    fn contender(mut device: impl Device + 'static) -> Contender<'static> {
        Contender::new(move || {
            device.send();
            let pubacks = device.pubacks();
            sample(|| device.receive(black_box(&pubacks)))
        })
    }
    vec![
        contender(OurDevice::new(message)),
        contender(ProtocolCoreClient::new(message)),
        contender(RumqttcSender::new(message)),
    ]
}

/// What a device sends.
#[derive(Clone, Copy)]
pub(crate) struct Telemetry {
    /// Bytes of the payload.
    pub(crate) size: usize,
    /// Its properties.
    pub(crate) properties: Properties,
}

/// What the topic of a message ends in.
#[derive(Clone, Copy)]
pub(crate) enum Properties {
    /// Nothing.
    None,
    /// The properties of [`TELEMETRY_TOPIC`], which we write for each message.
    Written,
    /// The same, which we have written once.
    Prepared,
}

impl Telemetry {
    fn payload(self) -> Vec<u8> {
        workloads::payload(self.size)
    }

    const fn topic(self) -> &'static str {
        match self.properties {
            Properties::None => PLAIN_TELEMETRY_TOPIC,
            Properties::Written | Properties::Prepared => TELEMETRY_TOPIC,
        }
    }
}

/// A client's machine that is online.
trait Device {
    /// Publishes a window of messages at QoS 1.
    fn send(&mut self);
    /// The PUBACKs of that window.
    fn pubacks(&self) -> Vec<u8>;
    /// Takes these PUBACKs.
    fn receive(&mut self, pubacks: &[u8]);
}

fn pubacks(ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut out = Vec::new();
    for id in ids {
        puback(PacketId::new(id).expect("it is at least 1"), &mut out);
    }
    out
}

struct OurDevice {
    device: LiveDevice,
    properties: Properties,
    prepared: PreparedProperties,
    payload: Vec<u8>,
}

impl OurDevice {
    fn new(message: Telemetry) -> Self {
        Self {
            device: LiveDevice::new(),
            properties: message.properties,
            prepared: PreparedProperties::new(&telemetry(b"")).expect("they are good"),
            payload: message.payload(),
        }
    }
}

impl Device for OurDevice {
    fn send(&mut self) {
        self.device.written();
        for _ in 0..IN_FLIGHT_MAX {
            let payload = black_box(self.payload.as_slice());
            let sent = match self.properties {
                Properties::None => self.device.send(Message::new(payload)),
                Properties::Written => self.device.telemetry(payload),
                Properties::Prepared => self.device.telemetry_with(black_box(&self.prepared), payload),
            };
            sent.expect("the window is empty");
        }
        black_box(self.device.output());
    }

    fn pubacks(&self) -> Vec<u8> {
        let ids = workloads::packet_ids(self.device.acknowledged()).take(IN_FLIGHT_MAX);
        pubacks(ids.map(PacketId::get))
    }

    fn receive(&mut self, pubacks: &[u8]) {
        self.device.receive(pubacks);
    }
}

struct ProtocolCoreClient {
    client: Connection<role::Client>,
    topic: &'static str,
    payload: Vec<u8>,
    ids: Vec<u16>,
    tx: Vec<u8>,
}

impl ProtocolCoreClient {
    fn new(message: Telemetry) -> Self {
        let mut client = Connection::<role::Client>::new(Version::V3_1_1);
        let connect =
            v3_1_1::Connect::builder().client_id("sensor-42").expect("an id").build().expect("CONNECT");
        client.checked_send(connect);
        client.recv(&mut Cursor::new(&[0x20, 2, 0, 0][..]));
        let (topic, payload) = (message.topic(), message.payload());
        Self { client, topic, payload, ids: Vec::new(), tx: Vec::new() }
    }
}

impl Device for ProtocolCoreClient {
    fn send(&mut self) {
        self.ids.clear();
        self.tx.clear();
        for _ in 0..IN_FLIGHT_MAX {
            let id = self.client.acquire_packet_id().expect("few are in use");
            let publish = v3_1_1::Publish::builder().topic_name(self.topic).expect("a name");
            let publish = publish.qos(Qos::AtLeastOnce).packet_id(id).payload(self.payload.as_slice());
            for event in self.client.checked_send(publish.build().expect("PUBLISH")) {
                if let Event::RequestSendPacket { packet, .. } = event {
                    packet.to_buffers().iter().for_each(|slice| self.tx.extend_from_slice(slice));
                }
            }
            self.ids.push(id);
        }
        black_box(&self.tx);
    }

    fn pubacks(&self) -> Vec<u8> {
        pubacks(self.ids.iter().copied())
    }

    fn receive(&mut self, pubacks: &[u8]) {
        let mut cursor = Cursor::new(pubacks);
        while !cursor.remaining_slice().is_empty() {
            black_box(self.client.recv(&mut cursor));
        }
    }
}

struct RumqttcSender {
    state: MqttState,
    topic: &'static str,
    payload: Bytes,
    ids: Vec<u16>,
    rx: BytesMut,
    tx: BytesMut,
}

impl RumqttcSender {
    fn new(message: Telemetry) -> Self {
        let (rx, tx) = (BytesMut::new(), BytesMut::new());
        let (topic, payload) = (message.topic(), Bytes::from(message.payload()));
        Self { state: MqttState::new(100, false), topic, payload, ids: Vec::new(), rx, tx }
    }
}

impl Device for RumqttcSender {
    fn send(&mut self) {
        self.ids.clear();
        self.tx.clear();
        for _ in 0..IN_FLIGHT_MAX {
            let publish = Publish::from_bytes(self.topic, QoS::AtLeastOnce, self.payload.clone());
            match self.state.handle_outgoing_packet(Request::Publish(publish)) {
                Ok(Some(RumqttPacket::Publish(publish))) => {
                    self.ids.push(publish.pkid);
                    publish.write(&mut self.tx).expect("it fits");
                }
                other => unreachable!("the window is open: {other:?}"),
            }
        }
        self.state.events.clear();
        black_box(&self.tx);
    }

    fn pubacks(&self) -> Vec<u8> {
        pubacks(self.ids.iter().copied())
    }

    fn receive(&mut self, pubacks: &[u8]) {
        self.rx.extend_from_slice(pubacks);
        receive(&mut self.state, &mut self.rx, &mut self.tx);
    }
}
