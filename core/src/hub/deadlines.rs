//! Both clocks of a hub, and what comes due on them.

use core::time::Duration;

use super::opening::Opening;
use super::timers::Target;
use super::{CallId, Change, Commit, DeviceKey, DeviceSlot, Expired, Hub, LinkId, SequenceNumber, State};
use crate::rule::Rule;
use crate::session::CloseReason;
use crate::time::{Deadline, Instant, Timer, UnixTime};

impl Hub {
    /// Sets the wall clock. Only tokens, time stamps and expiry of messages follow it; timers do not.
    pub fn set_clock(&mut self, now: Instant, unix_time: UnixTime) {
        let expected = self.unix_time(now);
        self.clock = (now, unix_time);
        let step = expected.since(unix_time).max(unix_time.since(expected));
        if step > Duration::from_secs(1) {
            for (slot, link) in self.links.iter_mut() {
                link.timer = Some(now);
                self.timers.schedule(now, Target::Link(LinkId(slot)));
            }
            for (slot, device) in self.devices.iter_mut().filter(|(_, device)| device.mailbox_timer.is_some())
            {
                device.record.mailbox.shift_locks(expected, unix_time);
                device.mailbox_timer = Some(now);
                self.timers.schedule(now, Target::Mailbox(DeviceKey(slot)));
            }
        }
    }

    pub(super) fn unix_time(&self, now: Instant) -> UnixTime {
        unix_time(&self.clock, now)
    }

    /// The wall-clock time of a moment that has passed.
    pub(super) fn unix_time_of(&self, now: Instant, moment: Instant) -> UnixTime {
        self.unix_time(now).before(now.since(moment))
    }

    fn instant(&self, time: UnixTime) -> Instant {
        self.clock.0.after(time.since(self.clock.1))
    }

