//! Whatever the application asks for at whatever time: what cannot be had is refused with advice, and changes nothing.

use std::fmt::Display;
use std::time::Duration;

use devicebound::Device;
use devicebound::device::{
    Action, CallId, Credential, Delivery, DeviceConfig, Event, Limits, Message, OutboxPolicy,
};
use devicebound::iothub::Subscription;
use devicebound::packet::{Publish, PublishQoS, TopicName};
use devicebound::time::{Instant, UnixTime};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Something that is done to a device, with a number that makes it one of many.
type Deed = fn(&mut Bench, usize) -> Result<(), String>;

const DEEDS: [Deed; 14] = [
    // What happens
    |bench, _| bench.event(Event::Opened { jitter: 7, unix_time: UnixTime::from_secs(1_700_000_000) }),
    |bench, _| bench.receive(&[0x20, 2, 0, 0]),
    |bench, _| bench.event(Event::Closed),
    |bench, number| {
        bench.now = bench.now.after(Duration::from_secs(number as u64));
        bench.event(Event::TimedOut)
    },
    |bench, number| bench.receive(&publish("devices/dev1/messages/devicebound/", number)),
    |bench, number| bench.receive(&publish("$iothub/methods/POST/reboot/?$rid=1", number)),
    // What the application asks for
    |bench, number| {
        let size = [0, 10, 500, 300_000][number % 4];
        let properties: &[_] = &[[("", None), ("a", None)][number % 2]];
        let message = Message { properties, ..Message::new(&[0; 300_000][..size]) };
        bench.ask(|device, now, tx| device.telemetry(now, message, tx))
    },
    |bench, number| {
        let message = Message::new(&[0; 300_000][..[10, 300_000][number % 2]]);
        bench.ask(|device, _, tx| device.telemetry_at_most_once(message, tx))
    },
    |bench, number| {
        let Some(&delivery) = bench.deliveries.get(number) else { return Ok(()) };
        bench.ask(|device, _, tx| device.complete(delivery, tx))
    },
    |bench, number| {
        let Some(&call) = bench.calls.get(number) else { return Ok(()) };
        let body = vec![0; [2, 200_000][number % 2]];
        bench.ask(|device, now, tx| device.respond(now, call, 200, &body, tx))
    },
    |bench, _| bench.ask(|device, now, tx| device.get_twin(now, tx)),
    |bench, number| {
        let patch = vec![b' '; [2, 300_000][number % 2]];
        bench.ask(|device, now, tx| device.report(now, &patch, Some(1), tx))
    },
    |bench, number| {
        let subscription = Subscription::ALL[number % Subscription::ALL.len()];
        match number % 3 {
            0 => bench.ask(|device, now, tx| device.unsubscribe(now, subscription, tx)),
            1 => bench.ask(|device, now, tx| device.follow_desired(now, tx)),
            _ => bench.ask(|device, now, tx| device.subscribe(now, subscription, tx)),
        }
    },
    |bench, number| {
        let token = ["", "SharedAccessSignature sr=a&sig=AA%3D%3D&se=1"][number % 2];
        bench.ask(|device, now, _| device.replace_credential(now, Credential::Token(token.to_owned())))
    },
];

struct Bench {
    device: Device,
    now: Instant,
    tx: Vec<u8>,
    deliveries: Vec<Delivery>,
    calls: Vec<CallId>,
}

impl Bench {
    fn new(policy: OutboxPolicy) -> Self {
        let text = "HostName=hub.example.test;DeviceId=dev1;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==";
        let limits = Limits {
            outbox_messages: 4,
            outbox_bytes: 1500,
            requests: 2,
            calls: 2,
            tx_high_water: 2000,
            window: 3,
            ..Limits::default()
        };
        let config = DeviceConfig::from_connection_string(text).expect("the connection string is good");
        let device = Device::new(config.with_limits(limits).with_outbox(policy)).expect("the config is good");
        let (deliveries, calls) = (Vec::new(), Vec::new());
        Self { device, now: Instant::from_secs(1000), tx: Vec::new(), deliveries, calls }
    }

    fn event(&mut self, event: Event<'_, '_>) -> Result<(), String> {
        self.tx.clear();
        let _ = self.device.handle(self.now, event, &mut self.tx);
        self.receive(&[])
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        loop {
            match self.device.handle(self.now, Event::Received(&mut bytes), &mut self.tx) {
                Ok(Action::Wait(_)) | Err(_) => return Ok(()),
                Ok(Action::Deliver(_, delivery)) => self.deliveries.push(delivery),
                Ok(Action::Invoke(call)) => self.calls.push(call.id),
                Ok(_) => {}
            }
        }
    }

    /// Asks the device for something, and says what is wrong with a refusal.
    fn ask<T, E: Display>(
        &mut self,
        command: impl FnOnce(&mut Device, Instant, &mut Vec<u8>) -> Result<T, E>,
    ) -> Result<(), String> {
        let before = self.state();
        let Err(error) = command(&mut self.device, self.now, &mut self.tx) else { return Ok(()) };
        if self.state() != before {
            return Err(format!("was refused and changed something: {error}"));
        }
        let advice = error.to_string();
        if advice.len() < 20 { Err(format!("gives no advice: {advice}")) } else { Ok(()) }
    }

    /// All that can be seen of the device.
    fn state(&self) -> String {
        let mut snapshot = Vec::new();
        self.device.snapshot(&mut snapshot);
        format!("{:?} {:?} {snapshot:?} {:?}", self.device.status(), self.device.config(), self.tx)
    }
}

/// A PUBLISH from the hub at QoS 1.
fn publish(topic: &str, number: usize) -> Vec<u8> {
    let packet_id = devicebound::packet::PacketId::new(number as u16 % 8 + 1).expect("it is not 0");
    let mut out = Vec::new();
    let qos = PublishQoS::AtLeastOnce { packet_id, dup: false };
    let topic = TopicName::new(topic).expect("it is a topic name");
    Publish { qos, retain: false, topic, payload: b"{}" }.encode(&mut out).expect("it is short");
    out
}

proptest! {
    #![proptest_config(crate::cases(2000))]

    #[test]
    fn what_a_device_refuses_comes_with_advice_and_changes_nothing(
        drop_oldest in any::<bool>(),
        deeds in vec((select(&DEEDS[..]), 0..100_usize), 1..80),
    ) {
        let mut bench = Bench::new(if drop_oldest { OutboxPolicy::DropOldest } else { OutboxPolicy::Reject });
        for (deed, number) in deeds {
            prop_assert_eq!(deed(&mut bench, number), Ok(()));
        }
    }
}
