//! The machine against packets that are written by hand, in the order of a device's life.
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

#[cfg(feature = "provisioning")]
mod certificates;
mod cloud_messages;
mod connecting;
mod embedding;
#[cfg(feature = "twin")]
mod following;
mod methods;
mod recovering;
mod saving;
mod telemetry;
mod twins;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::*;
use crate::iothub::Subscription;
use crate::packet::{
    ConnAck, PacketId, PacketType, Publish, PublishQoS, QoS, SubAckCode, TopicName, puback, unsuback,
};

const CONNECTION_STRING: &str =
    "HostName=hub.example.test;DeviceId=dev1;SharedAccessKey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const WALL_CLOCK: UnixTime = UnixTime::from_secs(1_700_000_000);

fn config() -> DeviceConfig {
    DeviceConfig::from_connection_string(CONNECTION_STRING).unwrap()
}

/// A device with its transport: what it writes is looked at as packets, what the hub says is given as bytes.
struct Bench {
    device: Device,
    now: Instant,
    tx: Vec<u8>,
}

/// An action without its borrow, to be compared.
type Outcome = Result<Action<'static>, CloseReason>;

impl Bench {
    /// Offline.
    fn new(config: DeviceConfig) -> Self {
        Self { device: Device::new(config).unwrap(), now: Instant::from_secs(1000), tx: Vec::new() }
    }

    /// CONNECT was written.
    fn opening(config: DeviceConfig) -> Self {
        let mut bench = Self::new(config);
        bench.open();
        bench
    }

    /// Online without a session at the hub.
    fn online() -> Self {
        Self::online_with(config())
    }

    fn online_with(config: DeviceConfig) -> Self {
        let mut bench = Self::opening(config);
        bench.accept(false);
        bench
    }

    /// Online, and subscribed to all of `subscriptions`, SUBACKs taken.
    fn subscribed(subscriptions: &[Subscription]) -> Self {
        let mut bench = Self::online();
        for &subscription in subscriptions {
            bench.device.subscribe(bench.now, subscription, &mut bench.tx).unwrap();
        }
        bench.grant_all();
        bench
    }

    fn open(&mut self) -> Vec<Sent> {
        let event = Event::Opened { jitter: 7, unix_time: WALL_CLOCK };
        let action = self.device.handle(self.now, event, &mut self.tx).unwrap();
        assert_eq!(action, Action::Wait(Wait::Read { at_least: 4 }));
        self.sent()
    }

    fn accept(&mut self, session_present: bool) {
        let action = self.hear(|out| ConnAck::Accepted { session_present }.encode(out));
        assert_eq!(action, Action::Connected { session_present });
    }

    /// Takes the SUBACKs and UNSUBACKs of all that was written, and gives what was written beside.
    fn grant_all(&mut self) -> Vec<Sent> {
        let mut others = Vec::new();
        loop {
            let sent = self.sent();
            if sent.is_empty() {
                return others;
            }
            for packet in sent {
                match packet.kind {
                    PacketType::Subscribe => {
                        self.hear(|out| suback(packet.id, &[SubAckCode::Granted(QoS::AtLeastOnce)], out));
                    }
                    PacketType::Unsubscribe => {
                        self.hear(|out| unsuback(packet.id.unwrap(), out));
                    }
                    _ => others.push(packet),
                }
            }
        }
    }

    /// The connection is lost, and made anew, as soon as the machine asks for that.
    fn reconnect(&mut self, session_present: bool) {
        assert_eq!(self.event(Event::Closed), Err(CloseReason::Lost));
        self.pull_all();
        self.wait_for_timer().unwrap();
        self.open();
        self.accept(session_present);
    }

    /// Pulls until there is nothing to be told any more.
    fn pull_all(&mut self) {
        while !matches!(self.pull(&mut &[][..]).unwrap(), Action::Wait(_)) {}
    }

    /// Moves time on to the next deadline, and reports it.
    fn wait_for_timer(&mut self) -> Outcome {
        self.now = self.now.max(self.device.poll_timeout().unwrap().at);
        self.event(Event::TimedOut)
    }

    fn event(&mut self, event: Event<'_, 'static>) -> Outcome {
        self.device.handle(self.now, event, &mut self.tx).map_err(|close| close.reason())
    }

