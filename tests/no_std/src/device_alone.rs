//! A device whose hub is a few bytes in memory: what firmware links.

use alloc::vec::Vec;

use devicebound::Device;
use devicebound::device::{Action, Credential, DeviceConfig, Event, Message, Wait};
use devicebound::iothub::Identity;
use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::{Instant, UnixTime};

const NOW: Instant = Instant::from_secs(1);
const WALL: UnixTime = UnixTime::from_secs(1_700_000_000);

/// Holds the conversation.
///
/// # Panics
/// Where it does not go as it should.
pub(crate) fn hold() {
    let identity = Identity::new("thermostat", None).expect("an id");
    let key = SymmetricKey::from_bytes(b"a key that only these two know");
    let config = DeviceConfig::new("hub.example.test", identity, Credential::Key(key));
    let mut device = Device::new(config).expect("a device with a key can connect");
    let mut tx = Vec::new();
    let opened = device.handle(NOW, Event::Opened { jitter: 0, unix_time: WALL }, &mut tx);
    assert!(matches!(opened, Ok(Action::Wait(_))), "{opened:?}");

    let connack = &mut &[0x20, 2, 0, 0][..];
    let connected = device.handle(NOW, Event::Received(connack), &mut tx);
    assert_eq!(connected, Ok(Action::Connected { session_present: false }));
    let ticket =
        device.telemetry(NOW, Message::new(b"21.5"), &mut tx).expect("there is room for one message");

    let puback = &mut &[0x40, 2, 0, 1][..];
    assert_eq!(device.handle(NOW, Event::Received(puback), &mut tx), Ok(Action::Acknowledged(ticket)));
    let nothing = device.handle(NOW, Event::Received(&mut &[][..]), &mut tx);
    assert!(matches!(nothing, Ok(Action::Wait(Wait::Read { .. }))), "{nothing:?}");
}
