//! What comes from the hub, packet by packet.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::config::TokenLife;
use super::deliveries::Receipt;
use super::desired::Unusable;
use super::link::{Link, PendingKind, Pulse, Renewal};
use super::requests::{Asker, Stray};
use super::twin::{self, Observer};
use super::{
    Action, Answer, CallId, CloudMessage, Delivery, Device, MethodCall, Phase, RequestFailure, Ticket, Twin,
};
use crate::iothub::topic::{self, FromHub};
use crate::iothub::{Subscription, Subscriptions};
use crate::packet::{ConnAck, Packet, PacketId, PacketType, Publish, PublishQoS, SubAck, SubAckCode};
use crate::rule::Rule;
use crate::session::CloseReason;
use crate::session::legality::{self, Role};
use crate::time::Instant;

/// What the caller of a direct method gets when too many are open (HTTP: too many requests).
const TOO_MANY_CALLS: i32 = 429;

// It goes a way of its own, without a question to the table.
const _: () = assert!(legality::legal(Role::Device, legality::Phase::Open).contains(PacketType::PubAck));

impl Device {
    /// Takes a PUBACK; `None` where no telemetry of this connection waits for it.
    #[inline]
    pub(super) fn acknowledged(&mut self, id: PacketId) -> Option<Ticket> {
        let Phase::Online(link) = &mut self.phase else { return None };
        let ticket = self.outbox.acknowledge(id)?;
        link.pulse.received(self.now);
        Some(ticket)
    }

    /// Takes any packet but the PUBACK of telemetry.
    #[inline(never)]
    pub(super) fn packet<'i>(
        &mut self,
        packet: Packet<'i>,
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, CloseReason> {
        let phase = match self.phase {
            Phase::Online(_) => legality::Phase::Open,
            _ => legality::Phase::Opening,
        };
        legality::check(Role::Device, phase, packet.packet_type()).map_err(CloseReason::Violation)?;
        if let Phase::Online(link) = &mut self.phase {
            link.pulse.received(self.now);
        }
        match packet {
            Packet::ConnAck(ConnAck::Refused(code)) => Err(CloseReason::Refused(code, Rule::ConnectRefused)),
            Packet::ConnAck(ConnAck::Accepted { session_present }) => Ok(self.connected(session_present, tx)),
            Packet::Publish(publish) => self.publish(publish, tx),
            Packet::PubAck(_) => Err(CloseReason::Violation(Rule::UnsolicitedAck)),
            Packet::SubAck(suback) => self.suback(suback, tx),
            Packet::UnsubAck(id) => self.unsuback(id),
            Packet::PingResp => {
                if let Phase::Online(link) = &mut self.phase {
                    link.pulse.answered();
                }
                Ok(Action::Handled)
            }
            _ => Err(CloseReason::Violation(Rule::Direction)),
        }
    }

