//! What may stand between a device, or the back end, and the machine: the rates and the quota of a tier, and faults that
//! somebody asked for.
//!
//! Most hubs have nothing of that. So there is one question on the way of a message, whether there is anything to ask.

use alloc::boxed::Box;
use core::time::Duration;

use super::fault::{Fault, Faults, Window};
use super::handshake::Refusal;
use super::throttle::{Throttles, Usage};
use super::{DeviceKey, Hub, HubConfig, Operation, TierError};
use crate::iothub::PropertyBag;
use crate::limits::{METER, THROTTLE_DELAY_MAX};
use crate::rule::Rule;
use crate::time::{Instant, UnixTime};

#[derive(Debug)]
pub(super) struct Admission {
    /// There is something to ask.
    is_watched: bool,
    takes_faults: bool,
    faults: Faults,
    throttles: Option<Box<Throttles>>,
}

impl Admission {
    pub(super) fn new(config: &HubConfig) -> Self {
        let mut admission = Self {
            is_watched: false,
            takes_faults: config.fault_injection,
            faults: Faults::new(),
            throttles: config.tier.map(|scale| Box::new(Throttles::new(scale))),
        };
        admission.look();
        admission
    }

    /// Whether there is anything to ask.
    #[inline]
    pub(super) const fn is_watched(&self) -> bool {
        self.is_watched
    }

    fn look(&mut self) {
        self.is_watched = self.takes_faults || self.throttles.is_some() || !self.faults.is_empty();
    }

    // --- faults ---

    pub(super) fn plan_fault(
        &mut self,
        now: Instant,
        device: DeviceKey,
        fault: Fault,
        delay: Duration,
        duration: Duration,
    ) {
        self.faults.plan(now, device, fault, delay, duration);
        self.look();
    }

    /// The next identity whose fault has begun or ended by now; gives the fault if it has begun.
    pub(super) fn turn_fault(&mut self, now: Instant) -> Option<(DeviceKey, Option<Window>)> {
        let turned = self.faults.turn(now)?;
        self.look();
        Some(turned)
    }

    /// When a fault begins or ends next.
    pub(super) fn next_fault(&self) -> Option<Instant> {
        self.faults.next()
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
    pub(super) fn connect(
        &mut self,
        now: Instant,
        unix_time: UnixTime,
        device: DeviceKey,
    ) -> Result<(), Refusal> {
        match self.faults.of(device, now) {
            Some((Fault::Throttle, _)) => return Err(Refusal::unavailable(Rule::ThrottledConnect)),
            Some((Fault::Quota, _)) => return Err(Refusal::unavailable(Rule::QuotaExceeded)),
            Some((Fault::ExpireSas, _)) => return Err(Refusal::not_authorized(Rule::SasExpired)),
            Some((Fault::KillTcp | Fault::Takeover | Fault::Slow, _)) | None => {}
        }
        let Some(throttles) = &mut self.throttles else { return Ok(()) };
        throttles.check_quota(unix_time).map_err(|_| Refusal::unavailable(Rule::QuotaExceeded))?;
        let taken = throttles.take(now, Operation::Connect, 1);
        taken.map_err(|_| Refusal::unavailable(Rule::ThrottledConnect))
    }

    /// A telemetry message, of so many bytes: until when its PUBACK has to wait, if so. The error ends the connection.
    pub(super) fn telemetry(
        &mut self,
        now: Instant,
        unix_time: UnixTime,
        device: DeviceKey,
        bag: PropertyBag<'_>,
        bytes: usize,
    ) -> Result<Option<Instant>, Rule> {
        let fault = self.faults.of(device, now);
        if self.takes_faults {
            self.faults.plan_by_message(now, device, bag);
            self.look();
        }
        let of_fault = match fault {
            Some((Fault::Quota, _)) => return Err(Rule::QuotaExceeded),
            Some((Fault::Throttle, ends)) if ends.since(now) > THROTTLE_DELAY_MAX => {
                return Err(Rule::Throttled);
            }
            Some((Fault::Throttle, ends)) => Some(ends),
            _ => None,
        };
        let Some(throttles) = &mut self.throttles else { return Ok(of_fault) };
        throttles.count(unix_time, bytes).map_err(|_| Rule::QuotaExceeded)?;
        let wait = throttles.delay(now, Operation::Telemetry, 1, THROTTLE_DELAY_MAX);
        let wait = wait.map_err(|_| Rule::Throttled)?;
        Ok(of_fault.max((!wait.is_zero()).then(|| now.after(wait))))
    }

    /// A twin request of a device, whose body has so many bytes.
    pub(super) fn twin_request(
        &mut self,
        now: Instant,
        unix_time: UnixTime,
        device: DeviceKey,
        operation: Operation,
        bytes: usize,
    ) -> Result<(), TierError> {
        if matches!(self.faults.of(device, now), Some((Fault::Throttle, _))) {
            return Err(TierError::Throttled);
        }
        self.service(now, unix_time, operation, bytes)
    }

    // --- the back end ---

    /// Something that the back end wants to do, with so many bytes.
    pub(super) fn service(
        &mut self,
        now: Instant,
        unix_time: UnixTime,
        operation: Operation,
        bytes: usize,
    ) -> Result<(), TierError> {
        let Some(throttles) = &mut self.throttles else { return Ok(()) };
        match operation {
            Operation::Registry | Operation::Query | Operation::Receive => throttles.take(now, operation, 1),
            Operation::Method => {
                let metered = bytes.div_ceil(METER).max(1).saturating_mul(METER);
                throttles.take(now, operation, u64::try_from(metered).unwrap_or(u64::MAX))?;
                throttles.count(unix_time, bytes)
            }
            Operation::Connect
            | Operation::Telemetry
            | Operation::TwinRead
            | Operation::TwinUpdate
            | Operation::CloudMessage => {
                throttles.take(now, operation, 1)?;
                throttles.count(unix_time, bytes)
            }
        }
    }
}

impl Hub {
    /// Asks whether the back end may do what the machine does not do for it: read the registry, change it, read a twin,
    /// run a query, take telemetry over HTTP; with so many bytes. What the machine does itself it counts itself.
    ///
    /// # Errors
    /// [`TierError`], where the hub has a [tier](HubConfig::tier).
    pub fn admit(&mut self, now: Instant, operation: Operation, bytes: usize) -> Result<(), TierError> {
        let unix_time = self.unix_time(now);
        self.admission.service(now, unix_time, operation, bytes)
    }

    /// What was used of the daily quota, where the hub has a [tier](HubConfig::tier). It is not part of any record: to go on
    /// counting after a restart, write it down now and then, and give it [back](Self::set_usage).
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.admission.throttles.as_ref().map(|throttles| throttles.used)
    }

    /// So much was used before this hub began. Another day's is of no consequence, nor is any without a tier.
    pub fn set_usage(&mut self, usage: Usage) {
        if let Some(throttles) = &mut self.admission.throttles {
            throttles.used = usage;
        }
    }
}