    /// When to call [`expire`](Self::expire).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let timer = self.timers.next().map(|(at, why)| Deadline { at, why });
        let fault = self.gate.next_fault().map(|at| Deadline { at, why: Timer::Fault });
        timer.into_iter().chain(fault).min_by_key(|deadline| deadline.at)
    }

    /// The next thing whose time has come. Call it until `None`.
    pub fn expire(&mut self, now: Instant) -> Option<Expired> {
        self.turn_faults(now);
        while let Some((at, target)) = self.timers.take_due(now) {
            let expired = match target {
                Target::Link(link) => self.expire_link(now, link, at),
                Target::Call(call) => self.expire_call(now, call),
                Target::Mailbox(device) => self.expire_mailbox(now, device, at),
                Target::Hold(link) => {
                    self.make_ready(link);
                    None
                }
            };
            if expired.is_some() {
                return expired;
            }
        }
        None
    }

    fn expire_link(&mut self, now: Instant, link: LinkId, at: Instant) -> Option<Expired> {
        let unix_time = self.unix_time(now);
        let grace = self.config.expiry_grace;
        let slot = self.links.get_mut(link.0).filter(|slot| slot.timer == Some(at))?;
        slot.timer = None;
        if slot.state.due(now, unix_time, grace).is_some() {
            return Some(Expired::Link(link));
        }
        self.schedule_link(link);
        None
    }

    fn expire_call(&mut self, now: Instant, call: CallId) -> Option<Expired> {
        match self.calls.expire(call, now) {
            Ok((device, failure)) => {
                if let Some(slot) = self.devices.get_mut(device.0) {
                    slot.calls.retain(|open| *open != call);
                }
                Some(Expired::Call(call, failure))
            }
            Err(deadline) => {
                if let Some(at) = deadline {
                    self.timers.schedule(at, Target::Call(call));
                }
                None
            }
        }
    }

    /// The next change that time has made in a queue; it is called again for the one after.
    fn expire_mailbox(&mut self, now: Instant, device: DeviceKey, at: Instant) -> Option<Expired> {
        let unix_time = self.unix_time(now);
        let unsent = self.unsent(device);
        let limits = &self.config.limits;
        let slot = self.devices.get_mut(device.0).filter(|slot| slot.mailbox_timer == Some(at))?;
        slot.mailbox_timer = None;
        let DeviceSlot { record, link, .. } = slot;
        let link = *link;
        let expired = if let Some(sequence) = record.mailbox.unlock(unix_time, limits) {
            let revision = record.change();
            Expired::Unlocked(Commit { device, revision, change: Change::Locked(sequence) })
        } else if let Some((message, outcome)) = record.mailbox.take_dead(unix_time, unsent, limits) {
            let letter = message.dead_letter(outcome);
            let revision = record.settle(message, outcome, || unix_time);
            Expired::DeadLettered(Commit { device, revision, change: Change::DeadLettered }, letter)
        } else {
            self.schedule_mailbox(device);
            return None;
        };
        if let Some(link) = link {
            self.make_ready(link); // what is behind may go now
        }
        self.schedule_mailbox(device);
        Some(expired)
    }

    pub(super) fn schedule_link(&mut self, link: LinkId) {
        let Some(slot) = self.links.get(link.0) else { return };
        let grace = self.config.expiry_grace;
        let deadline = match &slot.state {
            State::Handshake(handshake) => Some(handshake.deadline),
            State::Opening(Opening { link, .. }) => {
                link.expires.map(|expires| self.instant(expires.after(grace)))
            }
            State::Live(link) => {
                let silence = link.silence_ends();
                Some(link.expires.map_or(silence, |expires| silence.min(self.instant(expires.after(grace)))))
            }
            State::Ended { .. } => None,
        };
        if let Some(at) = deadline
            && let Some(slot) = self.links.get_mut(link.0)
            && slot.timer.is_none_or(|scheduled| at < scheduled)
        {
            slot.timer = Some(at);
            self.timers.schedule(at, Target::Link(link));
        }
    }

    pub(super) fn schedule_mailbox(&mut self, device: DeviceKey) {
        let unsent = self.unsent(device);
        let Some(slot) = self.devices.get(device.0) else { return };
        let Some(expiry) = slot.record.mailbox.next_change(unsent, &self.config.limits) else { return };
        let at = self.instant(expiry);
        if let Some(slot) = self.devices.get_mut(device.0)
            && slot.mailbox_timer.is_none_or(|scheduled| at < scheduled)
        {
            slot.mailbox_timer = Some(at);
            self.timers.schedule(at, Target::Mailbox(device));
        }
    }

    /// The first message that the present connection of the device has not been sent; without one, all are unsent.
    pub(super) fn unsent(&self, device: DeviceKey) -> SequenceNumber {
        let link = self.devices.get(device.0).and_then(|slot| slot.link);
        match link.and_then(|link| self.links.get(link.0)).map(|slot| &slot.state) {
            Some(State::Live(live)) => live.unsent,
            _ => SequenceNumber(0),
        }
    }
}

/// The wall-clock time at `now`, by one moment on both clocks.
pub(super) fn unix_time(&(at, unix_time): &(Instant, UnixTime), now: Instant) -> UnixTime {
    unix_time.after(now.since(at))
}

impl State {
    /// Why the link's time is over, if it is.
    pub(super) fn due(&mut self, now: Instant, unix_time: UnixTime, grace: Duration) -> Option<CloseReason> {
        match self {
            Self::Handshake(handshake) => {
                (handshake.deadline <= now).then_some(CloseReason::TimedOut(Rule::ConnectTime))
            }
            Self::Opening(Opening { link, .. }) | Self::Live(link)
                if link.expires.is_some_and(|expires| expires.after(grace) <= unix_time) =>
            {
                Some(CloseReason::Ended(Rule::SasExpired))
            }
            // Before its CONNACK the device has nothing to break its silence with.
            Self::Opening(_) => None,
            Self::Live(link) => link.is_silent(now).then_some(CloseReason::TimedOut(Rule::KeepAlive)),
            Self::Ended { .. } => None,
        }
    }
}
