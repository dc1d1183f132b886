//! One connection whose CONNECT was accepted.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::handshake::Request;
use super::mailbox::SequenceNumber;
use super::methods::Calls;
use super::pending::{Pending, Reply, Until, publish};
use super::record::Session;
use super::twin::ReportError;
use super::{
    Action, CallId, Change, Commit, DeviceKey, DeviceSlot, Grant, Limits, LinkId, MethodAnswer, Progress,
    Receipt, Revision, Wait, Will,
};
use crate::iothub::topic::{
    FromDevice, RequestId, desired_patch_topic, method_request_topic, twin_response_topic,
};
use crate::iothub::twin::error_body;
use crate::iothub::{Edition, PropertyBag, Subscription, Subscriptions};
use crate::limits::{MESSAGE_MAX, PACKET_MAX};
use crate::packet::{
    Decoded, Packet, PacketId, PacketType, Publish, PublishQoS, QoS, SubAckCode, Subscribe, Unsubscribe,
    decode, pingresp,
};
use crate::rule::Rule;
use crate::session::legality::{self, Phase, Role};
use crate::session::{Close, CloseReason, keep_alive};
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
            is_will: true,
        }
    }

    /// All properties: those of the bag in order, then the hub's own for a retained message and for a will.
    pub fn properties(&self) -> impl Iterator<Item = (Cow<'i, str>, Option<Cow<'i, str>>)> {
        let own = |name: &'static str, value: &'static str| (Cow::Borrowed(name), Some(Cow::Borrowed(value)));
        let retain = self.retain_property.map(|name| own(name, "true"));
        let will = self.is_will.then(|| own("iothub-MessageType", "Will"));
        self.bag.iter().chain(retain).chain(will)
    }
}

fn retain_property(edition: Option<Edition>, retain: bool) -> Option<&'static str> {
    retain.then(|| edition.unwrap_or(Edition::V2021_04_12).retain_property())
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
    pub(super) pending: Pending,
    /// The first cloud message that this connection was not sent.
    pub(super) unsent: SequenceNumber,
    persistent: bool,
    subscriptions: Subscriptions,
    patience: Duration,
    last_heard: Instant,
    /// The machine itself refuses to read, for the store's sake: silence is not the device's fault.
    stalled: bool,
    notifications: VecDeque<Notification>,
    calls: VecDeque<CallId>,
}

/// What a link may use besides itself and its device.
pub(super) struct Context<'h> {
    pub(super) now: Instant,
    /// One moment on both clocks.
    pub(super) clock: (Instant, UnixTime),
    pub(super) id: LinkId,
    pub(super) limits: &'h Limits,
    pub(super) calls: &'h mut Calls,
}

