//! What the hub counts, and `GET /metrics`, which tells it to Prometheus.
//!
//! Whatever a packet changes is counted by the worker whose packet it is, in [`Counters`] of its own that nobody else writes:
//! an addition is a load and a store, and no other thread waits for it. A scrape adds them up.

mod amqp;
mod exposition;
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use devicebound::Rule;
use devicebound::packet::PacketType;
use devicebound::session::{Close, CloseReason};

pub use amqp::AmqpMetrics;
pub use exposition::{CONTENT_TYPE, EndpointGauges, FileGauges, Gauges};

/// Upper ends of the classes that times are counted in, in microseconds; what takes longer is in one more.
const CLASSES: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000];

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    workers: Vec<Arc<Counters>>,
    opened: AtomicU64,
    /// How many connections ended by each rule, in the order of [`Rule::ALL`].
    closed: Vec<AtomicU64>,
    /// How many were refused by each rule: at CONNECT, or before.
    refused: Vec<AtomicU64>,
    /// TLS handshakes that came to nothing.
    tls_failed: AtomicU64,
    /// What back ends do over AMQP.
    pub amqp: AmqpMetrics,
    /// How long the store took for each batch.
    writes: Times,
    /// Changes of what automatic configurations do with a twin.
    configured: AtomicU64,
    /// Jobs that are over.
    jobs: AtomicU64,
    /// Devices that jobs have dealt with: well, and in vain.
    job_devices: [AtomicU64; 2],
}

/// What one worker counts. Only its own thread may write.
#[derive(Debug, Default)]
pub struct Counters {
    received_bytes: SingleWriterCounter,
    sent_bytes: SingleWriterCounter,
    /// By the type in the first four bits.
    packets: [SingleWriterCounter; 16],
    messages: [SingleWriterCounter; Message::ALL.len()],
    acknowledgements: OwnTimes,
}

/// Something that a worker does with a packet, besides taking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A telemetry message, or a will.
    Telemetry,
    /// Reported properties were changed.
    Reported,
    /// A cloud message was completed.
    Completed,
    /// A direct method was answered.
    Answered,
}

impl Message {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Telemetry, "telemetry"),
        (Self::Reported, "reported_properties"),
        (Self::Completed, "cloud_message_completed"),
        (Self::Answered, "method_answer"),
    ];
}

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
struct SingleWriterCounter(AtomicU64);

impl SingleWriterCounter {
    #[inline]
    fn add(&self, more: u64) {
        // Nobody else writes: no need for the bus lock of a read-modify-write.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long things took, by class, and all together in microseconds.
#[derive(Debug, Default)]
struct OwnTimes {
    classes: [SingleWriterCounter; CLASSES.len() + 1],
    micros: SingleWriterCounter,
}

/// The same for things that any thread does.
#[derive(Debug, Default)]
struct Times {
    classes: [AtomicU64; CLASSES.len() + 1],
    micros: AtomicU64,
}

fn class(micros: u64) -> usize {
    CLASSES.iter().position(|end| micros <= *end).unwrap_or(CLASSES.len())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Counters {
    /// A packet was received; `packet` is all of it.
    #[inline]
    pub fn received(&self, packet: &[u8]) {
        self.received_bytes.add(packet.len() as u64);
        if let Some(count) = packet.first().and_then(|first| self.packets.get(usize::from(first >> 4))) {
            count.add(1);
        }
    }

    /// So many bytes are to be sent.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.add(bytes as u64);
    }

    /// The hub did what a packet asked for.
    #[inline]
    pub fn did(&self, message: Message) {
        if let Some(count) = self.messages.get(message as usize) {
            count.add(1);
        }
    }

    /// So many messages have become safe, and may be acknowledged, so long after the first of them was taken.
    pub fn acknowledged(&self, messages: usize, after: Duration) {
        let (micros, messages) = (micros(after), messages as u64);
        if let Some(count) = self.acknowledgements.classes.get(class(micros)) {
            count.add(messages);
        }
        self.acknowledgements.micros.add(micros.saturating_mul(messages));
    }
}

impl Metrics {
    /// Nothing counted yet, for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let by_rule = || Rule::ALL.iter().map(|_| AtomicU64::default()).collect();
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            opened: AtomicU64::default(),
            closed: by_rule(),
            refused: by_rule(),
            tls_failed: AtomicU64::default(),
            amqp: AmqpMetrics::default(),
            writes: Times::default(),
            configured: AtomicU64::default(),
            jobs: AtomicU64::default(),
            job_devices: Default::default(),
        }
    }

