//! Bytes against the machines: whatever a peer sends, they stay within their bounds and serve whoever keeps the rules.

use std::sync::LazyLock;
use std::time::Duration;

use devicebound::device::{Action, ConnectionState, DeviceConfig, Event, Limits, Message};
use devicebound::hub;
use devicebound::iothub::Subscription;
use devicebound::limits::PACKET_MAX;
use devicebound::time::Instant;
use devicebound::{Close, Device};

use devicebound_world::fixtures;
use devicebound_world::hub_host::{HubHost, START, StoreMode};
use devicebound_world::station::Station;

const DEVICE: &str = "dev1";
const NEIGHBOUR: &str = "neighbour";
const NOW: Instant = Instant::from_secs(1000);
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

// Bits of the first byte of an input.
/// CONNECT was accepted.
pub(super) const ONLINE: u8 = 0x01;
/// The hub's store does not answer.
const STORE_HELD: u8 = 0x02;
/// What the machine writes is not taken.
const STALLED: u8 = 0x04;
/// There is a message and a call for the device, or the device asks for everything.
pub(super) const BUSY: u8 = 0x08;
/// The application on the device does not react.
const ABSENT: u8 = 0x10;

const OPENED: Event<'static, 'static> = Event::Opened { jitter: 0, unix_time: START };

static CONFIG: LazyLock<DeviceConfig> = LazyLock::new(|| fixtures::config(DEVICE));
/// The device's CONNECT; to sign its token anew for every input would take most of the time.
static CONNECT: LazyLock<Vec<u8>> = LazyLock::new(|| Owner::new(true).tx);

/// The head of an input: conditions, and how many bytes come at a time.
fn conditions(data: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (&[flags, step], bytes) = data.split_first_chunk()?;
    Some((flags, usize::from(step).max(1), bytes))
}

/// What a device sends to the hub: before or after a good CONNECT, with a store that answers or does not, to a hub whose
/// output is taken or not. The hub buffers no more than it may, its records can be written and read, and a
/// neighbour is served.
///
/// # Panics
/// Where that is not so.
pub fn hub_link(data: &[u8]) {
    let Some((flags, step, bytes)) = conditions(data) else { return };
    let mut hub = fixtures::hub(&[DEVICE, NEIGHBOUR]);
    let link = hub.open();
    if flags & ONLINE != 0 {
        hub.receive(link, &CONNECT);
        assert_eq!(hub.take_output(link), CONNACK);
    }
    if flags & STORE_HELD != 0 {
        hub.store = StoreMode::Held;
    }
    hub.stall(link, flags & STALLED != 0);
    if flags & BUSY != 0 {
        give_the_device_something_to_hear(&mut hub);
    }
    let limits = hub::Limits::default();
    for chunk in bytes.chunks(step) {
        hub.receive(link, chunk);
        let (unread, unsent) = hub.buffered(link);
        assert!(unread <= bytes.len() && unread <= PACKET_MAX + 5 + chunk.len());
        assert!(unsent <= 3 * limits.tx_high_water);
        hub.take_output(link);
    }
    hub.release_store();
    hub.stall(link, false);
    hub.advance(Duration::from_secs(u64::from(flags)));
    hub.hang_up(link);
    assert!(hub.closed(link).is_some(), "a connection that was hung up is closed");
    hub.store = StoreMode::Immediate;
    is_served(&mut hub);
    hub.restart();
    is_served(&mut hub);
}

fn give_the_device_something_to_hear(hub: &mut HubHost) {
    let device = hub.device(DEVICE);
    let message = hub::CloudMessage { payload: b"hello".to_vec(), ..hub::CloudMessage::default() };
    let (_, commit) = hub.hub.enqueue(hub.now, device, message).expect("the queue is empty");
    hub.commit(commit);
    let patience = Duration::from_secs(30);
    let call = hub::MethodRequest {
        name: "reboot".to_owned(),
        payload: None,
        response_timeout: patience,
        connect_timeout: patience,
    };
    hub.hub.invoke(hub.now, device, call).expect("there is no other call");
    hub.settle();
}

/// Another device connects, and sends telemetry that is acknowledged.
fn is_served(hub: &mut HubHost) {
    let mut station = Station::new(fixtures::config(NEIGHBOUR));
    station.connect(hub);
    station.telemetry(hub, Message::new(b"42"));
    assert_eq!(station.device.status().queued, 0, "{:?}", station.heard);
    assert_eq!(hub.telemetry.pop().map(|stored| stored.payload), Some(b"42".to_vec()));
    station.cut(hub);
}