impl Context<'_> {
    fn unix_time(&self) -> UnixTime {
        let (at, unix_time) = self.clock;
        unix_time.after(self.now.since(at))
    }
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
            pending: Pending::new(limits.in_flight.saturating_mul(2)),
            unsent: SequenceNumber(0),
            persistent: !request.clean_session,
            subscriptions,
            patience: keep_alive::hub_patience(request.keep_alive),
            last_heard: now,
            stalled: false,
            notifications: VecDeque::new(),
            calls: VecDeque::new(),
        }
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

    pub(super) fn has_methods(&self) -> bool {
        self.subscriptions.get(Subscription::Methods).is_some()
    }

    /// A call for this device: it is sent with the next transmission.
    pub(super) fn queue_call(&mut self, call: CallId) {
        self.calls.push_back(call);
    }

    fn queue_unsent_calls(&mut self, device: &DeviceSlot, calls: &mut Calls) {
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

    // --- in ---

    #[inline]
    pub(super) fn received<'i>(
        &mut self,
        context: Context<'_>,
        device: &mut DeviceSlot,
        input: &mut &'i [u8],
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        self.pending.release_acks(device.committed, tx);
        if let Some(wait) = self.must_wait(device.committed, context.limits, tx) {
            return Ok(Action::Wait(wait));
        }
        legality::check_front(Role::Hub, Phase::Open, input)?;
        let whole = *input;
        let packet = match decode(input, PACKET_MAX) {
            Ok(Decoded::Packet(packet)) => packet,
            Ok(Decoded::Incomplete { at_least }) => return Ok(Action::Wait(Wait::Read { at_least })),
            Err(error) => return Err(Close::at(CloseReason::Malformed(error.rule()), error.at())),
        };
        self.last_heard = context.now;
        let result = self.packet(context, device, packet, tx);
        result.map_err(|breach| {
            *input = whole;
            breach.in_packet(whole)
        })
    }

    /// Why nothing may be read now, if so.
    #[inline]
    fn must_wait(&mut self, committed: Revision, limits: &Limits, tx: &[u8]) -> Option<Wait> {
        self.stalled = false;
        if tx.len() >= limits.tx_high_water.saturating_mul(2) {
            return Some(Wait::Flush);
        }
        if !self.pending.is_full(limits.in_flight, limits.tx_high_water) {
            return None;
        }
        if self.pending.is_ready(committed) {
            return Some(Wait::Flush);
        }
        self.stalled = true;
        Some(Wait::Store)
    }

    #[inline]
    fn packet<'i>(
        &mut self,
        context: Context<'_>,
        device: &mut DeviceSlot,
        packet: Packet<'i>,
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Breach<'i>> {
        match packet {
            Packet::Publish(publish) => self.publish(context, device, publish),
            Packet::PubAck(packet_id) => Ok(self.puback(device, packet_id)),
            Packet::Subscribe(subscribe) => self.subscribe(context, device, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(context, device, unsubscribe),
            Packet::PingReq => {
                pingresp(tx); // [MQTT-3.12.4-1]; it waits for nothing
                Ok(Action::Done(PacketType::PingReq))
            }
            Packet::Disconnect => Err(Breach { reason: CloseReason::Disconnected, offending: None }),
            other => {
                let rule = legality::check(Role::Hub, Phase::Open, other.packet_type()).err();
                Err(Breach::violation(rule.unwrap_or(Rule::Direction), None))
            }
        }
    }

    #[inline]
    fn publish<'i>(
        &mut self,
        context: Context<'_>,
        device: &mut DeviceSlot,
        publish: Publish<'i>,
    ) -> Result<Action<'i>, Breach<'i>> {
        let topic = publish.topic.as_bytes();
        let acknowledge = match publish.qos {
            PublishQoS::AtMostOnce => None,
            PublishQoS::AtLeastOnce { packet_id, .. } => Some(packet_id),
            PublishQoS::ExactlyOnce { .. } => return Err(Breach::violation(Rule::PublishQos2, None)),
        };
        let identity = device.record.identity.identity();
        let message = FromDevice::parse(publish.topic, identity)
            .map_err(|error| Breach::violation(error.rule(), Some(topic)))?;
        match message {
            FromDevice::Telemetry(bag) => {
                // The bag as it stands is never shorter than what counts of it.
                let size = publish.payload.len().saturating_add(bag.encoded_len());
                if size > MESSAGE_MAX && publish.payload.len().saturating_add(counted(bag)) > MESSAGE_MAX {
                    return Err(Breach::violation(Rule::MessageSize, None));
                }
                let receipt = acknowledge.map(|packet_id| Receipt {
                    link: context.id,
                    number: self.pending.push(Until::Stored, Reply::PubAck(packet_id)),
                });
                let retain_property = retain_property(self.edition, publish.retain);
                let payload = publish.payload;
                Ok(Action::Telemetry(Telemetry {
                    device: self.device,
                    bag,
                    payload,
                    receipt,
                    retain_property,
                    is_will: false,
                }))
            }
            FromDevice::TwinGet { rid } => Ok(self.twin_get(&context, device, rid, acknowledge)),
            FromDevice::TwinPatch { rid, if_version } => {
                Ok(self.twin_patch(&context, device, rid, if_version, publish.payload, acknowledge))
            }
            FromDevice::MethodResponse { status, rid } => {
                self.acknowledge(acknowledge, Until::Nothing);
                let Some(call) = context.calls.answer(rid.as_str(), self.device) else {
                    return Ok(Action::Done(PacketType::Publish)); // unknown, late or second answer
                };
                device.calls.retain(|open| *open != call);
                Ok(Action::Answered(MethodAnswer { call, status, payload: publish.payload }))
            }
        }
    }

    #[inline]
    fn acknowledge(&mut self, packet_id: Option<PacketId>, until: Until) {
        if let Some(packet_id) = packet_id {
            self.pending.push(until, Reply::PubAck(packet_id));
        }
    }

    fn twin_get<'i>(
        &mut self,
        context: &Context<'_>,
        device: &DeviceSlot,
        rid: RequestId<'_>,
        acknowledge: Option<PacketId>,
    ) -> Action<'i> {
        let until = Until::Committed(device.record.revision);
        self.acknowledge(acknowledge, Until::Nothing);
        let (status, body) = match self.edition {
            Some(edition) => (200, device.record.twin.body(edition)),
            None => (400, no_api_version(context)),
        };
        self.answer_twin(until, status, rid, None, body);
        Action::Done(PacketType::Publish)
    }

    fn twin_patch<'i>(
        &mut self,
        context: &Context<'_>,
        device: &mut DeviceSlot,
        rid: RequestId<'_>,
        if_version: Option<u64>,
        patch: &[u8],
        acknowledge: Option<PacketId>,
    ) -> Action<'i> {
        let Some(edition) = self.edition else {
            self.acknowledge(acknowledge, Until::Nothing);
            self.answer_twin(Until::Nothing, 400, rid, None, no_api_version(context));
            return Action::Done(PacketType::Publish);
        };
        match device.record.twin.report(patch, if_version) {
            Ok(version) => {
                let revision = device.record.change();
                let until = Until::Committed(revision);
                self.acknowledge(acknowledge, until);
                self.answer_twin(until, edition.patch_status(), rid, Some(version), String::new());
                Action::Commit(Commit { device: self.device, revision, change: Change::Reported })
            }
            Err(error) => {
                let until = Until::Committed(device.record.revision);
                self.acknowledge(acknowledge, until);
                let (status, body) = report_error(context, &error);
                self.answer_twin(until, status, rid, None, body);
                Action::Done(PacketType::Publish)
            }
        }
    }

    /// An answer goes only to who subscribed to answers; the request was carried out all the same.
    fn answer_twin(
        &mut self,
        until: Until,
        status: u16,
        rid: RequestId<'_>,
        version: Option<u64>,
        body: String,
    ) {
        if self.subscriptions.get(Subscription::TwinResponses).is_some() {
            let mut topic = String::new();
            twin_response_topic(status, rid, version, &mut topic);
            self.pending.push(until, Reply::Message { topic, body });
        }
    }

    /// The PUBACK of a cloud message completes it. One that names no message of this connection changes nothing.
    fn puback<'i>(&mut self, device: &mut DeviceSlot, packet_id: PacketId) -> Action<'i> {
        match device.record.mailbox.complete(packet_id, self.unsent) {
            Some(sequence) => {
                let revision = device.record.change();
                Action::Commit(Commit { device: self.device, revision, change: Change::Completed(sequence) })
            }
            None => Action::Done(PacketType::PubAck),
        }
    }

    fn subscribe<'i>(
        &mut self,
        context: Context<'_>,
        device: &mut DeviceSlot,
        subscribe: Subscribe<'i>,
    ) -> Result<Action<'i>, Breach<'i>> {
        let mut codes = Vec::new();
        let mut subscriptions = self.subscriptions;
        for (filter, asked) in subscribe.filters() {
            if codes.len() >= context.limits.filters_per_packet {
                return Err(Breach::violation(Rule::TooManyFilters, Some(filter.as_bytes())));
            }
            let subscription = Subscription::of(filter, device.record.identity.identity())
                .map_err(|error| Breach::violation(error.rule(), Some(filter.as_bytes())))?;
            let granted = asked.min(QoS::AtLeastOnce); // [MQTT-3.8.4-6]: QoS 2 asked, 1 granted
            subscriptions.insert(subscription, granted); // [MQTT-3.8.4-3]
            codes.push(SubAckCode::Granted(granted));
        }
        let had_methods = self.has_methods();
        let commit = self.set_subscriptions(device, subscriptions);
        if !had_methods {
            self.queue_unsent_calls(device, context.calls);
        }
        let until = Until::Committed(device.record.revision);
        self.pending.push(until, Reply::SubAck(subscribe.packet_id(), codes.into()));
        Ok(commit.unwrap_or(Action::Done(PacketType::Subscribe)))
    }

    fn unsubscribe<'i>(
        &mut self,
        context: Context<'_>,
        device: &mut DeviceSlot,
        unsubscribe: Unsubscribe<'i>,
    ) -> Result<Action<'i>, Breach<'i>> {
        let mut subscriptions = self.subscriptions;
        for (index, filter) in unsubscribe.filters().enumerate() {
            if index >= context.limits.filters_per_packet {
                return Err(Breach::violation(Rule::TooManyFilters, Some(filter.as_bytes())));
            }
            // [MQTT-3.10.4-5] a filter that was never granted is acknowledged like any other
            if let Ok(subscription) = Subscription::of(filter, device.record.identity.identity()) {
                subscriptions.remove(subscription);
            }
        }
        let commit = self.set_subscriptions(device, subscriptions);
        let until = Until::Committed(device.record.revision);
        self.pending.push(until, Reply::UnsubAck(unsubscribe.packet_id()));
        Ok(commit.unwrap_or(Action::Done(PacketType::Unsubscribe)))
    }

    /// Takes the new set, into the persistent session too, and lets waiting cloud messages flow.
    fn set_subscriptions<'i>(
        &mut self,
        device: &mut DeviceSlot,
        subscriptions: Subscriptions,
    ) -> Option<Action<'i>> {
        self.subscriptions = subscriptions;
        let record = &mut device.record;
        let session = self.persistent.then_some(Session { subscriptions });
        let mut changed = record.session != session;
        record.session = session;
        if self.takes_cloud_messages() {
            let next = Revision(record.revision.0.saturating_add(1));
            changed |= record.mailbox.attempt(next);
        }
        changed.then(|| {
            let revision = record.change();
            Action::Commit(Commit { device: self.device, revision, change: Change::Session })
        })
    }

    // --- out ---

    pub(super) fn transmit(
        &mut self,
        device: &mut DeviceSlot,
        calls: &mut Calls,
        now: Instant,
        high_water: usize,
        tx: &mut Vec<u8>,
    ) -> Progress {
        self.pending.release(device.committed, high_water, tx);
        self.send_notifications(device.committed, high_water, tx);
        self.send_calls(calls, now, high_water, tx);
        if let Some(commit) = self.send_cloud_messages(device, high_water, tx) {
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
        high_water: usize,
        tx: &mut Vec<u8>,
    ) -> Option<Commit> {
        let granted = self.subscriptions.get(Subscription::CloudMessages)?;
        let record = &mut device.record;
        while tx.len() < high_water
            && let Some(message) = record.mailbox.next_from(self.unsent)
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
            if granted == QoS::AtMostOnce {
                record.mailbox.remove(sequence);
                let revision = record.change();
                return Some(Commit { device: self.device, revision, change: Change::Completed(sequence) });
            }
        }
        None
    }
}

