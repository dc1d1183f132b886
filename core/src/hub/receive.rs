//! What comes from a device, packet by packet.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::admission::Admission;
use super::clock::Clock;
use super::link::Link;
use super::methods::Calls;
use super::pending::Until;
use super::record::Session;
use super::telemetry::{Telemetry, retain_property};
use super::timers::Timers;
use super::twin::ReportError;
use super::warnings::{Comparison, Warnings, quoted};
use super::{
    Action, Change, Commit, DeviceSlot, IssueRequest, Limits, LinkId, MethodAnswer, Operation, Outcome,
    Receipt, Revision, TierError, TwinRefusal, Wait,
};
use crate::iothub::topic::{FromDevice, RequestId, twin_response_topic};
use crate::iothub::twin::error_body;
use crate::iothub::{PropertyBag, Subscription, Subscriptions};
use crate::limits::{MESSAGE_MAX, METHOD_PAYLOAD_MAX, PACKET_MAX};
use crate::packet::{
    DecodeError, Decoded, Packet, PacketId, PacketType, Publish, PublishQoS, QoS, SubAckCode, Subscribe,
    Unsubscribe, decode, pingresp,
};
use crate::rule::Rule;
use crate::session::legality::{self, Phase, Role};
use crate::session::{Close, CloseReason};
use crate::time::{Instant, UnixTime};

// These go a way of their own, without a question to the table.
const _: () = assert!(legality::legal(Role::Hub, Phase::Open).contains(PacketType::Publish));
const _: () = assert!(legality::legal(Role::Hub, Phase::Open).contains(PacketType::PubAck));

/// What a link may use besides itself and its device.
pub(super) struct Context<'h> {
    pub(super) now: Instant,
    pub(super) clock: &'h Clock,
    pub(super) id: LinkId,
    pub(super) limits: &'h Limits,
    pub(super) calls: &'h mut Calls,
    pub(super) timers: &'h mut Timers,
    pub(super) admission: &'h mut Admission,
    pub(super) warnings: &'h mut Warnings,
}

impl Context<'_> {
    fn unix_time(&self) -> UnixTime {
        self.clock.unix_time(self.now)
    }
}

