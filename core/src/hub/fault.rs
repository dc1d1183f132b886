//! Faults on request, so that whoever writes a device can see how it bears them.
//!
//! They come from two sides: a device asks for one by the properties with which Azure's own SDKs test themselves
//! ([`HubConfig::fault_injection`](super::HubConfig)), or the owner of the hub calls [`Hub::inject`]. Either way there is
//! one fault at a time per identity: after a delay it begins, and it lasts for a while.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use super::{DeviceKey, Hub, LinkId, State};
use crate::iothub::PropertyBag;
use crate::limits::FAULT_TIME_MAX;
use crate::rule::Rule;
use crate::session::CloseReason;
use crate::time::Instant;

/// The property that names the fault (Azure SDKs: end-to-end tests), and how the others begin, too.
const OPERATION: &str = "AzIoTHub_FaultOperationType";
const DELAY: &str = "AzIoTHub_FaultOperationDelayInSecs";
const DURATION: &str = "AzIoTHub_FaultOperationDurationInSecs";

/// What goes wrong for one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The connection is cut, once.
    KillTcp,
    /// Telemetry counts as far above its rate: its PUBACK comes late or the connection ends, twin requests are answered
    /// with 429, a CONNECT with 3.
    Throttle,
    /// The daily quota counts as used up: telemetry ends the connection, a CONNECT is answered with 3.
    Quota,
    /// The token counts as expired: the connection is cut, a CONNECT is answered with 5.
    ExpireSas,
    /// The connection is cut as if another had taken the identity over, once.
    Takeover,
    /// The hub neither reads from the connection nor writes to it.
    Slow,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 6] =
        [Self::KillTcp, Self::Throttle, Self::Quota, Self::ExpireSas, Self::Takeover, Self::Slow];

    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillTcp => "kill-tcp",
            Self::Throttle => "throttle",
            Self::Quota => "quota",
            Self::ExpireSas => "expire-sas",
            Self::Takeover => "takeover",
            Self::Slow => "slow",
        }
    }

    /// The fault with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// What a device asks for; the faults of AMQP have no meaning here.
    fn from_operation(operation: &str) -> Option<Self> {
        match operation {
            "KillTcp" | "ShutDownMqtt" => Some(Self::KillTcp),
            "InvokeThrottling" => Some(Self::Throttle),
            "InvokeMaxMessageQuota" => Some(Self::Quota),
            "InvokeAuthError" => Some(Self::ExpireSas),
            _ => None,
        }
    }
}

/// When a fault is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    fault: Fault,
    begins: Instant,
    ends: Instant,
    begun: bool,
}

impl Window {
    /// When it begins, or ends if it has begun.
    const fn next(&self) -> Instant {
        if self.begun { self.ends } else { self.begins }
    }
}

/// The fault of each identity that has one. They are not among the [timers](super::timers), where what a device asks for
/// again and again would pile up.
#[derive(Debug)]
pub(super) struct Faults {
    windows: BTreeMap<DeviceKey, Window>,
    /// The next moment of each window.
    moments: BTreeSet<(Instant, DeviceKey)>,
}

