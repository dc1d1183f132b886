//! One connection whose CONNECT was accepted.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::action::Will;
use super::deadlines::unix_time;
use super::handshake::Request;
use super::mailbox::SequenceNumber;
use super::methods::Calls;
use super::pending::{Pending, publish};
use super::timers::{Target, Timers};
use super::{
    CallId, Change, Commit, Credential, DeviceKey, DeviceSlot, Grant, Limits, LinkId, Outcome, Progress,
    Receipt, Revision,
};
use crate::iothub::topic::{desired_patch_topic, method_request_topic};
use crate::iothub::{Edition, PropertyBag, Subscription, Subscriptions};
use crate::limits::{TAKEOVER_FIGHT, TAKEOVER_FIGHT_TIME};
use crate::packet::{PublishQoS, QoS};
use crate::rule::Rule;
use crate::session::keep_alive;
use crate::time::{Instant, UnixTime};

/// A message of a device to its back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telemetry<'i> {
    /// Who sent it.
    pub device: DeviceKey,
    /// The properties that the device sent.
    pub bag: PropertyBag<'i>,
    /// The body.
    pub payload: &'i [u8],
    /// What to say `stored` with; `None` at QoS 0 and for a will, which nobody waits for.
    pub receipt: Option<Receipt>,
    /// The name of the property that stands for the RETAIN flag, if that was set: nothing is retained.
    pub retain_property: Option<&'static str>,
    /// The device sent it with DUP 1: it may be stored already.
    pub is_dup: bool,
    /// A will.
    pub is_will: bool,
}

impl<'i> Telemetry<'i> {
    pub(super) fn of_will(
        device: DeviceKey,
        edition: Option<Edition>,
        properties: &'i str,
        payload: &'i [u8],
        retain: bool,
    ) -> Self {
        let bag = PropertyBag::parse(properties).expect("checked when the will was taken");
        Self {
            device,
            bag,
            payload,
            receipt: None,
            retain_property: retain_property(edition, retain),
            is_dup: false,
            is_will: true,
        }
    }

    /// All properties: those of the bag in order, then the hub's [own](hub_properties).
    pub fn properties(&self) -> impl Iterator<Item = (Cow<'i, str>, Option<Cow<'i, str>>)> {
        let own = hub_properties(self.retain_property, self.is_dup, self.is_will);
        self.bag.iter().chain(own.map(|(name, value)| (name.into(), Some(value.into()))))
    }
}

/// The properties that the hub adds to those of a telemetry message, with their values: for the RETAIN flag by the name of
/// the edition, for the DUP flag (Azure protocol gateway: `mqtt-dup`), and for a will.
pub fn hub_properties(
    retain_property: Option<&str>,
    is_dup: bool,
    is_will: bool,
) -> impl Iterator<Item = (&str, &'static str)> {
    let retain = retain_property.map(|name| (name, "true"));
    let dup = is_dup.then_some(("mqtt-dup", "true"));
    let will = is_will.then_some(("iothub-MessageType", "Will"));
    [retain, dup, will].into_iter().flatten()
}

#[inline]
pub(super) fn retain_property(edition: Option<Edition>, retain: bool) -> Option<&'static str> {
    #[cold] // as RETAIN is
    fn name(edition: Option<Edition>) -> &'static str {
        edition.unwrap_or(Edition::V2021_04_12).retain_property()
    }
    retain.then(|| name(edition))
}

/// A desired-properties notification that waits to be sent.
#[derive(Debug)]
struct Notification {
    since: Revision,
    version: u64,
    body: Box<str>,
}

/// A live connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) device: DeviceKey,
    pub(super) edition: Option<Edition>,
    pub(super) will: Option<Will>,
    pub(super) expires: Option<UnixTime>,
    pub(super) credential: Credential,
    accepted_at: Instant,
    /// How often in a row the identity was taken over soon after it was connected, this connection being the last to.
    takeovers: u8,
    pub(super) pending: Pending,
    /// The first cloud message that this connection was not sent.
    pub(super) unsent: SequenceNumber,
    pub(super) persistent: bool,
    pub(super) subscriptions: Subscriptions,
    patience: Duration,
    pub(super) last_heard: Instant,
    /// The machine itself refuses to read, for the store's sake: silence is not the device's fault.
    pub(super) stalled: bool,
    /// Nothing goes over the connection before this, either way.
    held_until: Option<Instant>,
    notifications: VecDeque<Notification>,
    calls: VecDeque<CallId>,
}

impl Link {
    pub(super) fn new(
        now: Instant,
        grant: Grant,
        request: Request,
        subscriptions: Subscriptions,
        limits: &Limits,
    ) -> Self {
        Self {
            device: grant.device,
            edition: grant.edition,
            will: request.will,
            expires: grant.expires,
            credential: grant.credential,
            accepted_at: now,
            takeovers: 0,
            pending: Pending::new(limits.in_flight.saturating_mul(2)),
            unsent: SequenceNumber(0),
            persistent: !request.clean_session,
            subscriptions,
            patience: keep_alive::hub_patience(request.keep_alive),
            last_heard: now,
            stalled: false,
            held_until: None,
            notifications: VecDeque::new(),
            calls: VecDeque::new(),
        }
    }

    /// This connection ends that one. Gives the rule that names its end: clients that throw each other out in turn are
    /// told apart from a device that came back before its old connection was known to be dead.
    pub(super) fn take_over_from(&mut self, other: &Self) -> Rule {
        if self.accepted_at.since(other.accepted_at) < TAKEOVER_FIGHT_TIME {
            self.takeovers = other.takeovers.saturating_add(1);
        }
        if self.takeovers >= TAKEOVER_FIGHT { Rule::TakeoverFight } else { Rule::Takeover }
    }