    fn connected(&mut self, session_present: bool, tx: &mut Vec<u8>) -> Action<'static> {
        let Phase::Opening { token, .. } = self.phase else { return Action::Handled };
        if !session_present {
            self.granted = Subscriptions::default();
            self.deliveries.forget_parked();
        }
        if let Some(gap) = self.gap.take() {
            self.offline.add(gap, self.now);
        }
        let (now, timing) = (self.now, &self.config.timing);
        let renewal = match token {
            _ if self.credential_is_newer => Renewal::Draining(now.after(timing.renewal_patience)),
            TokenLife::Own { renew_after } => Renewal::Planned(now.after(renew_after)),
            TokenLife::Given { left } => Renewal::Warning {
                at: now.after(left.saturating_sub(timing.token_warning)),
                expires: now.after(left),
            },
            TokenLife::None => Renewal::Never,
        };
        self.phase = Phase::Online(Box::new(Link {
            since: self.now,
            pulse: Pulse::new(self.config.keep_alive(), timing.ping_response, self.now),
            renewal,
            pending: Vec::new(),
            held: Vec::new(),
            observer: Observer::default(),
        }));
        for subscription in Subscription::ALL {
            match (self.wanted.get(subscription), self.granted.get(subscription)) {
                (Some(_), None) => self.send_subscription(PendingKind::Subscribe, subscription, tx),
                (None, Some(_)) => self.send_subscription(PendingKind::Unsubscribe, subscription, tx),
                _ => {}
            }
        }
        let policy = self.config.requests;
        match &mut self.phase {
            Phase::Online(link) if self.granted.get(Subscription::TwinResponses).is_none() => {
                self.requests.send_kept(policy, &mut link.held);
            }
            _ => self.requests.send_kept(policy, tx),
        }
        #[cfg(feature = "provisioning")]
        self.send_certificate_request(tx);
        self.ask_for_desired(tx);
        Action::Connected { session_present }
    }

    fn publish<'i>(&mut self, publish: Publish<'i>, tx: &mut Vec<u8>) -> Result<Action<'i>, CloseReason> {
        let Publish { qos, payload, .. } = publish;
        // Nothing is subscribed at QoS 2 [MQTT-3.8.4-6].
        if matches!(qos, PublishQoS::ExactlyOnce { .. }) {
            return Err(CloseReason::Violation(Rule::Qos2Flow));
        }
        let (input, properties) = match FromHub::parse(publish.topic, self.config.identity()) {
            Ok(FromHub::CloudMessage(properties)) => (None, properties),
            Ok(FromHub::ModuleInput { input, properties }) => (Some(input), properties),
            other => {
                self.acknowledge_at_once(qos, tx)?;
                return Ok(match other {
                    Ok(FromHub::TwinResponse { status, rid, version }) => {
                        self.answered(status, rid.as_str(), version, payload, tx)
                    }
                    Ok(FromHub::DesiredPatch { version }) => self.desired_changed(version, payload, tx),
                    #[cfg(feature = "provisioning")]
                    Ok(FromHub::CredentialResponse { status, rid }) => {
                        match self.certificate_answered(status, rid.as_str(), payload) {
                            Some(action) => action,
                            None => {
                                count(&mut self.ignored.unknown_answers);
                                Action::Handled
                            }
                        }
                    }
                    Ok(FromHub::MethodRequest { method, rid }) => match self.called(rid, tx) {
                        Some((id, due)) => Action::Invoke(MethodCall { id, name: method, payload, due }),
                        None => Action::Handled,
                    },
                    _ => {
                        count(&mut self.ignored.unknown_topics);
                        Action::Handled
                    }
                });
            }
        };
        let Some(delivery) = self.delivery(qos, tx)? else { return Ok(Action::Handled) };
        Ok(Action::Deliver(CloudMessage { input, properties, payload, dup: qos.dup() }, delivery))
    }

    /// Takes a cloud message to be completed by the application; `None` where the application has it already.
    fn delivery(&mut self, qos: PublishQoS, tx: &mut Vec<u8>) -> Result<Option<Delivery>, CloseReason> {
        let Some(id) = qos.packet_id() else { return Ok(Some(Delivery::UNACKNOWLEDGED)) };
        match self.deliveries.receive(id, qos.dup(), self.config.limits.deliveries) {
            Receipt::New(delivery) => Ok(Some(delivery)),
            Receipt::Known => {
                count(&mut self.ignored.repeated_messages);
                self.deliveries.release(tx);
                Ok(None)
            }
            Receipt::TooMany => Err(CloseReason::Ended(Rule::DeliveriesOpen)),
        }
    }

    /// Acknowledges a message for which the application is not asked, when its turn has come.
    fn acknowledge_at_once(&mut self, qos: PublishQoS, tx: &mut Vec<u8>) -> Result<(), CloseReason> {
        let Some(id) = qos.packet_id() else { return Ok(()) };
        if !self.deliveries.receive_completed(id, self.config.limits.deliveries) {
            return Err(CloseReason::Ended(Rule::DeliveriesOpen));
        }
        self.deliveries.release(tx);
        Ok(())
    }

    fn answered<'i>(
        &mut self,
        status: u16,
        rid: &str,
        version: Option<u64>,
        body: &'i [u8],
        tx: &mut Vec<u8>,
    ) -> Action<'i> {
        match self.requests.answer(rid, self.config.limits.requests) {
            Ok((request, Asker::Application)) => Action::Answered(Answer { request, status, version, body }),
            Ok((_, Asker::Machine)) => self.document(status, body, tx),
            Err(stray) => {
                count(match stray {
                    Stray::Late => &mut self.ignored.late_answers,
                    Stray::Duplicate => &mut self.ignored.duplicate_answers,
                    Stray::Unknown => &mut self.ignored.unknown_answers,
                });
                Action::Handled
            }
        }
    }

    /// The hub's answer to the machine's own question for the twin.
    fn document<'i>(&mut self, status: u16, document: &'i [u8], tx: &mut Vec<u8>) -> Action<'i> {
        let version = if status == 200 { twin::desired_version(document) } else { None };
        let Phase::Online(link) = &mut self.phase else { return Action::Handled };
        let Some(version) = version else {
            self.pause_following();
            return Action::Handled;
        };
        let wanted = self.wanted.get(Subscription::DesiredPatches).is_some();
        let told = if wanted { self.live.document(Twin { version, document }) } else { Ok(Action::Handled) };
        let Ok(told) = told else {
            self.pause_following();
            return Action::Handled;
        };
        link.observer.answered(version);
        self.ask_for_desired(tx);
        told
    }

    fn desired_changed<'i>(&mut self, version: u64, patch: &'i [u8], tx: &mut Vec<u8>) -> Action<'i> {
        let Phase::Online(link) = &mut self.phase else { return Action::Handled };
        let wanted = self.wanted.get(Subscription::DesiredPatches).is_some();
        if link.observer.notified(version) && wanted {
            match self.live.change(version, patch, self.config.limits.packet) {
                Ok(told) => return told,
                Err(Unusable) => link.observer.fall_behind(),
            }
        }
        count(&mut self.ignored.stale_changes);
        self.ask_for_desired(tx);
        Action::Handled
    }

    /// Asks for the twin where the application observes desired properties, and is not in step with them.
    pub(super) fn ask_for_desired(&mut self, tx: &mut Vec<u8>) {
        let subscribed = [Subscription::DesiredPatches, Subscription::TwinResponses]
            .into_iter()
            .all(|needed| self.wanted.get(needed).is_some() && self.granted.get(needed).is_some());
        let Phase::Online(link) = &mut self.phase else { return };
        if !subscribed || !link.observer.is_behind() {
            return;
        }
        link.observer.asked();
        self.send_twin_get(Asker::Machine, tx);
    }

    /// The hub gave no document: it is asked again after a delay that grows, as it may be throttling.
    pub(super) fn pause_following(&mut self) {
        let Phase::Online(link) = &mut self.phase else { return };
        let (now, timing, backoff) = (self.now, &self.config.timing, &mut self.backoff);
        link.observer.failed(|failures| now.after(backoff.delay(failures, timing)));
    }

    /// Takes a call of a direct method; `None` where it was answered already.
    fn called(&mut self, rid: topic::RequestId<'_>, tx: &mut Vec<u8>) -> Option<(CallId, Instant)> {
        let call = self.calls.open(rid.as_str(), self.now, self.config.limits.calls);
        if call.is_none() {
            count(&mut self.ignored.refused_calls);
            self.topic.clear();
            topic::method_response_topic(TOO_MANY_CALLS, rid, &mut self.topic);
            self.publish_at_most_once(b"null", tx);
        }
        call
    }

    fn suback(&mut self, suback: SubAck<'_>, tx: &mut Vec<u8>) -> Result<Action<'static>, CloseReason> {
        let Phase::Online(link) = &mut self.phase else { return Ok(Action::Handled) };
        let subscription = link
            .settle(PendingKind::Subscribe, suback.packet_id())
            .ok_or(CloseReason::Violation(Rule::UnsolicitedAck))?;
        let mut codes = suback.return_codes();
        let (Some(code), None) = (codes.next(), codes.next()) else {
            return Err(CloseReason::Violation(Rule::SubAckCount));
        };
        match code {
            SubAckCode::Granted(qos) => {
                self.granted.insert(subscription, qos);
                match subscription {
                    Subscription::TwinResponses => tx.append(&mut link.held),
                    #[cfg(feature = "provisioning")]
                    Subscription::CredentialResponses => self.send_certificate_request(tx),
                    // What was changed before this is not notified.
                    Subscription::DesiredPatches => link.observer.fall_behind(),
                    _ => {}
                }
                self.ask_for_desired(tx);
                Ok(Action::Subscribed(subscription))
            }
            SubAckCode::Failure => {
                self.granted.remove(subscription);
                self.wanted.remove(subscription);
                match subscription {
                    Subscription::TwinResponses => {
                        link.held.clear();
                        self.requests.fail_all(RequestFailure::Refused);
                    }
                    Subscription::DesiredPatches => self.live.forget(),
                    _ => {}
                }
                Ok(Action::SubscriptionRefused(subscription))
            }
        }
    }

    fn unsuback(&mut self, id: PacketId) -> Result<Action<'static>, CloseReason> {
        let Phase::Online(link) = &mut self.phase else { return Ok(Action::Handled) };
        let subscription =
            link.settle(PendingKind::Unsubscribe, id).ok_or(CloseReason::Violation(Rule::UnsolicitedAck))?;
        self.granted.remove(subscription);
        Ok(Action::Unsubscribed(subscription))
    }
}

fn count(events: &mut u64) {
    *events = events.saturating_add(1);
}
