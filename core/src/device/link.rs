//! What lives as long as one connection, in one struct, so that nothing of it can outlive the connection.

use alloc::vec::Vec;
use core::time::Duration;

use super::twin::Observer;
use crate::iothub::Subscription;
use crate::packet::PacketId;
use crate::time::{Deadline, Instant, Timer};

/// An established connection: CONNACK 0 came.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) since: Instant,
    pub(super) pulse: Pulse,
    pub(super) renewal: Renewal,
    /// SUBSCRIBE and UNSUBSCRIBE packets without answer, oldest first.
    pub(super) pending: Vec<Pending>,
    /// Encoded twin requests that wait for the subscription by which their answers come.
    pub(super) held: Vec<u8>,
    pub(super) observer: Observer,
}

/// A SUBSCRIBE or an UNSUBSCRIBE without answer. Each carries one filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) id: PacketId,
    pub(super) subscription: Subscription,
    pub(super) kind: PendingKind,
    pub(super) deadline: Instant,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingKind {
    Subscribe,
    Unsubscribe,
}

/// Keep alive, the device's side.
///
/// A PINGREQ goes out every keep alive, whatever else is sent or received: so the hub hears the device in time
/// `[MQTT-3.1.2-23]`, and a link that swallows what is sent steadily is found, too. The link is dead when nothing at
/// all has come for the ping time-out after a PINGREQ; anything that comes, part of a long packet included, is a sign
/// of life, so that a PINGRESP behind a large message is not missed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    every: Duration,
    patience: Duration,
    ping_at: Instant,
    /// When the oldest PINGREQ without answer was sent.
    unanswered: Option<Instant>,
    last_received: Instant,
    /// How much of an unfinished packet had come at the last look.
    unfinished: usize,
}

impl Pulse {
    pub(crate) fn new(every: Duration, patience: Duration, now: Instant) -> Self {
        Self {
            every,
            patience,
            ping_at: now.after(every),
            unanswered: None,
            last_received: now,
            unfinished: 0,
        }
    }

    /// A whole packet came.
    pub(crate) fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.unfinished = 0;
    }

    /// `length` bytes of an unfinished packet are there.
    pub(crate) fn receiving(&mut self, length: usize, now: Instant) {
        if length > self.unfinished {
            self.last_received = now;
        }
        self.unfinished = length;
    }

    /// A PINGRESP came.
    pub(crate) fn answered(&mut self) {
        self.unanswered = None;
    }

    /// Whether a PINGREQ is to be sent, which is taken as done.
    pub(crate) fn is_ping_due(&mut self, now: Instant) -> bool {
        let due = self.ping_at <= now;
        if due {
            self.ping_at = now.after(self.every);
            self.unanswered.get_or_insert(now);
        }
        due
    }

    /// Whether the link is dead.
    pub(crate) fn is_dead(&self, now: Instant) -> bool {
        self.dead_at().is_some_and(|dead_at| dead_at <= now)
    }

    pub(crate) fn deadline(&self) -> Deadline {
        match self.dead_at() {
            Some(at) if at <= self.ping_at => Deadline { at, why: Timer::PingResp },
            _ => Deadline { at: self.ping_at, why: Timer::Ping },
        }
    }

    fn dead_at(&self) -> Option<Instant> {
        self.unanswered.map(|sent| sent.max(self.last_received).after(self.patience))
    }
}

/// When the connection is to be replaced by one with a new SAS token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// There is no token, or the application knows that its own expires.
    Never,
    /// The token is the application's: at `at` it is told that the token expires at `expires`.
    Warning { at: Instant, expires: Instant },
    /// From then on, as soon as nothing is in flight.
    Planned(Instant),
    /// Nothing new is sent; then at the latest, whatever is in flight.
    Draining(Instant),
}

impl Renewal {
    /// How long the application's token is good for, when it is time to say so, which is taken as done.
    pub(super) fn warn(&mut self, now: Instant) -> Option<Duration> {
        let Self::Warning { at, expires } = *self else { return None };
        if at > now {
            return None;
        }
        *self = Self::Never;
        Some(expires.since(now))
    }

    /// Starts draining when it is time to.
    pub(super) fn time_out(&mut self, now: Instant, patience: Duration) {
        if matches!(*self, Self::Planned(at) if at <= now) {
            *self = Self::Draining(now.after(patience));
        }
    }