    /// CONNACK goes out now: silence counts from here, and calls that waited for the device are for it.
    pub(super) fn go_live(&mut self, now: Instant, device: &DeviceSlot, calls: &mut Calls) {
        self.last_heard = now;
        self.queue_unsent_calls(device, calls);
    }

    pub(super) fn silence_ends(&self) -> Instant {
        self.last_heard.after(self.patience)
    }

    /// Whether the device was silent for too long. While the hub itself does not read, it was not.
    pub(super) fn is_silent(&mut self, now: Instant) -> bool {
        if self.stalled {
            self.last_heard = now;
        }
        self.silence_ends() <= now
    }

    /// From now on until `until` nothing goes over the connection, either way.
    #[cold]
    pub(super) fn hold(&mut self, timers: &mut Timers, id: LinkId, until: Instant) {
        let until = self.held_until.map_or(until, |held| held.max(until));
        self.held_until = Some(until);
        timers.schedule(until, Target::Hold(id));
    }

    /// Whether nothing may go over the connection now.
    #[inline]
    pub(super) fn is_held(&mut self, now: Instant) -> bool {
        match self.held_until {
            None => false,
            Some(until) if until > now => true,
            Some(_) => {
                self.held_until = None;
                false
            }
        }
    }

    pub(super) fn has_methods(&self) -> bool {
        self.subscriptions.get(Subscription::Methods).is_some()
    }

    /// A call for this device: it is sent with the next transmission.
    pub(super) fn queue_call(&mut self, call: CallId) {
        self.calls.push_back(call);
    }

    pub(super) fn queue_unsent_calls(&mut self, device: &DeviceSlot, calls: &mut Calls) {
        if self.has_methods() {
            let unsent = |id: &CallId| calls.get_mut(*id).is_some_and(|call| !call.sent);
            self.calls = device.calls.iter().copied().filter(unsent).collect();
        }
    }

    /// Desired properties changed. False when the device is too far behind to be told.
    pub(super) fn notify(&mut self, since: Revision, version: u64, body: &str, most: usize) -> bool {
        if self.subscriptions.get(Subscription::DesiredPatches).is_none() {
            return true;
        }
        if self.notifications.len() >= most {
            return false;
        }
        self.notifications.push_back(Notification { since, version, body: body.into() });
        true
    }

    /// Whether cloud messages flow on this connection.
    pub(super) fn takes_cloud_messages(&self) -> bool {
        self.subscriptions.get(Subscription::CloudMessages).is_some()
    }

    pub(super) fn transmit(
        &mut self,
        device: &mut DeviceSlot,
        calls: &mut Calls,
        now: Instant,
        clock: &(Instant, UnixTime),
        limits: &Limits,
        tx: &mut Vec<u8>,
    ) -> Progress {
        let high_water = limits.tx_high_water;
        if self.is_held(now) {
            return Progress::Idle;
        }
        self.pending.release(device.committed, high_water, tx);
        self.send_notifications(device.committed, high_water, tx);
        self.send_calls(calls, now, high_water, tx);
        if let Some(commit) = self.send_cloud_messages(device, || unix_time(clock, now), limits, tx) {
            return Progress::Commit(commit);
        }
        if tx.len() >= high_water { Progress::More } else { Progress::Idle }
    }

    fn send_notifications(&mut self, committed: Revision, high_water: usize, tx: &mut Vec<u8>) {
        while tx.len() < high_water
            && let Some(notification) = self.notifications.pop_front_if(|first| first.since <= committed)
        {
            let mut topic = String::new();
            desired_patch_topic(notification.version, &mut topic);
            publish(PublishQoS::AtMostOnce, &topic, notification.body.as_bytes(), tx);
        }
    }

    fn send_calls(&mut self, calls: &mut Calls, now: Instant, high_water: usize, tx: &mut Vec<u8>) {
        while tx.len() < high_water
            && let Some(id) = self.calls.pop_front()
        {
            let Some(call) = calls.get_mut(id) else { continue };
            let mut topic = String::new();
            method_request_topic(&call.name, id.get(), &mut topic);
            // The Node SDK cannot read an empty body, see MethodRequest::payload.
            publish(PublishQoS::AtMostOnce, &topic, call.payload.as_deref().unwrap_or("null").as_bytes(), tx);
            call.sent = true;
            call.deadline = now.after(call.response_timeout);
        }
    }

    /// At QoS 0 a message is completed by being sent.
    fn send_cloud_messages(
        &mut self,
        device: &mut DeviceSlot,
        unix_time: impl Fn() -> UnixTime,
        limits: &Limits,
        tx: &mut Vec<u8>,
    ) -> Option<Commit> {
        let granted = self.subscriptions.get(Subscription::CloudMessages)?;
        let record = &mut device.record;
        while tx.len() < limits.tx_high_water
            && let Some(message) = record.mailbox.next_from(self.unsent, limits)
            && message.since <= device.committed
        {
            let sequence = message.sequence;
            let qos = match granted {
                QoS::AtMostOnce => PublishQoS::AtMostOnce,
                QoS::AtLeastOnce | QoS::ExactlyOnce => {
                    PublishQoS::AtLeastOnce { packet_id: sequence.packet_id(), dup: message.dup }
                }
            };
            publish(qos, &message.topic, &message.payload, tx);
            self.unsent = SequenceNumber(sequence.0.saturating_add(1));
            if granted == QoS::AtMostOnce
                && let Some(message) = record.mailbox.remove(sequence)
            {
                let revision = record.settle(message, Outcome::Success, &unix_time);
                return Some(Commit { device: self.device, revision, change: Change::Completed(sequence) });
            }
        }
        None
    }
}
