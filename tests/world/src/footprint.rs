//! What a device costs each machine, in bytes of memory, counted by the allocator.

use std::fmt;
use std::mem::size_of;

use devicebound::device::{self, DeviceConfig, Message};
use devicebound::hub::{self, DeviceKey, HubConfig, LinkId};
use devicebound::limits::IN_FLIGHT_MAX;
use devicebound::time::Instant;
use devicebound::{Device, Hub};

use super::options::client_id;
use crate::allocations::growth;
use crate::fixtures;
use crate::hub_host::START;

/// Bytes of memory per device: what the machine of a device takes, and what it takes the hub's. Buffers of sockets are
/// their owners' and do not count.
///
/// Only a program whose allocator is [`Counting`](crate::allocations::Counting) sees more than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// A device machine that is offline.
    pub device_offline: usize,
    /// The same, online.
    pub device_online: usize,
    /// The same with as many messages of 128 bytes on their way as the hub takes.
    pub device_full: usize,
    /// A record at the hub, without a connection.
    pub hub_record: usize,
    /// The same, connected.
    pub hub_connected: usize,
}

const NOW: Instant = Instant::from_secs(1000);

impl Footprint {
    /// Measures with so many devices.
    ///
    /// # Panics
    /// Where they cannot connect.
    #[must_use]
    pub fn measure(devices: usize) -> Self {
        let configs: Vec<_> = (0..devices).map(|number| fixtures::config(&client_id(number))).collect();
        let records: Vec<_> = (0..devices).map(|number| fixtures::record(&client_id(number))).collect();
        // Clones are exact, where what was read from text may have room to spare.
        let configs_take = growth(|| std::mem::forget(configs.clone()));
        let records_take = growth(|| std::mem::forget(records.clone()));
        let mut fleet = Fleet::new(devices);
        let offline = growth(|| fleet.make(configs)) + configs_take;
        let registered = growth(|| fleet.register(records)) + records_take;
        let (mut at_devices, mut at_hub, mut on_their_way) = (0, 0, 0);
        for number in 0..devices {
            let mut tx = Vec::with_capacity(16 * 1024);
            at_devices += growth(|| fleet.open(number, &mut tx));
            at_hub += growth(|| fleet.connect(&tx));
            at_devices += growth(|| fleet.connected(number, &mut tx));
            on_their_way += growth(|| fleet.send(number, &mut tx));
        }
        let each = |bytes: isize| usize::try_from(bytes).unwrap_or(0) / devices.max(1);
        Self {
            device_offline: each(offline),
            device_online: each(offline + at_devices),
            device_full: each(offline + at_devices + on_their_way),
            hub_record: each(registered),
            hub_connected: each(registered + at_hub),
        }
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device_offline, device_online, device_full, hub_record, hub_connected } = self;
        write!(f, "memory of a device machine: {device_offline} bytes, online {device_online}, ")?;
        writeln!(f, "with {IN_FLIGHT_MAX} messages of 128 bytes on their way {device_full}")?;
        write!(f, "memory of a device at the hub: {hub_record} bytes, connected {hub_connected}; ")?;
        write!(f, "a record is {} of them in place", size_of::<hub::DeviceRecord>())
    }
}

struct Fleet {
    devices: Vec<Device>,
    hub: Hub,
    keys: Vec<DeviceKey>,
    links: Vec<LinkId>,
    answer: Vec<u8>,
}

impl Fleet {
    fn new(devices: usize) -> Self {
        Self {
            devices: Vec::new(),
            hub: Hub::new(HubConfig::default(), NOW, START),
            keys: Vec::with_capacity(devices),
            links: Vec::with_capacity(devices),
            answer: Vec::with_capacity(4096),
        }
    }

    fn make(&mut self, configs: Vec<DeviceConfig>) {
        self.devices.reserve_exact(configs.len());
        self.devices
            .extend(configs.into_iter().map(|config| Device::new(config).expect("the config is good")));
    }

    fn register(&mut self, records: Vec<hub::DeviceRecord>) {
        for record in records {
            self.keys.push(self.hub.insert(record).expect("each id is there once"));
        }
    }

    fn open(&mut self, number: usize, tx: &mut Vec<u8>) {
        let opened = device::Event::Opened { jitter: 0, unix_time: START };
        self.devices[number].handle(NOW, opened, tx).expect("opening ends no connection");
    }

    fn connect(&mut self, mut connect: &[u8]) {
        let link = self.hub.open(NOW).expect("there is room");
        self.links.push(link);
        self.answer.clear();
        loop {
            let event = hub::Event::Received(&mut connect);
            match self.hub.handle(NOW, link, event, &mut self.answer).expect("the device breaks no rule") {
                hub::Action::Authenticate(request) => {
                    let grant = self
                        .hub
                        .authenticate(NOW, link, &request, hub::TlsClient::default())
                        .expect("the token is good");
                    if let Some(commit) = self.hub.accept(NOW, link, grant) {
                        self.hub.committed(commit.device, commit.revision);
                    }
                }
                hub::Action::Wait(hub::Wait::Read { .. }) => break,
                _ => {}
            }
        }
        while self.hub.poll_ready().is_some() {}
    }

    fn connected(&mut self, number: usize, tx: &mut Vec<u8>) {
        let mut answer = self.answer.as_slice();
        let device = &mut self.devices[number];
        loop {
            let event = device::Event::Received(&mut answer);
            match device.handle(NOW, event, tx).expect("the hub breaks no rule") {
                device::Action::Wait(_) => break,
                device::Action::Connected { .. } => {}
                action => unreachable!("{action:?}"),
            }
        }
        assert_eq!(device.status().connection, device::ConnectionState::Online);
    }

    fn send(&mut self, number: usize, tx: &mut Vec<u8>) {
        let device = &mut self.devices[number];
        for _ in 0..IN_FLIGHT_MAX {
            device.telemetry(NOW, Message::new(&[0; 128]), tx).expect("the window is open");
        }
    }
}