    pub(super) fn deadline(self) -> Option<Deadline> {
        match self {
            Self::Never => None,
            Self::Warning { at, .. } => Some(Deadline { at, why: Timer::TokenWarning }),
            Self::Planned(at) | Self::Draining(at) => Some(Deadline { at, why: Timer::TokenRenewal }),
        }
    }
}

impl Link {
    /// Whether a SUBSCRIBE or UNSUBSCRIBE without answer carries `id`.
    pub(super) fn awaits(&self, id: PacketId) -> bool {
        self.pending.iter().any(|pending| pending.id == id)
    }

    /// Takes the answer to the SUBSCRIBE or UNSUBSCRIBE with `id`; `None` where there is none such.
    pub(super) fn settle(&mut self, kind: PendingKind, id: PacketId) -> Option<Subscription> {
        let index = self.pending.iter().position(|pending| pending.id == id && pending.kind == kind)?;
        Some(self.pending.remove(index).subscription)
    }

    /// Whether telemetry may be sent: not when the connection is about to be replaced.
    pub(super) const fn takes_telemetry(&self) -> bool {
        !matches!(self.renewal, Renewal::Draining(_))
    }

    /// The next deadline of the connection, requests aside.
    pub(super) fn deadline(&self) -> Deadline {
        let request = |at| Deadline { at, why: Timer::Request };
        let pending = self.pending.iter().map(|pending| pending.deadline).min();
        [pending.map(request), self.observer.deadline().map(request), self.renewal.deadline()]
            .into_iter()
            .flatten()
            .fold(self.pulse.deadline(), earlier)
    }
}

/// The earlier of two deadlines.
pub(crate) fn earlier(one: Deadline, other: Deadline) -> Deadline {
    if other.at < one.at { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn at(secs: u64) -> Instant {
        Instant::from_secs(secs)
    }

    #[test]
    fn a_silent_link_is_dead_after_keep_alive_and_ping_time_out() {
        let mut pulse = Pulse::new(EVERY, PATIENCE, at(0));
        assert_eq!(pulse.deadline(), Deadline { at: at(60), why: Timer::Ping });
        assert!(pulse.is_ping_due(at(60)));
        assert_eq!(pulse.deadline(), Deadline { at: at(90), why: Timer::PingResp });
        assert!(!pulse.is_dead(at(89)));
        assert!(pulse.is_dead(at(90)));
    }

    #[test]
    fn a_ping_goes_out_every_keep_alive_also_while_packets_come() {
        let mut pulse = Pulse::new(EVERY, PATIENCE, at(0));
        for minute in 1..10 {
            pulse.received(at(minute * 60 - 1));
            assert!(!pulse.is_ping_due(at(minute * 60 - 1)));
            assert!(pulse.is_ping_due(at(minute * 60)));
            pulse.answered();
        }
    }

    #[test]
    fn further_pings_do_not_put_off_the_end_of_a_silent_link() {
        let mut pulse = Pulse::new(Duration::from_secs(10), PATIENCE, at(0));
        for ping in [10, 20, 30] {
            assert!(pulse.is_ping_due(at(ping)));
            assert!(!pulse.is_dead(at(ping)));
        }
        assert_eq!(pulse.deadline(), Deadline { at: at(40), why: Timer::PingResp });
        assert!(pulse.is_dead(at(40)));
    }

    #[test]
    fn part_of_a_long_packet_is_a_sign_of_life_and_the_same_part_again_is_not() {
        let mut pulse = Pulse::new(EVERY, PATIENCE, at(0));
        assert!(pulse.is_ping_due(at(60)));
        pulse.receiving(1000, at(80));
        assert!(!pulse.is_dead(at(100)));
        pulse.receiving(1000, at(100));
        assert!(pulse.is_dead(at(110)));
        pulse.receiving(1001, at(110));
        assert!(!pulse.is_dead(at(110)));
    }

    #[test]
    fn a_renewal_waits_for_what_is_in_flight_but_not_for_ever() {
        let mut renewal = Renewal::Planned(at(100));
        renewal.time_out(at(99), PATIENCE);
        assert_eq!(renewal, Renewal::Planned(at(100)));
        renewal.time_out(at(101), PATIENCE);
        assert_eq!(renewal, Renewal::Draining(at(131)));
        renewal.time_out(at(120), PATIENCE);
        assert_eq!(renewal, Renewal::Draining(at(131)));
    }
}
