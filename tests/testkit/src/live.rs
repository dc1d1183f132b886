//! One device online at one hub, each machine on its own, driven at no cost of the driver's: for counting, measuring and
//! fuzzing.

#![allow(clippy::panic, reason = "a machine that does not do what it is asked for must stop the test")]

use devicebound::device::{self, Message, PreparedProperties, SendError, Ticket};
use devicebound::hub::{self, HubConfig, LinkId, Receipt};
use devicebound::limits::IN_FLIGHT_MAX;
use devicebound::packet::{PacketId, Publish, PublishQoS, TopicName};
use devicebound::time::Instant;
use devicebound::{Device, Hub};

use devicebound_world::fixtures::{config, record};
use devicebound_world::hub_host::{START, StoreMode};

/// The one device.
pub const DEVICE_ID: &str = "sensor-42";
/// What its telemetry is published to: 76 bytes.
pub const TELEMETRY_TOPIC: &str =
    "devices/sensor-42/messages/events/%24.ct=application%2Fjson&%24.ce=utf-8&z=7";
/// What its telemetry without properties is published to: 34 bytes.
pub const PLAIN_TELEMETRY_TOPIC: &str = "devices/sensor-42/messages/events/";
/// What a cloud message to it is published to.
pub const CLOUD_MESSAGE_TOPIC: &str = "devices/sensor-42/messages/devicebound/%24.mid=1f8c&%24.to=%2Fdevices%2Fsensor-42%2Fmessages%2FdeviceBound";

const NOW: Instant = Instant::from_secs(1000);
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// A QoS 1 PUBLISH.
#[must_use]
pub fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let packet_id = PacketId::new(packet_id).expect("0 is no packet id");
    let qos = PublishQoS::AtLeastOnce { packet_id, dup: false };
    let topic = TopicName::new(topic).expect("it is a topic name");
    let mut out = Vec::new();
    Publish { qos, retain: false, topic, payload }.encode(&mut out).expect("it fits");
    out
}

/// A message with the properties of [`TELEMETRY_TOPIC`].
#[must_use]
pub fn telemetry(payload: &[u8]) -> Message<'_> {
    Message {
        content_type: Some("application/json"),
        content_encoding: Some("utf-8"),
        properties: &[("z", Some("7"))],
        ..Message::new(payload)
    }
}

/// A device that has just written CONNECT, and its CONNECT.
#[must_use]
pub fn opening_device() -> (Device, Vec<u8>) {
    let mut device = Device::new(config(DEVICE_ID)).expect("the config is good");
    let mut tx = Vec::new();
    let opened = device::Event::Opened { jitter: 0, unix_time: START };
    device.handle(NOW, opened, &mut tx).expect("opening does not end a connection");
    (device, tx)
}

/// A hub at which the device is online.
#[derive(Debug)]
pub struct LiveHub {
    hub: Hub,
    link: LinkId,
    tx: Vec<u8>,
    receipts: Vec<Receipt>,
    stored: usize,
}

impl LiveHub {
    /// A hub at which the device has just come online.
    ///
    /// # Panics
    /// Where it cannot.
    #[must_use]
    pub fn new() -> Self {
        let mut hub = Hub::new(HubConfig::default(), NOW, START);
        hub.insert(record(DEVICE_ID)).expect("the hub is empty");
        let link = hub.open(NOW).expect("the hub is idle");
        let receipts = Vec::with_capacity(IN_FLIGHT_MAX);
        let mut live = Self { hub, link, tx: Vec::new(), receipts, stored: 0 };
        let (_, connect) = opening_device();
        assert_eq!(live.receive(&connect, StoreMode::Immediate), CONNACK);
        live
    }

