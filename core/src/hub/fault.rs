//! Faults on request, so that whoever writes a device can see how it bears them.
//!
//! They come from two sides: a device asks for one by the properties with which Azure's own SDKs test themselves
//! ([`HubConfig::fault_injection`](super::HubConfig)), or the owner of the hub calls [`Hub::inject`]. Either way there is
//! one fault at a time per identity: after a delay it begins, and it lasts for a while.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::timers::{Target, Timers};
use super::{DeviceKey, Hub, State};
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

/// The fault of each identity that has one.
#[derive(Debug)]
pub(super) struct Faults {
    windows: BTreeMap<DeviceKey, Window>,
}

impl Faults {
    pub(super) const fn new() -> Self {
        Self { windows: BTreeMap::new() }
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
        timers: &mut Timers,
        now: Instant,
        device: DeviceKey,
        fault: Fault,
        delay: Duration,
        duration: Duration,
    ) {
        let begins = now.after(delay.min(FAULT_TIME_MAX));
        let ends = begins.after(duration.min(FAULT_TIME_MAX));
        self.windows.insert(device, Window { fault, begins, ends, begun: false });
        timers.schedule(begins, Target::Fault(device));
    }

    /// A message of the device asks for a fault, perhaps.
    pub(super) fn plan_by_message(
        &mut self,
        timers: &mut Timers,
        now: Instant,
        device: DeviceKey,
        bag: PropertyBag<'_>,
    ) {
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
            self.plan(timers, now, device, fault, delay, duration);
        }
    }

    /// A moment of the identity's fault has come: gives the fault if it is its beginning.
    pub(super) fn turn(&mut self, timers: &mut Timers, now: Instant, device: DeviceKey) -> Option<Window> {
        let window = self.windows.get_mut(&device).filter(|window| window.begins <= now)?;
        let begins = !core::mem::replace(&mut window.begun, true);
        let window = *window;
        if window.ends <= now {
            self.windows.remove(&device);
        } else {
            timers.schedule(window.ends, Target::Fault(device));
        }
        begins.then_some(window)
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
            self.gate.plan_fault(&mut self.timers, now, device, fault, delay, duration);
        }
    }

    /// A fault begins, or ends.
    pub(super) fn turn_fault(&mut self, now: Instant, device: DeviceKey) {
        let begins = self.gate.turn_fault(&mut self.timers, now, device);
        let link = self.devices.get(device.0).and_then(|slot| slot.link);
        let (Some(Window { fault, ends, .. }), Some(link)) = (begins, link) else { return };
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
