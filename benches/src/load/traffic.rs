//! Messages on their way: whose turn it is, what waits for its PUBACK, and how long that took.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use devicebound::packet::{Packet, PacketId, Publish, PublishQoS, TopicName};
use hdrhistogram::Histogram;

use super::swarm::Swarm;
use super::{Client, Failure};

/// How messages are published, at QoS 1.
#[derive(Clone, Copy, Debug)]
pub struct Publishing {
    /// The bytes of a message's body.
    pub payload: usize,
    /// How many messages of one client wait for their PUBACK at most; 1 to 65 535.
    pub window: u16,
    /// Messages per second of all clients together, evenly spaced; as fast as they are acknowledged without.
    pub rate: Option<u32>,
    /// What comes before and is not counted.
    pub warm_up: Duration,
    /// What is counted.
    pub duration: Duration,
}

/// How long what is in flight may take at the end of a run, and how often to look.
const DRAIN_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);
/// Longer than a run; a latency above it is counted as that.
pub(super) const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Latencies are told to one part in a thousand.
const LATENCY_DIGITS: u8 = 3;

/// When which client's turn is, at a fixed rate.
pub(super) struct Pace {
    interval: Duration,
    next: Instant,
    slot: usize,
    slots: usize,
}

impl Pace {
    pub(super) fn new(rate: u32, slots: usize) -> Self {
        Self { interval: Duration::from_secs(1) / rate.max(1), next: Instant::now(), slot: 0, slots }
    }

    pub(super) fn due(&mut self, now: Instant) -> Option<(usize, Instant)> {
        let due = (self.slot, self.next);
        (self.next <= now).then(|| {
            self.next += self.interval;
            self.slot = (self.slot + 1) % self.slots;
            due
        })
    }
}

/// All messages, on their way and acknowledged.
pub(super) struct Traffic {
    senders: Vec<Sender>,
    /// Whether each PUBACK makes for the next PUBLISH.
    closed: bool,
    pub(super) messages: u64,
    latencies: Histogram<u64>,
}

impl Traffic {
    /// Nothing sent yet.
    pub(super) fn new(clients: &[Client], plan: &Publishing) -> Result<Self, Failure> {
        let senders = clients.iter().map(|client| Sender::new(client, plan)).collect::<Result<_, _>>()?;
        Ok(Self { senders, closed: plan.rate.is_none(), messages: 0, latencies: latencies()? })
    }

    /// Counts from now on.
    pub(super) fn count_anew(&mut self) {
        self.messages = 0;
        self.latencies.clear();
    }

    /// Sends each client's first window.
    pub(super) fn fill(&mut self, swarm: &mut Swarm<'_>) -> Result<(), Failure> {
        for (slot, sender) in self.senders.iter_mut().enumerate() {
            let Some(line) = swarm.line(slot) else { continue };
            let now = Instant::now();
            while let Some(id) = sender.free.pop() {
                sender.send(id, now, &mut line.out);
            }
            line.flush()?;
        }
        Ok(())
    }

    /// A message that was due at `due` goes out, or waits for its place in the window.
    pub(super) fn offer(&mut self, slot: usize, due: Instant, swarm: &mut Swarm<'_>) -> Result<(), Failure> {
        let (Some(sender), Some(line)) = (self.senders.get_mut(slot), swarm.line(slot)) else {
            return Ok(());
        };
        match sender.free.pop() {
            Some(id) => {
                sender.send(id, due, &mut line.out);
                line.flush()?;
            }
            None => sender.late.push_back(due),
        }
        Ok(())
    }

    pub(super) fn received(
        &mut self,
        slot: usize,
        packet: Packet<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let Packet::PubAck(id) = packet else {
            return Err(format!("the server sent {packet:?}").into());
        };
        let sender = &mut self.senders[slot];
        let due = sender.due.get(usize::from(id.get())).ok_or("a PUBACK for what was not published")?;
        self.latencies.saturating_record(nanoseconds(now.saturating_duration_since(*due)));
        self.messages += 1;
        let next = if self.closed { Some(now) } else { sender.late.pop_front() };
        match next {
            Some(due) => sender.send(id, due, out),
            None => sender.free.push(id),
        }
        Ok(())
    }

    /// Sends nothing more and waits for what is in flight.
    pub(super) fn drain(&mut self, swarm: &mut Swarm<'_>) -> Result<(), Failure> {
        self.closed = false;
        self.senders.iter_mut().for_each(|sender| sender.late.clear());
        let start = Instant::now();
        while self.senders.iter().any(|sender| sender.free.len() < sender.due.len() - 1) {
            swarm.turn(Some(LOOK), |slot, packet, now, out| self.received(slot, packet, now, out))?;
            if start.elapsed() > DRAIN_MAX {
                return Err("the server has not acknowledged all that was published".into());
            }
        }
        Ok(())
    }

    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(quantile))
    }
}

/// The publishing side of one client.
struct Sender {
    /// The PUBLISH, encoded once, and where its packet id stands.
    publish: Vec<u8>,
    id_at: usize,
    /// When the message with that packet id was due.
    due: Vec<Instant>,
    free: Vec<PacketId>,
    /// When the messages were due that the window has no place for.
    late: VecDeque<Instant>,
}

impl Sender {
    fn new(client: &Client, plan: &Publishing) -> Result<Self, Failure> {
        let (topic, payload) = (client.topic(), vec![b'x'; plan.payload]);
        let mut publish = Vec::new();
        Publish {
            qos: PublishQoS::AtLeastOnce { packet_id: PacketId::MIN, dup: false },
            retain: false,
            topic: TopicName::new(&topic).map_err(|rule| rule.says())?,
            payload: &payload,
        }
        .encode(&mut publish)?;
        Ok(Self {
            // The packet id is the last thing before the payload.
            id_at: publish.len() - payload.len() - 2,
            publish,
            due: vec![Instant::now(); usize::from(plan.window) + 1],
            free: (1..=plan.window).rev().filter_map(PacketId::new).collect(),
            late: VecDeque::new(),
        })
    }

    fn send(&mut self, id: PacketId, due: Instant, out: &mut Vec<u8>) {
        self.publish[self.id_at..self.id_at + 2].copy_from_slice(&id.get().to_be_bytes());
        out.extend_from_slice(&self.publish);
        self.due[usize::from(id.get())] = due;
    }
}

pub(super) fn latencies() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new_with_max(nanoseconds(LATENCY_MAX), LATENCY_DIGITS)?)
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}
