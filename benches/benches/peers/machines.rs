//! The machines, ours and those of the peers that have one: bytes in, bytes out.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use devicebound::limits::{IN_FLIGHT_MAX, PACKET_MAX, REMAINING_LENGTH_MAX};
use devicebound::packet::{Decoded, Packet, PacketId, decode, puback};
use devicebound_benches::workloads::{self, Workload};
use devicebound_tests::hub_host::StoreMode;
use devicebound_tests::live::{LiveDevice, LiveHub, TELEMETRY_TOPIC};
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

/// The contenders of [`device`].
pub(crate) const DEVICES: [(&str, Kind); 3] = [
    ("devicebound", Kind::Us),
    ("mqtt-protocol-core Connection", Kind::Peer),
    ("rumqttc MqttState", Kind::Peer),
];

/// QoS 1 PUBLISH in, PUBACK out.
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
                }
            }
            black_box(&tx);
        })
    })
}

fn protocol_core_server(bytes: &[u8]) -> Contender<'_> {
    let mut server = Connection::<role::Server>::new(Version::V3_1_1);
    server.set_auto_pub_response(true);
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

fn receive(state: &mut MqttState, rx: &mut BytesMut, tx: &mut BytesMut) {
    while let Ok(packet) = RumqttPacket::read(rx, REMAINING_LENGTH_MAX) {
        let answer = state.handle_incoming_packet(packet).expect("no rule is broken");
        if let Some(answer) = answer {
            answer.write(tx, REMAINING_LENGTH_MAX).expect("it fits");
        }
        state.events.drain(..).for_each(|event| drop(black_box(event)));
    }
}

/// PUBACK in, what was kept let go: a window of 16 at a time.
pub(crate) fn device() -> Vec<Contender<'static>> {
    vec![our_device(), protocol_core_client(), rumqttc_sender()]
}

fn pubacks(ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut out = Vec::new();
    for id in ids {
        puback(PacketId::new(id).expect("it is at least 1"), &mut out);
    }
    out
}

fn our_device() -> Contender<'static> {
    let mut device = LiveDevice::new();
    let payload = workloads::payload(128);
    Contender::new(move || {
        for _ in 0..IN_FLIGHT_MAX {
            device.telemetry(&payload).expect("the window is empty");
        }
        device.written();
        let ids = workloads::packet_ids(device.acknowledged()).take(IN_FLIGHT_MAX);
        let pubacks = pubacks(ids.map(PacketId::get));
        sample(|| device.receive(black_box(&pubacks)))
    })
}

fn protocol_core_client() -> Contender<'static> {
    let mut client = Connection::<role::Client>::new(Version::V3_1_1);
    let connect = v3_1_1::Connect::builder().client_id("sensor-42").expect("an id").build().expect("CONNECT");
    client.checked_send(connect);
    client.recv(&mut Cursor::new(&[0x20, 2, 0, 0][..]));
    let payload = workloads::payload(128);
    Contender::new(move || {
        let ids: Vec<u16> = (0..IN_FLIGHT_MAX)
            .map(|_| {
                let id = client.acquire_packet_id().expect("few are in use");
                let publish = v3_1_1::Publish::builder().topic_name(TELEMETRY_TOPIC).expect("a name");
                let publish = publish.qos(Qos::AtLeastOnce).packet_id(id).payload(payload.as_slice());
                client.checked_send(publish.build().expect("PUBLISH"));
                id
            })
            .collect();
        let pubacks = pubacks(ids);
        sample(|| {
            let mut cursor = Cursor::new(black_box(pubacks.as_slice()));
            while !cursor.remaining_slice().is_empty() {
                black_box(client.recv(&mut cursor));
            }
        })
    })
}

fn rumqttc_sender() -> Contender<'static> {
    let mut state = MqttState::new(100, false);
    let (mut rx, mut tx) = (BytesMut::new(), BytesMut::new());
    let payload = Bytes::from(workloads::payload(128));
    Contender::new(move || {
        let ids: Vec<u16> = (0..IN_FLIGHT_MAX)
            .map(|_| {
                let publish = Publish::from_bytes(TELEMETRY_TOPIC, QoS::AtLeastOnce, payload.clone());
                match state.handle_outgoing_packet(Request::Publish(publish)).expect("the window is open") {
                    Some(RumqttPacket::Publish(publish)) => publish.pkid,
                    other => unreachable!("{other:?}"),
                }
            })
            .collect();
        state.events.clear();
        rx.extend_from_slice(&pubacks(ids));
        sample(|| receive(&mut state, &mut rx, &mut tx))
    })
}