impl Link {
    #[inline]
    pub(super) fn received<'i>(
        &mut self,
        mut context: Context<'_>,
        device: &mut DeviceSlot,
        input: &mut &'i [u8],
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        if self.is_held(context.now) {
            self.stalled = true;
            return Ok(Action::Wait(Wait::Store));
        }
        if self.parting().is_some() {
            return self.last_words(context.now, device.committed, tx);
        }
        self.pending.release_acks(device.committed, tx);
        if let Some(wait) = self.must_wait(device.committed, context.limits, tx) {
            return Ok(Action::Wait(wait));
        }
        let whole = *input;
        let decoded = decode(input, PACKET_MAX);
        if let Ok(Decoded::Packet(_)) = decoded {
            self.last_heard = context.now;
        }
        let result = match decoded {
            Ok(Decoded::Packet(Packet::Publish(publish))) => {
                self.publish(&mut context, device, publish, whole)
            }
            Ok(Decoded::Packet(Packet::PubAck(packet_id))) => self.puback(&mut context, device, packet_id),
            Ok(Decoded::Packet(packet)) => self.packet(&mut context, device, packet, whole, tx),
            Ok(Decoded::Incomplete { at_least }) => incomplete(whole, at_least),
            Err(error) => Err(malformed(whole, error)),
        };
        let Err(close) = result else { return result };
        *input = whole;
        self.pending.release(device.committed, usize::MAX, tx);
        self.part(close, context.now, context.timers, context.id)?;
        Ok(Action::Wait(Wait::Store))
    }

    /// What is owed before the end, and the end when there is nothing left of it.
    #[cold]
    fn last_words<'i>(
        &mut self,
        now: Instant,
        committed: Revision,
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        self.pending.release(committed, usize::MAX, tx);
        self.parted(now).map_or(Ok(Action::Wait(Wait::Store)), Err)
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

    /// Takes a packet that is neither PUBLISH nor PUBACK.
    #[inline(never)]
    fn packet<'i>(
        &mut self,
        context: &mut Context<'_>,
        device: &mut DeviceSlot,
        packet: Packet<'i>,
        input: &'i [u8],
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        legality::check(Role::Hub, Phase::Open, packet.packet_type()).map_err(violation)?;
        match packet {
            Packet::Subscribe(subscribe) => self.subscribe(context, device, subscribe, input),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(context, device, unsubscribe, input),
            Packet::PingReq => {
                pingresp(tx); // [MQTT-3.12.4-1]; it waits for nothing
                Ok(Action::Done(PacketType::PingReq))
            }
            Packet::Disconnect => Err(Close::new(CloseReason::Disconnected)),
            _ => Err(violation(Rule::Direction)),
        }
    }

    #[inline]
    fn publish<'i>(
        &mut self,
        context: &mut Context<'_>,
        device: &mut DeviceSlot,
        publish: Publish<'i>,
        input: &'i [u8],
    ) -> Result<Action<'i>, Close> {
        let acknowledge = match publish.qos {
            PublishQoS::AtMostOnce => None,
            PublishQoS::AtLeastOnce { packet_id, .. } => Some(packet_id),
            PublishQoS::ExactlyOnce { .. } => return Err(violation(Rule::PublishQos2)),
        };
        match FromDevice::parse(publish.topic, device.record.identity.identity()) {
            Ok(FromDevice::Telemetry(bag)) if is_small_enough(publish.payload, bag) => {
                if bag.has_slash() {
                    self.warn(context, Rule::BagSlash, || {
                        Comparison::new(quoted(bag.as_str()), quoted(&bag.as_str().replace('/', "%2F")))
                    })?;
                }
                if publish.retain {
                    let api_version = self.api_version;
                    self.warn(context, Rule::Retain, || {
                        let property = retain_property(api_version, true).unwrap_or_default();
                        Comparison::new("RETAIN 1", format!("RETAIN 0; here it becomes {property}=true"))
                    })?;
                }
                if context.admission.is_watched() {
                    self.pass_gate(context, bag, publish.payload.len())?;
                }
                Ok(Action::Telemetry(self.telemetry(context.id, publish, bag, acknowledge)))
            }
            Ok(FromDevice::Telemetry(_)) => Err(violation(Rule::MessageSize)),
            Ok(FromDevice::TwinGet { rid }) => Ok(self.twin_get(context, device, rid, acknowledge)),
            Ok(FromDevice::TwinPatch { rid, if_version }) => {
                Ok(self.twin_patch(context, device, rid, if_version, publish.payload, acknowledge))
            }
            Ok(FromDevice::MethodResponse { .. }) if publish.payload.len() > METHOD_PAYLOAD_MAX => {
                Err(violation(Rule::MethodSize))
            }
            Ok(FromDevice::MethodResponse { status, rid }) => {
                self.acknowledge(acknowledge, Until::Nothing);
                self.method_response(context, device, status, rid, publish.payload)
            }
            Ok(FromDevice::IssueCertificate { rid }) => {
                self.acknowledge(acknowledge, Until::Nothing);
                let request = IssueRequest { device: self.device, rid: rid.as_str(), body: publish.payload };
                Ok(Action::IssueCertificate(request))
            }
            Err(error) => Err(violation_by(error.rule(), publish.topic.as_bytes(), input)),
        }
    }

    /// Telemetry above its rate is taken, and its PUBACK comes late.
    #[cold]
    fn pass_gate(
        &mut self,
        context: &mut Context<'_>,
        bag: PropertyBag<'_>,
        body: usize,
    ) -> Result<(), Close> {
        let (now, unix_time) = (context.now, context.unix_time());
        let bytes = body.saturating_add(bag.message_size());
        match context.admission.telemetry(now, unix_time, self.device, bag, bytes) {
            Ok(None) => Ok(()),
            Ok(Some(until)) => {
                self.hold(context.timers, context.id, until);
                Ok(())
            }
            Err(rule) => Err(Close::new(CloseReason::Ended(rule))),
        }
    }

    #[inline]
    fn telemetry<'i>(
        &mut self,
        id: LinkId,
        publish: Publish<'i>,
        bag: PropertyBag<'i>,
        acknowledge: Option<PacketId>,
    ) -> Telemetry<'i> {
        let receipt = acknowledge
            .map(|packet_id| Receipt { link: id, number: self.pending.puback(Until::Stored, packet_id) });
        Telemetry {
            device: self.device,
            bag,
            payload: publish.payload,
            receipt,
            retain_property: retain_property(self.api_version, publish.retain),
            is_dup: publish.qos.dup(),
            is_will: false,
        }
    }

    fn acknowledge(&mut self, packet_id: Option<PacketId>, until: Until) {
        if let Some(packet_id) = packet_id {
            self.pending.puback(until, packet_id);
        }
    }

    fn twin_get<'i>(
        &mut self,
        context: &mut Context<'_>,
        device: &DeviceSlot,
        rid: RequestId<'_>,
        acknowledge: Option<PacketId>,
    ) -> Action<'i> {
        let until = Until::Committed(device.record.revision);
        self.acknowledge(acknowledge, Until::Nothing);
        self.warn_unheard(context);
        let body = match self.api_version {
            None => Err(no_api_version(context)),
            Some(api_version) => {
                self.pass_twin(context, Operation::TwinRead, 0).map(|()| device.record.twin.body(api_version))
            }
        };
        match body {
            Ok(body) => {
                self.answer_twin(until, 200, rid, None, &body);
                Action::TwinRead
            }
            Err(error) => self.refuse_twin(until, false, rid, &error),
        }
    }

    fn twin_patch<'i>(
        &mut self,
        context: &mut Context<'_>,
        device: &mut DeviceSlot,
        rid: RequestId<'_>,
        if_version: Option<u64>,
        patch: &[u8],
        acknowledge: Option<PacketId>,
    ) -> Action<'i> {
        self.warn_unheard(context);
        let Some(api_version) = self.api_version else {
            self.acknowledge(acknowledge, Until::Nothing);
            return self.refuse_twin(Until::Nothing, true, rid, &no_api_version(context));
        };
        if let Err(error) = self.pass_twin(context, Operation::TwinUpdate, patch.len()) {
            self.acknowledge(acknowledge, Until::Nothing);
            return self.refuse_twin(Until::Nothing, true, rid, &error);
        }
        match device.record.twin.report(patch, if_version, context.unix_time()) {
            Ok(version) => {
                let revision = device.record.change();
                let until = Until::Committed(revision);
                self.acknowledge(acknowledge, until);
                self.answer_twin(until, api_version.patch_status(), rid, Some(version), "");
                Action::Commit(Commit { device: self.device, revision, change: Change::Reported })
            }
            Err(error) => {
                let until = Until::Committed(device.record.revision);
                self.acknowledge(acknowledge, until);
                self.refuse_twin(until, true, rid, &report_error(context, &error))
            }
        }
    }

    /// The answer to a twin request goes nowhere without a subscription.
    fn warn_unheard(&mut self, context: &mut Context<'_>) {
        if self.subscriptions.get(Subscription::TwinResponses).is_none() {
            let compared = || {
                Comparison::new(
                    "a twin request without a subscription",
                    "SUBSCRIBE $iothub/twin/res/# before it",
                )
            };
            let _ = self.warn(context, Rule::TwinUnheard, compared); // not refused by a strict hub
        }
    }

    /// Answers a twin request with an error.
    #[cold]
    fn refuse_twin<'i>(
        &mut self,
        until: Until,
        is_patch: bool,
        rid: RequestId<'_>,
        error: &TwinAnswer,
    ) -> Action<'i> {
        let TwinAnswer { status, rule, body } = error;
        self.answer_twin(until, *status, rid, None, body);
        Action::TwinRefused(TwinRefusal { device: self.device, is_patch, status: *status, rule: *rule })
    }

    /// Asks whether a twin request may be carried out; the error is its answer.
    fn pass_twin(
        &self,
        context: &mut Context<'_>,
        operation: Operation,
        bytes: usize,
    ) -> Result<(), TwinAnswer> {
        if !context.admission.is_watched() {
            return Ok(());
        }
        let (now, unix_time) = (context.now, context.unix_time());
        let asked = context.admission.twin_request(now, unix_time, self.device, operation, bytes);
        asked.map_err(|error| {
            let (status, number, rule) = match error {
                TierError::Throttled => (429, 429_001, Rule::Throttled),
                TierError::QuotaExceeded => (403, 403_002, Rule::QuotaExceeded),
                TierError::NotInTier => (403, 403_010, Rule::NotInTier),
            };
            let body = error_body(number, &format!("{error}"), &tracking_id(context), unix_time);
            TwinAnswer { status, rule, body }
        })
    }

    fn method_response<'i>(
        &mut self,
        context: &mut Context<'_>,
        device: &mut DeviceSlot,
        status: i32,
        rid: RequestId<'_>,
        payload: &'i [u8],
    ) -> Result<Action<'i>, Close> {
        let Some(call) = context.calls.find(rid.as_str(), self.device) else {
            let received = || format!("$rid={}", quoted(rid.as_str()));
            self.warn(context, Rule::MethodUnknown, || {
                Comparison::new(received(), "the $rid of a call that was sent and waits for its answer")
            })?;
            return Ok(Action::Done(PacketType::Publish));
        };
        if !payload.is_empty() && serde_json::from_slice::<Value>(payload).is_err() {
            let received = || quoted(&String::from_utf8_lossy(payload));
            self.warn(context, Rule::MethodJson, || Comparison::new(received(), "JSON, or no body"))?;
        }
        context.calls.answered(call);
        device.calls.retain(|open| *open != call);
        Ok(Action::Answered(MethodAnswer { call, status, payload }))
    }

    /// Takes the packet although it breaks `rule`; a strict hub does not.
    #[cold]
    fn warn(
        &mut self,
        context: &mut Context<'_>,
        rule: Rule,
        comparison: impl FnOnce() -> Comparison,
    ) -> Result<(), Close> {
        let warned = context.warnings.warn(context.id, &mut self.told, rule, || Some(comparison()));
        warned.map_err(violation)
    }

    /// An answer goes only to who subscribed to answers; the request was carried out all the same.
    fn answer_twin(
        &mut self,
        until: Until,
        status: u16,
        rid: RequestId<'_>,
        version: Option<u64>,
        body: &str,
    ) {
        if self.subscriptions.get(Subscription::TwinResponses).is_some() {
            let mut topic = String::new();
            twin_response_topic(status, rid, version, &mut topic);
            self.pending.message(until, &topic, body);
        }
    }

    /// The PUBACK of a cloud message completes it. One that names no message of this connection changes nothing.
    #[inline]
    fn puback<'i>(
        &mut self,
        context: &mut Context<'_>,
        device: &mut DeviceSlot,
        packet_id: PacketId,
    ) -> Result<Action<'i>, Close> {
        let Some(message) = device.record.queue.complete(packet_id) else {
            let compared = || {
                Comparison::new(
                    format!("PUBACK, id {packet_id}"),
                    "the id of a message that was sent and not yet acknowledged",
                )
            };
            self.warn(context, Rule::UnsolicitedAck, compared)?;
            return Ok(Action::Done(PacketType::PubAck));
        };
        let sequence = message.sequence;
        let revision = device.record.settle(message, Outcome::Success, || context.unix_time());
        Ok(Action::Commit(Commit { device: self.device, revision, change: Change::Completed(sequence) }))
    }

    fn subscribe<'i>(
        &mut self,
        context: &mut Context<'_>,
        device: &mut DeviceSlot,
        subscribe: Subscribe<'i>,
        input: &[u8],
    ) -> Result<Action<'i>, Close> {
        let mut codes = Vec::new();
        let mut subscriptions = self.subscriptions;
        for (filter, asked) in subscribe.filters() {
            if codes.len() >= context.limits.filters_per_packet {
                return Err(violation_by(Rule::TooManyFilters, filter.as_bytes(), input));
            }
            let subscription = Subscription::of(filter, device.record.identity.identity())
                .map_err(|error| violation_by(error.rule(), filter.as_bytes(), input))?;
            let granted = asked.min(QoS::AtLeastOnce); // [MQTT-3.8.4-6]: QoS 2 asked, 1 granted
            if asked == QoS::ExactlyOnce {
                self.warn(context, Rule::SubscribeQos2, || {
                    Comparison::new(format!("{filter} at QoS 2"), "QoS 0 or 1; 1 is granted")
                })?;
            }
            subscriptions.insert(subscription, granted); // [MQTT-3.8.4-3]
            codes.push(SubAckCode::Granted(granted));
        }
        let had_methods = self.has_methods();
        let commit = self.set_subscriptions(device, subscriptions, context.limits);
        if !had_methods {
            self.queue_unsent_calls(device, context.calls);
        }
        let until = Until::Committed(device.record.revision);
        self.pending.suback(until, subscribe.packet_id(), &codes);
        Ok(commit.unwrap_or(Action::Done(PacketType::Subscribe)))
    }

    fn unsubscribe<'i>(
        &mut self,
        context: &mut Context<'_>,
        device: &mut DeviceSlot,
        unsubscribe: Unsubscribe<'i>,
        input: &[u8],
    ) -> Result<Action<'i>, Close> {
        let mut subscriptions = self.subscriptions;
        for (index, filter) in unsubscribe.filters().enumerate() {
            if index >= context.limits.filters_per_packet {
                return Err(violation_by(Rule::TooManyFilters, filter.as_bytes(), input));
            }
            // [MQTT-3.10.4-5] a filter that was never granted is acknowledged like any other
            if let Ok(subscription) = Subscription::of(filter, device.record.identity.identity()) {
                subscriptions.remove(subscription);
            }
        }
        let commit = self.set_subscriptions(device, subscriptions, context.limits);
        let until = Until::Committed(device.record.revision);
        self.pending.unsuback(until, unsubscribe.packet_id());
        Ok(commit.unwrap_or(Action::Done(PacketType::Unsubscribe)))
    }

    /// Takes the new set, into the persistent session too, and lets waiting cloud messages flow.
    fn set_subscriptions<'i>(
        &mut self,
        device: &mut DeviceSlot,
        subscriptions: Subscriptions,
        limits: &Limits,
    ) -> Option<Action<'i>> {
        self.subscriptions = subscriptions;
        let record = &mut device.record;
        let session = self.persistent.then_some(Session { subscriptions });
        let mut changed = record.session != session;
        record.session = session;
        if self.takes_cloud_messages() {
            let next = record.next_revision();
            changed |= record.queue.attempt(next, limits);
        }
        changed.then(|| {
            let revision = record.change();
            Action::Commit(Commit { device: self.device, revision, change: Change::Session })
        })
    }
}