    fn pull<'i>(&mut self, rx: &mut &'i [u8]) -> Result<Action<'i>, CloseReason> {
        self.device.handle(self.now, Event::Received(rx), &mut self.tx).map_err(|close| close.reason())
    }

    /// Gives the machine one packet; all of it is to be taken. Where no failures may be owed, the machine then gets
    /// to write what it has to. The bytes live for ever, to keep the tests short.
    fn hear(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Action<'static> {
        let mut rx = packet_bytes(write);
        let action = self.pull(&mut rx).unwrap();
        assert_eq!(rx, b"", "{action:?}");
        if self.device.status().requests == 0 {
            self.pull_all();
        }
        action
    }

    /// Gives the machine one packet that ends the connection; nothing is to be taken.
    fn hear_and_close(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Close {
        let bytes = packet_bytes(write);
        let mut rx = bytes;
        let close = self.device.handle(self.now, Event::Received(&mut rx), &mut self.tx).unwrap_err();
        assert_eq!(rx, bytes);
        close
    }

    fn telemetry(&mut self, payload: &[u8]) -> Ticket {
        self.device.telemetry(self.now, Message::new(payload), &mut self.tx).unwrap()
    }

    /// What was written since the last look.
    fn sent(&mut self) -> Vec<Sent> {
        let mut rest = &self.tx[..];
        let mut sent = Vec::new();
        while !rest.is_empty() {
            match decode(&mut rest, usize::MAX).unwrap() {
                Decoded::Packet(packet) => sent.push(Sent::of(packet)),
                Decoded::Incomplete { .. } => panic!("half a packet was written: {:?}", self.tx),
            }
        }
        self.tx.clear();
        sent
    }

    /// Topics of what was written since the last look.
    fn sent_topics(&mut self) -> Vec<String> {
        self.sent().into_iter().map(|packet| packet.topic).collect()
    }
}

/// A packet of the device, as far as tests look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    kind: PacketType,
    id: Option<PacketId>,
    qos: Option<QoS>,
    dup: bool,
    /// Topic or filter.
    topic: String,
    payload: Vec<u8>,
}

impl Sent {
    fn of(packet: packet::Packet<'_>) -> Self {
        let mut sent = Self {
            kind: packet.packet_type(),
            id: None,
            qos: None,
            dup: false,
            topic: String::new(),
            payload: Vec::new(),
        };
        match packet {
            packet::Packet::Publish(publish) => {
                sent.id = publish.qos.packet_id();
                sent.qos = Some(publish.qos.qos());
                sent.dup = publish.qos.dup();
                sent.topic = publish.topic.to_string();
                sent.payload = publish.payload.to_vec();
            }
            packet::Packet::PubAck(id) => sent.id = Some(id),
            packet::Packet::Subscribe(subscribe) => {
                sent.id = Some(subscribe.packet_id());
                let (filter, qos) = subscribe.filters().next().unwrap();
                (sent.topic, sent.qos) = (filter.to_string(), Some(qos));
                assert_eq!(subscribe.filters().count(), 1);
            }
            packet::Packet::Unsubscribe(unsubscribe) => {
                sent.id = Some(unsubscribe.packet_id());
                sent.topic = unsubscribe.filters().next().unwrap().to_string();
            }
            _ => {}
        }
        sent
    }
}

fn packet_bytes(write: impl FnOnce(&mut Vec<u8>)) -> &'static [u8] {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes.leak()
}

fn suback(id: Option<PacketId>, codes: &[SubAckCode], out: &mut Vec<u8>) {
    packet::SubAck::encode(id.unwrap(), codes.iter().copied(), out).unwrap();
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn publish(topic: &str, qos: PublishQoS, payload: &[u8], out: &mut Vec<u8>) {
    let topic = TopicName::new(topic).unwrap();
    Publish { qos, retain: false, topic, payload }.encode(out).unwrap();
}

/// At QoS 0, as the hub sends twin and method traffic.
fn say(topic: &str, payload: &[u8]) -> impl FnOnce(&mut Vec<u8>) {
    move |out| publish(topic, PublishQoS::AtMostOnce, payload, out)
}

fn acknowledge(packet: &Sent) -> impl FnOnce(&mut Vec<u8>) + use<> {
    let id = packet.id.unwrap();
    move |out| puback(id, out)
}
