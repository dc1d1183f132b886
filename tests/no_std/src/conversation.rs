//! A device connects to a hub, sends telemetry, and hears that it is stored.

use alloc::borrow::ToOwned as _;
use alloc::vec::Vec;

use devicebound::device::{self, Credential, DeviceConfig, Message, Ticket};
use devicebound::hub::{self, Authentication, DeviceIdentity, DeviceRecord, HubConfig, LinkId};
use devicebound::iothub::Identity;
use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::{Instant, UnixTime};
use devicebound::{Device, Hub};

const NOW: Instant = Instant::from_secs(1);
const WALL: UnixTime = UnixTime::from_secs(1_700_000_000);
const PAYLOAD: &[u8] = br#"{"temperature":21.5}"#;
const PROPERTIES: &[(&str, Option<&str>)] = &[("zone", Some("7"))];

/// Holds the conversation.
///
/// # Panics
/// Where it does not go as it should.
pub(crate) fn hold() {
    let key = SymmetricKey::from_bytes(b"a key that only these two know");
    let mut pair = Pair::new(&key);
    pair.talk();
    let message = Message { properties: PROPERTIES, ..Message::new(PAYLOAD) };
    let ticket =
        pair.device.telemetry(NOW, message, &mut pair.to_hub).expect("there is room for one message");
    pair.talk();
    assert!(pair.stored, "the telemetry did not arrive");
    assert_eq!(pair.acknowledged, Some(ticket), "its PUBACK did not arrive");
}

/// Two machines, and what each has written that the other has not taken yet.
struct Pair {
    device: Device,
    hub: Hub,
    link: LinkId,
    to_hub: Vec<u8>,
    to_device: Vec<u8>,
    stored: bool,
    acknowledged: Option<Ticket>,
}

impl Pair {
    /// A device that has just written CONNECT, and a hub that knows it.
    fn new(key: &SymmetricKey) -> Self {
        let mut hub = Hub::new(HubConfig::default(), NOW, WALL);
        let authentication = Authentication::Sas { primary: key.clone(), secondary: key.clone() };
        let identity = DeviceIdentity::new("thermostat", "1".to_owned(), authentication).expect("an id");
        hub.insert(DeviceRecord::new(identity)).expect("the hub was empty");
        let link = hub.open(NOW).expect("the hub was idle");

        let identity = Identity::new("thermostat", None).expect("an id");
        let config = DeviceConfig::new("hub.example.test", identity, Credential::Key(key.clone()));
        let mut device = Device::new(config).expect("a device with a key can connect");
        let mut to_hub = Vec::new();
        let opened = device::Event::Opened { jitter: 0, unix_time: WALL };
        let action = device.handle(NOW, opened, &mut to_hub);
        assert!(matches!(action, Ok(device::Action::Wait(_))), "{action:?}");
        Self { device, hub, link, to_hub, to_device: Vec::new(), stored: false, acknowledged: None }
    }

    /// Carries bytes to and fro until both have nothing more to say.
    fn talk(&mut self) {
        while !self.to_hub.is_empty() || !self.to_device.is_empty() {
            self.hub_pulls();
            self.device_pulls();
        }
    }

    fn hub_pulls(&mut self) {
        let bytes = core::mem::take(&mut self.to_hub);
        let (mut rest, tx) = (bytes.as_slice(), &mut self.to_device);
        loop {
            let event = hub::Event::Received(&mut rest);
            match self.hub.handle(NOW, self.link, event, tx).expect("the device breaks no rule") {
                hub::Action::Authenticate(request) => {
                    let grant = self
                        .hub
                        .authenticate(NOW, self.link, &request, hub::TlsClient::default())
                        .expect("the token is the device's");
                    if let Some(commit) = self.hub.accept(NOW, self.link, grant) {
                        self.hub.committed(commit.device, commit.revision);
                    }
                }
                hub::Action::Telemetry(message) => {
                    assert_eq!(message.payload, PAYLOAD);
                    let properties = message.properties();
                    assert!(properties.eq([("zone".into(), Some("7".into()))]), "{:?}", message.bag);
                    self.stored = true;
                    self.hub.stored(message.receipt.expect("telemetry is sent at QoS 1"));
                }
                hub::Action::Commit(commit) => self.hub.committed(commit.device, commit.revision),
                hub::Action::Wait(hub::Wait::Read { .. }) => break,
                other => panic!("the hub wants {other:?}"),
            }
        }
        assert!(rest.is_empty(), "packets are written whole");
        while let Some(link) = self.hub.poll_ready() {
            let progress = self.hub.poll_transmit(NOW, link, tx);
            assert_eq!(progress, Ok(hub::Progress::Idle));
        }
    }

    fn device_pulls(&mut self) {
        let bytes = core::mem::take(&mut self.to_device);
        let mut rest = bytes.as_slice();
        loop {
            let event = device::Event::Received(&mut rest);
            match self.device.handle(NOW, event, &mut self.to_hub).expect("the hub breaks no rule") {
                device::Action::Connected { .. } => {}
                device::Action::Acknowledged(ticket) => self.acknowledged = Some(ticket),
                device::Action::Wait(device::Wait::Read { .. }) => break,
                other => panic!("the device wants {other:?}"),
            }
        }
        assert!(rest.is_empty(), "packets are written whole");
    }
}