/// What a hub sends to a device: before or after CONNACK, while the device waits for nothing or for everything, with an
/// application that answers or does not. The device holds no more than it may, keeps its telemetry, and connects
/// again.
///
/// # Panics
/// Where that is not so.
pub fn device_link(data: &[u8]) {
    let Some((flags, step, bytes)) = conditions(data) else { return };
    let mut owner = Owner::new(flags & ABSENT != 0);
    if flags & ONLINE != 0 {
        owner.receive(&CONNACK).expect("CONNACK is welcome");
    }
    if flags & BUSY != 0 {
        owner.asks_for_everything();
    }
    let queued = owner.device.status().queued;
    for chunk in bytes.chunks(step) {
        if flags & STALLED == 0 {
            owner.tx.clear();
        }
        if owner.receive(chunk).is_err() {
            break;
        }
    }
    let kept = owner.device.status().queued;
    assert!(kept + owner.acknowledged >= queued, "telemetry is kept until it is acknowledged");
    owner.waits();
    owner.connects_again();
}

/// A device and whoever drives it.
struct Owner {
    device: Device,
    now: Instant,
    rx: Vec<u8>,
    tx: Vec<u8>,
    /// The application neither completes messages nor answers methods.
    absent: bool,
    acknowledged: usize,
}

impl Owner {
    /// CONNECT was written.
    fn new(absent: bool) -> Self {
        let mut device = Device::new(CONFIG.clone()).expect("the config is good");
        let mut tx = Vec::new();
        device.handle(NOW, OPENED, &mut tx).expect("opening does not end a connection");
        Self { device, now: NOW, rx: Vec::new(), tx, absent, acknowledged: 0 }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Close> {
        self.rx.extend_from_slice(bytes);
        self.pull()
    }

    /// Works off what was received.
    fn pull(&mut self) -> Result<(), Close> {
        let rx = std::mem::take(&mut self.rx);
        let mut rest = rx.as_slice();
        loop {
            let action = self.device.handle(self.now, Event::Received(&mut rest), &mut self.tx);
            self.is_within_limits();
            match action {
                Ok(Action::Wait(_)) => break,
                Ok(Action::Acknowledged(_)) => self.acknowledged += 1,
                Ok(Action::Deliver(_, delivery)) if !self.absent => {
                    self.device.complete(delivery, &mut self.tx).expect("it was delivered just now");
                }
                Ok(Action::Invoke(call)) if !self.absent => {
                    self.device
                        .respond(self.now, call.id, 200, b"{}", &mut self.tx)
                        .expect("it was called just now");
                }
                Ok(_) => {}
                Err(close) => {
                    assert!(close.offending().end <= rest.len(), "{close}");
                    return Err(close);
                }
            }
        }
        self.rx = rest.to_vec();
        Ok(())
    }

    fn asks_for_everything(&mut self) {
        for subscription in [Subscription::CloudMessages, Subscription::Methods, Subscription::DesiredPatches]
        {
            self.device.subscribe(self.now, subscription, &mut self.tx).expect("few subscriptions are open");
        }
        for payload in [b"1", b"2", b"3"] {
            self.device.telemetry(self.now, Message::new(payload), &mut self.tx).expect("there is room");
        }
        // Refused while CONNACK has not come, which is well, too.
        let _ = self.device.get_twin(self.now, &mut self.tx);
    }

    fn is_within_limits(&self) {
        let (status, limits) = (self.device.status(), Limits::default());
        assert!(status.in_flight <= limits.window);
        assert!(status.deliveries <= limits.deliveries);
        assert!(status.requests <= limits.requests);
        assert!(status.calls <= limits.calls);
        assert!(self.tx.len() <= limits.tx_max + limits.packet);
    }

    /// The next deadlines come, and nothing else.
    fn waits(&mut self) {
        for _ in 0..8 {
            let Some(deadline) = self.device.poll_timeout() else { return };
            self.now = self.now.max(deadline.at);
            let timed_out = self.device.handle(self.now, Event::TimedOut, &mut self.tx);
            if timed_out.is_err() || self.pull().is_err() {
                return;
            }
            let next = self.device.poll_timeout();
            assert!(next.is_none_or(|next| next.at > self.now), "{next:?} is not later than {:?}", self.now);
        }
    }

    fn connects_again(&mut self) {
        // The end of a connection that was alive is returned once more.
        let _ = self.device.handle(self.now, Event::Closed, &mut self.tx);
        self.rx.clear();
        self.device.handle(self.now, OPENED, &mut self.tx).expect("opening does not end a connection");
        self.receive(&CONNACK).expect("CONNACK is welcome");
        assert_eq!(self.device.status().connection, ConnectionState::Online);
    }
}