    /// Takes whole packets, stores what is telemetry, and gives what is to be written. A store that is held back
    /// stores when the hub wants to read no further without it, and at the end.
    ///
    /// # Panics
    /// Where the packets end the connection or are not whole.
    pub fn receive(&mut self, mut packets: &[u8], store: StoreMode) -> &[u8] {
        self.tx.clear();
        loop {
            let event = hub::Event::Received(&mut packets);
            match self.hub.handle(NOW, self.link, event, &mut self.tx).expect("the device breaks no rule") {
                hub::Action::Telemetry(message) => {
                    let receipt = message.receipt.expect("telemetry is sent at QoS 1");
                    match store {
                        StoreMode::Immediate => self.hub.stored(receipt),
                        StoreMode::Held => self.receipts.push(receipt),
                    }
                    self.stored += 1;
                }
                hub::Action::Authenticate(request) => {
                    let grant = self
                        .hub
                        .authenticate(NOW, self.link, &request, hub::TlsClient::default())
                        .expect("the token is good");
                    if let Some(commit) = self.hub.accept(NOW, self.link, grant) {
                        self.hub.committed(commit.device, commit.revision);
                    }
                }
                hub::Action::Commit(commit) => self.hub.committed(commit.device, commit.revision),
                hub::Action::Answered(_)
                | hub::Action::Done(_)
                | hub::Action::TwinRead
                | hub::Action::TwinRefused(_)
                | hub::Action::IssueCertificate(_) => {}
                hub::Action::Wait(_) if !self.receipts.is_empty() => self.store(),
                hub::Action::Wait(hub::Wait::Read { .. }) => break,
                hub::Action::Wait(wait) => panic!("the hub waits for {wait:?}"),
            }
        }
        assert!(packets.is_empty(), "packets are whole");
        while let Some(link) = self.hub.poll_ready() {
            let progress = self.hub.poll_transmit(NOW, link, &mut self.tx);
            assert_eq!(progress, Ok(hub::Progress::Idle));
        }
        &self.tx
    }

    /// Telemetry messages that were stored so far.
    #[must_use]
    pub const fn stored(&self) -> usize {
        self.stored
    }

    fn store(&mut self) {
        for receipt in self.receipts.drain(..) {
            self.hub.stored(receipt);
        }
    }
}

impl Default for LiveHub {
    fn default() -> Self {
        Self::new()
    }
}

/// A device that is online.
#[derive(Debug)]
pub struct LiveDevice {
    device: Device,
    tx: Vec<u8>,
    acknowledged: usize,
    delivered: usize,
}

impl LiveDevice {
    /// A device that has just come online.
    #[must_use]
    pub fn new() -> Self {
        let (device, _) = opening_device();
        let mut live = Self { device, tx: Vec::new(), acknowledged: 0, delivered: 0 };
        live.receive(&CONNACK);
        live
    }

    /// Sends telemetry with the properties of [`TELEMETRY_TOPIC`], as far as the window is open.
    ///
    /// # Errors
    /// As [`Device::telemetry`] does.
    pub fn telemetry(&mut self, payload: &[u8]) -> Result<Ticket, SendError> {
        self.send(telemetry(payload))
    }

    /// Sends telemetry with properties that were prepared, as far as the window is open.
    ///
    /// # Errors
    /// As [`Device::telemetry_with`] does.
    pub fn telemetry_with(
        &mut self,
        properties: &PreparedProperties,
        payload: &[u8],
    ) -> Result<Ticket, SendError> {
        self.device.telemetry_with(NOW, properties, payload, &mut self.tx)
    }

    /// Sends any telemetry, as far as the window is open.
    ///
    /// # Errors
    /// As [`Device::telemetry`] does.
    pub fn send(&mut self, message: Message<'_>) -> Result<Ticket, SendError> {
        self.device.telemetry(NOW, message, &mut self.tx)
    }

    /// Takes whole packets, and completes what is a cloud message.
    ///
    /// # Panics
    /// Where the packets end the connection or are not whole.
    pub fn receive(&mut self, mut packets: &[u8]) {
        loop {
            let event = device::Event::Received(&mut packets);
            match self.device.handle(NOW, event, &mut self.tx) {
                Ok(device::Action::Acknowledged(_)) => self.acknowledged += 1,
                Ok(device::Action::Deliver(_, delivery)) => {
                    self.device.complete(delivery, &mut self.tx).expect("it was delivered just now");
                    self.delivered += 1;
                }
                Ok(device::Action::Wait(device::Wait::Read { .. })) => break,
                Ok(device::Action::Wait(wait)) => panic!("the device waits for {wait:?}"),
                Ok(_) => {}
                Err(close) => panic!("the hub breaks a rule: {close}"),
            }
        }
        assert!(packets.is_empty(), "packets are whole");
    }

    /// What is to be written.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.tx
    }

    /// All was written.
    pub fn written(&mut self) {
        self.tx.clear();
    }

    /// Telemetry messages that the hub has acknowledged so far.
    #[must_use]
    pub const fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Cloud messages that were completed so far.
    #[must_use]
    pub const fn delivered(&self) -> usize {
        self.delivered
    }
}

impl Default for LiveDevice {
    fn default() -> Self {
        Self::new()
    }
}
