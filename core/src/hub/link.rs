//! One connection whose CONNECT was accepted.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::clock::Clock;
use super::handshake::Request;
use super::methods::Calls;
use super::pending::{Pending, publish};
use super::telemetry::Will;
use super::timers::{Target, Timers};
use super::warnings::Told;
use super::{
    CallId, Change, Commit, Credential, DeviceKey, DeviceSlot, Grant, Limits, LinkId, Outcome, Progress,
    Revision,
};
use crate::iothub::topic::{desired_patch_topic, method_request_topic};
use crate::iothub::{ApiVersion, Subscription, Subscriptions};
use crate::limits::{LAST_WORDS_TIME, TAKEOVER_FIGHT, TAKEOVER_FIGHT_TIME};
use crate::packet::{PublishQoS, QoS};
use crate::rule::Rule;
use crate::session::{Close, CloseReason, keep_alive};
use crate::time::{Instant, UnixTime};

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
    pub(super) api_version: Option<ApiVersion>,
    pub(super) will: Option<Will>,
    pub(super) expires: Option<UnixTime>,
    pub(super) credential: Credential,
    accepted_at: Instant,
    /// How often in a row the identity was taken over soon after it was connected, this connection being the last to.
    takeovers: u8,
    pub(super) pending: Pending,
    pub(super) persistent: bool,
    pub(super) subscriptions: Subscriptions,
    patience: Duration,
    pub(super) last_heard: Instant,
    /// The machine itself refuses to read, for the store's sake: silence is not the device's fault.
    pub(super) stalled: bool,
    /// Nothing goes over the connection before this, either way.
    held_until: Option<Instant>,
    /// Its end, which waits until what is owed was sent, and until when it does.
    parting: Option<(Close, Instant)>,
    pub(super) told: Told,
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
            api_version: grant.api_version,
            will: request.will,
            expires: grant.expires,
            credential: grant.credential,
            accepted_at: now,
            takeovers: 0,
            pending: Pending::new(limits.in_flight.saturating_mul(2)),
            persistent: !request.clean_session,
            subscriptions,
            patience: keep_alive::keep_alive_timeout(request.keep_alive),
            last_heard: now,
            stalled: false,
            held_until: None,
            parting: None,
            told: Told::default(),
            notifications: VecDeque::new(),
            calls: VecDeque::new(),
        }
    }

    /// This connection ends that one. Gives the rule that names its end: clients that throw each other out in turn are
    /// told apart from a device that came back before its old connection was known to be dead.
    pub(super) fn take_over_from(&mut self, other: &Self) -> Rule {
        if other.parting.is_none() && self.accepted_at.since(other.accepted_at) < TAKEOVER_FIGHT_TIME {
            self.takeovers = other.takeovers.saturating_add(1);
        }
        if self.takeovers >= TAKEOVER_FIGHT { Rule::TakeoverFight } else { Rule::Takeover }
    }

    /// The device has said DISCONNECT, or broken a rule: nothing is read any more. The end comes when what is owed for that
    /// which was read before is safe and sent, or when the time for it is over.
    #[cold]
    pub(super) fn part(
        &mut self,
        close: Close,
        now: Instant,
        timers: &mut Timers,
        id: LinkId,
    ) -> Result<(), Close> {
        if close.reason() == CloseReason::Disconnected {
            self.will = None; // [MQTT-3.14.4-3]
        }
        if self.pending.is_empty() {
            return Err(close);
        }
        let until = now.after(LAST_WORDS_TIME);
        timers.schedule(until, Target::Hold(id));
        self.parting = Some((close, until));
        // Nothing new for a device that has said goodbye.
        self.subscriptions = Subscriptions::NONE;
        self.notifications.clear();
        self.calls.clear();
        Ok(())
    }

    /// The end that waits, if one does.
    pub(super) fn parting(&self) -> Option<Close> {
        self.parting.map(|(close, _)| close)
    }

    /// The end that has waited long enough.
    #[cold]
    pub(super) fn parted(&self, now: Instant) -> Option<Close> {
        let (close, until) = self.parting?;
        (self.pending.is_empty() || until <= now).then_some(close)
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

    /// The call is not to be sent any more.
    pub(super) fn forget_call(&mut self, call: CallId) {
        self.calls.retain(|queued| *queued != call);
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
        clock: &Clock,
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
        if let Some(commit) = self.send_cloud_messages(device, || clock.unix_time(now), limits, tx) {
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
            && let Some(message) = record.queue.next_unsent(limits)
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
            record.queue.sent(sequence);
            if granted == QoS::AtMostOnce
                && let Some(message) = record.queue.remove(sequence)
            {
                let revision = record.settle(message, Outcome::Success, &unix_time);
                return Some(Commit { device: self.device, revision, change: Change::Completed(sequence) });
            }
        }
        None
    }
}