/// What counts of the properties besides the body: names and values, decoded (IoT Hub messages: size).
fn counted(bag: PropertyBag<'_>) -> usize {
    let sizes =
        bag.iter().map(|(name, value)| name.len().saturating_add(value.map_or(0, |value| value.len())));
    sizes.fold(0, usize::saturating_add)
}

/// A rule that a packet broke, and the part of it that did.
struct Breach<'i> {
    reason: CloseReason,
    offending: Option<&'i [u8]>,
}

impl<'i> Breach<'i> {
    const fn violation(rule: Rule, offending: Option<&'i [u8]>) -> Self {
        Self { reason: CloseReason::Violation(rule), offending }
    }

    /// The end of the connection; the offending part is found again in `input` by its address.
    fn in_packet(self, input: &[u8]) -> Close {
        if self.reason == CloseReason::Disconnected {
            return Close::new(self.reason);
        }
        let at = match self.offending {
            Some(part) => {
                let start = part.as_ptr().addr().saturating_sub(input.as_ptr().addr());
                start..start.saturating_add(part.len())
            }
            None => 0..1,
        };
        Close::at(self.reason, at)
    }
}

fn no_api_version(context: &Context<'_>) -> String {
    let message =
        "The user name has no api-version: twins need one. Use {host}/{device id}/?api-version=2021-04-12.";
    error_body(400_004, message, &tracking_id(context), context.unix_time())
}

fn report_error(context: &Context<'_>, error: &ReportError) -> (u16, String) {
    match error {
        ReportError::Document(error) => {
            (400, error_body(400_004, &format!("{error}"), &tracking_id(context), context.unix_time()))
        }
        ReportError::VersionMismatch { expected, actual } => {
            let message = format!("$version is {actual}, not {expected}: read the twin again.");
            (412, error_body(412_001, &message, &tracking_id(context), context.unix_time()))
        }
    }
}

/// Names a refusal, so that the log and the device's error can be brought together.
fn tracking_id(context: &Context<'_>) -> String {
    format!("{:032X}", context.now.as_micros())
}
