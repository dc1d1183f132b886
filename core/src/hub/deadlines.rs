//! What comes due, on either clock.

use core::time::Duration;

use super::clock::Clock;
use super::timers::Target;
use super::{
    CallFailure, CallId, Change, Commit, Credential, DeviceKey, DeviceSlot, Expired, Hub, LinkId, State,
};
use crate::rule::Rule;
use crate::session::CloseReason;
use crate::time::{Deadline, Instant, Timer, UnixTime};

impl Hub {
    /// Sets the wall clock. Only tokens, time stamps and expiry of messages follow it; timers do not.
    pub fn set_clock(&mut self, now: Instant, unix_time: UnixTime) {
        let expected = self.unix_time(now);
        self.clock = Clock::new(now, unix_time);
        let step = expected.since(unix_time).max(unix_time.since(expected));
        if step > Duration::from_secs(1) {
            for (slot, link) in self.links.iter_mut() {
                link.timer = Some(now);
                self.timers.schedule(now, Target::Link(LinkId(slot)));
            }
            for (slot, device) in self.devices.iter_mut().filter(|(_, device)| device.queue_timer.is_some()) {
                device.record.queue.shift_locks(expected, unix_time);
                device.queue_timer = Some(now);
                self.timers.schedule(now, Target::CloudToDeviceQueue(DeviceKey(slot)));
            }
        }
    }

    pub(super) fn unix_time(&self, now: Instant) -> UnixTime {
        self.clock.unix_time(now)
    }

    /// The wall-clock time of a moment that has passed.
    pub(super) fn unix_time_of(&self, now: Instant, moment: Instant) -> UnixTime {
        self.unix_time(now).before(now.since(moment))
    }

    /// When to call [`expire`](Self::expire).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let timer = self.timers.next().map(|(at, why)| Deadline { at, why });
        let fault = self.admission.next_fault().map(|at| Deadline { at, why: Timer::Fault });
        timer.into_iter().chain(fault).min_by_key(|deadline| deadline.at)
    }

    /// The next thing whose time has come. Call it until `None`.
    pub fn expire(&mut self, now: Instant) -> Option<Expired> {
        self.turn_faults(now);
        while let Some((at, target)) = self.timers.take_due(now) {
            let expired = match target {
                Target::Link(link) => self.expire_link(now, link, at),
                Target::Call(call) => self.expire_call(now, call),
                Target::CloudToDeviceQueue(device) => self.expire_queue(now, device, at),
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
                let failure = match failure {
                    CallFailure::NotOnline if self.is_connected(device) => CallFailure::NotSubscribed,
                    failure => failure,
                };
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
    fn expire_queue(&mut self, now: Instant, device: DeviceKey, at: Instant) -> Option<Expired> {
        let unix_time = self.unix_time(now);
        let limits = &self.config.limits;
        let slot = self.devices.get_mut(device.0).filter(|slot| slot.queue_timer == Some(at))?;
        slot.queue_timer = None;
        let DeviceSlot { record, link, .. } = slot;
        let link = *link;
        let expired = if let Some(sequence) = record.queue.unlock(unix_time, limits) {
            let revision = record.change();
            Expired::Unlocked(Commit { device, revision, change: Change::Locked(sequence) })
        } else if let Some((message, outcome)) = record.queue.take_dead(unix_time, limits) {
            let letter = message.dead_letter(outcome);
            let revision = record.settle(message, outcome, || unix_time);
            Expired::DeadLettered(Commit { device, revision, change: Change::DeadLettered }, letter)
        } else {
            self.schedule_queue(device);
            return None;
        };
        if let Some(link) = link {
            self.make_ready(link); // what is behind may go now
        }
        self.schedule_queue(device);
        Some(expired)
    }

    pub(super) fn schedule_link(&mut self, link: LinkId) {
        let Some(slot) = self.links.get(link.0) else { return };
        let grace = self.config.expiry_grace;
        let expiry = slot.state.link().and_then(|link| link.expires);
        let expiry = expiry.map(|expires| self.clock.instant(expires.after(grace)));
        let other = match &slot.state {
            State::Handshake(handshake) => Some(handshake.deadline),
            State::Live(link) => Some(link.silence_ends()),
            State::Opening(_) | State::Ended { .. } => None,
        };
        let deadline = expiry.into_iter().chain(other).min();
        if let Some(at) = deadline
            && let Some(slot) = self.links.get_mut(link.0)
            && slot.timer.is_none_or(|scheduled| at < scheduled)
        {
            slot.timer = Some(at);
            self.timers.schedule(at, Target::Link(link));
        }
    }

    pub(super) fn schedule_queue(&mut self, device: DeviceKey) {
        let Some(slot) = self.devices.get(device.0) else { return };
        let Some(expiry) = slot.record.queue.next_change(&self.config.limits) else { return };
        let at = self.clock.instant(expiry);
        if let Some(slot) = self.devices.get_mut(device.0)
            && slot.queue_timer.is_none_or(|scheduled| at < scheduled)
        {
            slot.queue_timer = Some(at);
            self.timers.schedule(at, Target::CloudToDeviceQueue(device));
        }
    }
}

impl State {
    /// Why the link's time is over, if it is.
    pub(super) fn due(&mut self, now: Instant, unix_time: UnixTime, grace: Duration) -> Option<CloseReason> {
        let (Self::Opening(_) | Self::Live(_)) = self else {
            let Self::Handshake(handshake) = self else { return None };
            return (handshake.deadline <= now).then_some(CloseReason::TimedOut(Rule::ConnectTime));
        };
        if let Some(link) = self.link()
            && link.expires.is_some_and(|expires| expires.after(grace) <= unix_time)
        {
            let is_certificate =
                matches!(link.credential, Credential::Thumbprint(_) | Credential::CertificateAuthority);
            let rule = if is_certificate { Rule::CertificateTime } else { Rule::SasExpired };
            return Some(CloseReason::Ended(rule));
        }
        match self {
            Self::Live(link) => link.is_silent(now).then_some(CloseReason::TimedOut(Rule::KeepAlive)),
            // Before its CONNACK the device has nothing to break its silence with.
            _ => None,
        }
    }
}
