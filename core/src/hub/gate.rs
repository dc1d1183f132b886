//! What may stand between a device, or the back end, and the machine: faults that somebody asked for.
//!
//! Most hubs have nothing of that. So there is one question on the way of a message, whether there is anything to ask.

use core::time::Duration;

use super::fault::{Fault, Faults, Window};
use super::handshake::Refusal;
use super::timers::Timers;
use super::{DeviceKey, HubConfig};
use crate::iothub::PropertyBag;
use crate::limits::THROTTLE_DELAY_MAX;
use crate::rule::Rule;
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Gate {
    /// There is something to ask.
    is_watched: bool,
    takes_faults: bool,
    faults: Faults,
}

impl Gate {
    pub(super) fn new(config: &HubConfig) -> Self {
        let mut gate =
            Self { is_watched: false, takes_faults: config.fault_injection, faults: Faults::new() };
        gate.look();
        gate
    }

    /// Whether the gate has to be asked at all.
    #[inline]
    pub(super) const fn is_watched(&self) -> bool {
        self.is_watched
    }

    fn look(&mut self) {
        self.is_watched = self.takes_faults || !self.faults.is_empty();
    }

    // --- faults ---

    pub(super) fn plan_fault(
        &mut self,
        timers: &mut Timers,
        now: Instant,
        device: DeviceKey,
        fault: Fault,
        delay: Duration,
        duration: Duration,
    ) {
        self.faults.plan(timers, now, device, fault, delay, duration);
        self.look();
    }

    pub(super) fn turn_fault(
        &mut self,
        timers: &mut Timers,
        now: Instant,
        device: DeviceKey,
    ) -> Option<Window> {
        let begins = self.faults.turn(timers, now, device);
        self.look();
        begins
    }

    /// Until when nothing goes over the device's connection.
    pub(super) fn slow_until(&self, now: Instant, device: DeviceKey) -> Option<Instant> {
        match self.faults.of(device, now) {
            Some((Fault::Slow, ends)) => Some(ends),
            _ => None,
        }
    }

    // --- devices ---

    /// A CONNECT that is welcome otherwise.
    pub(super) fn connect(&mut self, now: Instant, device: DeviceKey) -> Result<(), Refusal> {
        match self.faults.of(device, now) {
            Some((Fault::Throttle, _)) => Err(Refusal::unavailable(Rule::ThrottledConnect)),
            Some((Fault::Quota, _)) => Err(Refusal::unavailable(Rule::QuotaExceeded)),
            Some((Fault::ExpireSas, _)) => Err(Refusal::not_authorized(Rule::SasExpired)),
            Some((Fault::KillTcp | Fault::Takeover | Fault::Slow, _)) | None => Ok(()),
        }
    }

    /// A telemetry message: until when its PUBACK has to wait, if so. The error ends the connection.
    pub(super) fn telemetry(
        &mut self,
        timers: &mut Timers,
        now: Instant,
        device: DeviceKey,
        bag: PropertyBag<'_>,
    ) -> Result<Option<Instant>, Rule> {
        let fault = self.faults.of(device, now);
        if self.takes_faults {
            self.faults.plan_by_message(timers, now, device, bag);
        }
        match fault {
            Some((Fault::Quota, _)) => Err(Rule::QuotaExceeded),
            Some((Fault::Throttle, ends)) if ends.since(now) > THROTTLE_DELAY_MAX => Err(Rule::Throttled),
            Some((Fault::Throttle, ends)) => Ok(Some(ends)),
            _ => Ok(None),
        }
    }

    /// A twin request of a device: false where it is to be answered with 429.
    pub(super) fn twin_request(&mut self, now: Instant, device: DeviceKey) -> bool {
        !matches!(self.faults.of(device, now), Some((Fault::Throttle, _)))
    }
}