/// A packet is not whole yet. One that may not come is not waited for.
fn incomplete<'i>(input: &[u8], at_least: usize) -> Result<Action<'i>, Close> {
    legality::check_front(Role::Hub, Phase::Open, input)?;
    Ok(Action::Wait(Wait::Read { at_least }))
}

/// A packet is not MQTT. One that may not come is refused for that.
#[cold]
fn malformed(input: &[u8], error: DecodeError) -> Close {
    match legality::check_front(Role::Hub, Phase::Open, input) {
        Err(close) => close,
        Ok(()) => Close::at(CloseReason::Malformed(error.rule()), error.at()),
    }
}

/// The packet at the front of the input breaks `rule`.
#[cold]
fn violation(rule: Rule) -> Close {
    Close::at(CloseReason::Violation(rule), 0..1)
}

/// The packet at the front of `input` breaks `rule` by its `part`, which is found again by its address.
#[cold]
fn violation_by(rule: Rule, part: &[u8], input: &[u8]) -> Close {
    let start = part.as_ptr().addr().saturating_sub(input.as_ptr().addr());
    Close::at(CloseReason::Violation(rule), start..start.saturating_add(part.len()))
}

/// Whether a message is within the limit of telemetry (IoT Hub messages: size).
#[inline]
fn is_small_enough(payload: &[u8], bag: PropertyBag<'_>) -> bool {
    // The bag as it stands is never shorter than what counts of it.
    payload.len().saturating_add(bag.encoded_len()) <= MESSAGE_MAX
        || payload.len().saturating_add(bag.message_size()) <= MESSAGE_MAX
}

/// The answer to a twin request that is refused, and why it is.
struct TwinAnswer {
    status: u16,
    rule: Rule,
    body: String,
}

fn no_api_version(context: &Context<'_>) -> TwinAnswer {
    let message =
        "The user name has no api-version: twins need one. Use {host}/{device id}/?api-version=2021-04-12.";
    let body = error_body(400_004, message, &tracking_id(context), context.unix_time());
    TwinAnswer { status: 400, rule: Rule::ApiVersion, body }
}

fn report_error(context: &Context<'_>, error: &ReportError) -> TwinAnswer {
    let body =
        |number, message: &str| error_body(number, message, &tracking_id(context), context.unix_time());
    match error {
        ReportError::Document(error) => {
            TwinAnswer { status: 400, rule: error.rule(), body: body(400_004, &format!("{error}")) }
        }
        ReportError::VersionMismatch { expected, actual } => {
            let message = format!("$version is {actual}, not {expected}: read the twin again.");
            TwinAnswer { status: 412, rule: Rule::TwinVersion, body: body(412_001, &message) }
        }
    }
}

/// Names a refusal, so that the log and the device's error can be brought together.
fn tracking_id(context: &Context<'_>) -> String {
    format!("{:032X}", context.now.as_micros())
}