    /// The counters of a worker; new ones that nobody reads for one that there is not.
    #[must_use]
    pub fn worker(&self, index: usize) -> Arc<Counters> {
        self.workers.get(index).cloned().unwrap_or_default()
    }

    /// A transport is there.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is over; `was_accepted` says whether it had its CONNACK.
    pub fn closed(&self, close: &Close, was_accepted: bool) {
        let refused = matches!(close.reason(), CloseReason::Refused(..)) || !was_accepted;
        let counts = if refused { &self.refused } else { &self.closed };
        let index = Rule::ALL.iter().position(|rule| *rule == close.rule());
        if let Some(count) = index.and_then(|index| counts.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A TLS handshake came to nothing.
    pub fn tls_failed(&self) {
        self.tls_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// What automatic configurations do with a twin has changed.
    pub fn configured(&self) {
        self.configured.fetch_add(1, Ordering::Relaxed);
    }

    /// A job is over.
    pub fn job_ended(&self) {
        self.jobs.fetch_add(1, Ordering::Relaxed);
    }

    /// A job has dealt with a device, maybe in vain.
    pub fn job_device_ended(&self, has_failed: bool) {
        if let Some(count) = self.job_devices.get(usize::from(has_failed)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The store has made a batch safe.
    pub fn written(&self, took: Duration) {
        let micros = micros(took);
        if let Some(count) = self.writes.classes.get(class(micros)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.writes.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn sum(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.workers.iter().map(|counters| counter(counters)).fold(0, u64::wrapping_add)
    }
}

/// The packets that a device may send, with the names that they are counted under.
const PACKETS: [(PacketType, &str); 7] = [
    (PacketType::Connect, "CONNECT"),
    (PacketType::Publish, "PUBLISH"),
    (PacketType::PubAck, "PUBACK"),
    (PacketType::Subscribe, "SUBSCRIBE"),
    (PacketType::Unsubscribe, "UNSUBSCRIBE"),
    (PacketType::PingReq, "PINGREQ"),
    (PacketType::Disconnect, "DISCONNECT"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn told(metrics: Metrics) -> String {
        exposition::text(Arc::new(metrics), Gauges::default())
    }

    #[test]
    fn the_counters_of_all_workers_are_added_up() {
        let metrics = Metrics::new(2);
        for index in 0..2 {
            let counters = metrics.worker(index);
            counters.received(&[0x32, 3, 0, 1, b'a']);
            counters.did(Message::Telemetry);
            counters.sent(4);
        }
        let told = told(metrics);
        for line in [
            r#"devicebound_packets_total{type="PUBLISH"} 2"#,
            r#"devicebound_messages_total{kind="telemetry"} 2"#,
            r#"devicebound_bytes_total{direction="received"} 10"#,
            r#"devicebound_bytes_total{direction="sent"} 8"#,
        ] {
            assert!(told.lines().any(|told| told == line), "{line} is missing in\n{told}");
        }
    }

    #[test]
    fn an_end_is_counted_under_its_rule_as_a_refusal_or_as_a_close() {
        let metrics = Metrics::new(1);
        metrics.closed(&Close::new(CloseReason::Ended(Rule::Takeover)), true);
        metrics.closed(&Close::new(CloseReason::TimedOut(Rule::ConnectTime)), false);
        let told = told(metrics);
        assert!(told.contains(r#"devicebound_connections_closed_total{rule="HUB-TAKEOVER"} 1"#), "{told}");
        assert!(
            told.contains(r#"devicebound_connections_refused_total{rule="HUB-CONNECT-TIME"} 1"#),
            "{told}"
        );
        assert!(
            !told.contains(r#"closed_total{rule="HUB-CONNECT-TIME"}"#),
            "a rule that ended nothing is left out"
        );
    }

    #[test]
    fn times_are_counted_in_classes_that_contain_each_other() {
        let metrics = Metrics::new(1);
        let counters = metrics.worker(0);
        counters.acknowledged(3, Duration::from_micros(300));
        counters.acknowledged(1, Duration::from_secs(9));
        let told = told(metrics);
        for line in [
            r#"devicebound_acknowledgement_seconds_bucket{le="0.00025"} 0"#,
            r#"devicebound_acknowledgement_seconds_bucket{le="0.0005"} 3"#,
            r#"devicebound_acknowledgement_seconds_bucket{le="2.0"} 3"#,
            r#"devicebound_acknowledgement_seconds_bucket{le="+Inf"} 4"#,
            "devicebound_acknowledgement_seconds_count 4",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} is missing in\n{told}");
        }
    }
}