impl Faults {
    pub(super) const fn new() -> Self {
        Self { windows: BTreeMap::new(), moments: BTreeSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The fault that the identity has now, and when it ends.
    pub(super) fn of(&self, device: DeviceKey, now: Instant) -> Option<(Fault, Instant)> {
        let window = self.windows.get(&device)?;
        (window.begins <= now && now < window.ends).then_some((window.fault, window.ends))
    }

    /// A fault will be there; it takes the place of an earlier one.
    pub(super) fn plan(
        &mut self,
        now: Instant,
        device: DeviceKey,
        fault: Fault,
        delay: Duration,
        duration: Duration,
    ) {
        let begins = now.after(delay.min(FAULT_TIME_MAX));
        let ends = begins.after(duration.min(FAULT_TIME_MAX));
        if let Some(earlier) = self.windows.insert(device, Window { fault, begins, ends, begun: false }) {
            self.moments.remove(&(earlier.next(), device));
        }
        self.moments.insert((begins, device));
    }

    /// A message of the device asks for a fault, perhaps.
    pub(super) fn plan_by_message(&mut self, now: Instant, device: DeviceKey, bag: PropertyBag<'_>) {
        if bag.encoded_len() < OPERATION.len() {
            return;
        }
        let value = |wanted: &str| bag.iter().find(|(name, _)| name == wanted).and_then(|(_, value)| value);
        // Azure's SDKs for .NET may write fractions; whole seconds are what they mean.
        let seconds = |name: &str| {
            let text = value(name)?;
            let whole = text.split('.').next()?;
            whole.parse().ok().map(Duration::from_secs)
        };
        if let Some(fault) = value(OPERATION).and_then(|operation| Fault::from_operation(&operation)) {
            let (delay, duration) =
                (seconds(DELAY).unwrap_or_default(), seconds(DURATION).unwrap_or_default());
            self.plan(now, device, fault, delay, duration);
        }
    }

    /// When a fault begins or ends next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.moments.first().map(|(at, _)| *at)
    }

    /// The next identity whose fault has begun or ended by now; gives the fault if it has begun.
    pub(super) fn turn(&mut self, now: Instant) -> Option<(DeviceKey, Option<Window>)> {
        if self.next()? > now {
            return None;
        }
        let (_, device) = self.moments.pop_first()?;
        let window = self.windows.get_mut(&device)?;
        let begins = !core::mem::replace(&mut window.begun, true);
        let window = *window;
        if window.ends <= now {
            self.windows.remove(&device);
        } else {
            self.moments.insert((window.ends, device));
        }
        Some((device, begins.then_some(window)))
    }
}

impl Hub {
    /// Makes something go wrong for one identity: after `delay`, for `duration`, each at most
    /// [`FAULT_TIME_MAX`]. It takes the place of an earlier fault of the identity. Where
    /// there is no such identity, nothing happens.
    pub fn inject(
        &mut self,
        now: Instant,
        device: DeviceKey,
        fault: Fault,
        delay: Duration,
        duration: Duration,
    ) {
        if self.devices.get(device.0).is_some() {
            self.admission.plan_fault(now, device, fault, delay, duration);
        }
    }

    /// Faults begin, or end.
    pub(super) fn turn_faults(&mut self, now: Instant) {
        while let Some((device, begins)) = self.admission.turn_fault(now) {
            let link = self.devices.get(device.0).and_then(|slot| slot.link);
            if let (Some(window), Some(link)) = (begins, link) {
                self.begin_fault(window, link);
            }
        }
    }

    fn begin_fault(&mut self, Window { fault, ends, .. }: Window, link: LinkId) {
        match fault {
            Fault::KillTcp => self.end(link, CloseReason::Ended(Rule::InjectedFault)),
            Fault::ExpireSas => self.end(link, CloseReason::Ended(Rule::SasExpired)),
            Fault::Takeover => self.end(link, CloseReason::Ended(Rule::Takeover)),
            Fault::Slow => {
                if let Some(slot) = self.links.get_mut(link.0)
                    && let State::Live(live) = &mut slot.state
                {
                    live.hold(&mut self.timers, link, ends);
                }
            }
            Fault::Throttle | Fault::Quota => {} // they show when the device does something
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    #[test]
    fn a_device_that_asks_again_and_again_has_one_fault_at_the_time_that_it_said_last() {
        let mut faults = Faults::new();
        let device = DeviceKey(Slab::new().insert(()).expect("there is room"));
        let second = Instant::from_secs;
        for (asked, delay) in (0..1000).map(|asked| (asked, 86_400 - asked * 2)) {
            let bag = alloc::format!("{OPERATION}=KillTcp&{DELAY}={delay}&{DURATION}=5");
            let bag = PropertyBag::parse(&bag).expect("it is a property bag");
            faults.plan_by_message(second(asked), device, bag);
        }
        let begins = 86_400 - 999;
        assert_eq!((faults.moments.len(), faults.next()), (1, Some(second(begins))));
        assert!(faults.turn(second(begins - 1)).is_none());
        assert!(faults.turn(second(begins)).is_some_and(|(_, begins)| begins.is_some()));
        assert_eq!(faults.next(), Some(second(begins + 5)));
        assert!(faults.turn(second(begins + 5)).is_some_and(|(_, begins)| begins.is_none()));
        assert!(faults.is_empty() && faults.moments.is_empty());
    }
}
