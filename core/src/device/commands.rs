//! What the application asks of the device. Each command says at once whether it could be done, and changes nothing
//! where it could not.

use alloc::string::String;
use alloc::vec::Vec;

use super::link::{Pending, PendingKind, Renewal};
use super::requests::Asker;
use super::{
    CallId, CompleteError, ConfigError, Credential, Delivery, Device, Message, Phase, PreparedProperties,
    RequestError, RequestFailure, RequestId, RequestPolicy, RespondError, SendError, Ticket,
};
use crate::iothub::{Subscription, topic};
use crate::limits::{MESSAGE_MAX, METHOD_PAYLOAD_MAX};
use crate::packet::{self, Publish, PublishQoS, QoS, Subscribe, TopicFilter, TopicName, Unsubscribe};
use crate::session::{Close, CloseReason};
use crate::time::Instant;

/// Nothing but this is sent with a GET, as by the Python and Node SDKs.
const GET_PAYLOAD: &[u8] = b" ";

impl Device {
    /// Takes over a telemetry message, to be sent at QoS 1 until the hub has it. Works offline, too.
    ///
    /// Its fate is told by [`Action::Acknowledged`](super::Action::Acknowledged), or, with
    /// [`OutboxPolicy::DropOldest`](super::OutboxPolicy::DropOldest), by [`Action::Dropped`](super::Action::Dropped);
    /// until then it [`waits`](Self::waits). A message can arrive twice when a connection is lost; give it a
    /// `message_id` where that matters.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn telemetry(
        &mut self,
        now: Instant,
        message: Message<'_>,
        tx: &mut Vec<u8>,
    ) -> Result<Ticket, SendError> {
        self.now = self.now.max(now);
        let topic = message.topic(&mut self.telemetry_topic)?;
        let ticket = self.outbox.push(topic, message.payload, self.config.outbox, &self.config.limits)?;
        self.transmit(tx);
        Ok(ticket)
    }

    /// As [`telemetry`](Self::telemetry), with properties that were prepared: what does not change is neither checked nor
    /// percent-encoded again.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn telemetry_with(
        &mut self,
        now: Instant,
        properties: &PreparedProperties,
        payload: &[u8],
        tx: &mut Vec<u8>,
    ) -> Result<Ticket, SendError> {
        self.now = self.now.max(now);
        let topic = properties.topic(payload, &mut self.telemetry_topic)?;
        let ticket = self.outbox.push(topic, payload, self.config.outbox, &self.config.limits)?;
        self.transmit(tx);
        Ok(ticket)
    }

    /// The telemetry messages whose fate is open, oldest first.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.outbox.tickets()
    }

    /// Whether the fate of a telemetry message is still open: it was taken over, and neither acknowledged nor dropped.
    #[must_use]
    pub fn waits(&self, ticket: Ticket) -> bool {
        self.outbox.waits(ticket)
    }

    /// Sends a telemetry message at QoS 0: once or not at all, ahead of what waits in the outbox.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn telemetry_at_most_once(
        &mut self,
        message: Message<'_>,
        tx: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let topic = message.topic(&mut self.telemetry_topic)?;
        if !matches!(self.phase, Phase::Online(_)) {
            return Err(SendError::NotConnected);
        }
        if tx.len() >= self.config.limits.tx_high_water {
            return Err(SendError::Congested);
        }
        append_at_most_once(topic, message.payload, tx);
        Ok(())
    }

    /// Says that the application is done with a cloud message, so that the hub may forget it.
    ///
    /// PUBACKs leave in the order of receipt `[MQTT-4.6.0-2]`, so that this one waits for those before it. While the
    /// connection is down, and in the same session, it waits for the hub to send the message again.
    ///
    /// # Errors
    /// [`CompleteError`].
    pub fn complete(&mut self, delivery: Delivery, tx: &mut Vec<u8>) -> Result<(), CompleteError> {
        self.deliveries.complete(delivery)?;
        if matches!(self.phase, Phase::Online(_)) {
            self.deliveries.release(tx);
        }
        Ok(())
    }

    /// Answers a direct method, at QoS 0: `status` and `payload`, JSON or nothing, are handed to the caller as they are.
    ///
    /// # Errors
    /// [`RespondError`].
    pub fn respond(
        &mut self,
        now: Instant,
        call: CallId,
        status: i32,
        payload: &[u8],
        tx: &mut Vec<u8>,
    ) -> Result<(), RespondError> {
        self.now = self.now.max(now);
        if payload.len() > METHOD_PAYLOAD_MAX {
            return Err(RespondError::TooLarge);
        }
        let rid = self.calls.close(call, self.now).ok_or(RespondError::Gone)?;
        self.topic.clear();
        topic::method_response_topic(status, rid, &mut self.topic);
        self.publish_at_most_once(payload, tx);
        Ok(())
    }

    /// Asks for the twin. Without a connection the request waits for one, within [`Timing::request`](super::Timing::request).
    ///
    /// # Errors
    /// [`RequestError::NotConnected`] after [`disconnect`](Self::disconnect), or [`RequestError::TooMany`].
    pub fn get_twin(&mut self, now: Instant, tx: &mut Vec<u8>) -> Result<RequestId, RequestError> {
        self.now = self.now.max(now);
        self.prepare_request(tx)?;
        Ok(self.send_twin_get(Asker::Application, tx))
    }

    /// Reports properties: `patch` is a JSON object that the hub merges into them, `null` removes one. With
    /// `if_version` only if they have this version. Without a connection the request waits for one, within
    /// [`Timing::request`](super::Timing::request).
    ///
    /// # Errors
    /// [`RequestError::NotConnected`] after [`disconnect`](Self::disconnect), [`RequestError::TooMany`] or [`RequestError::TooLarge`].
    pub fn report(
        &mut self,
        now: Instant,
        patch: &[u8],
        if_version: Option<u64>,
        tx: &mut Vec<u8>,
    ) -> Result<RequestId, RequestError> {
        self.now = self.now.max(now);
        if patch.len() > MESSAGE_MAX {
            return Err(RequestError::TooLarge);
        }
        self.prepare_request(tx)?;
        Ok(self.send_request(Asker::Application, patch, tx, |rid, out| {
            topic::twin_patch_topic(rid, if_version, out);
        }))
    }

    /// Asks the hub for what `subscription` says, now and on every connection to come:
    ///
    /// * [`Subscription::CloudMessages`] and [`Subscription::ModuleInputs`] are delivered by
    ///   [`Action::Deliver`](super::Action::Deliver), at QoS 1. A device does not have inputs, a module no cloud
    ///   messages.
    /// * [`Subscription::Methods`] are called by [`Action::Invoke`](super::Action::Invoke).
    /// * [`Subscription::DesiredPatches`] are followed without a gap, from [`Action::Twin`](super::Action::Twin) on by
    ///   [`Action::Desired`](super::Action::Desired).
    /// * [`Subscription::TwinResponses`] need not be asked for; twin requests do that.
    ///
    /// Asking for what was asked for before does nothing.
    ///
    /// # Errors
    /// [`RequestError::OtherIdentity`], or [`RequestError::TooMany`] where too many SUBSCRIBEs wait for their SUBACK.
    pub fn subscribe(
        &mut self,
        now: Instant,
        subscription: Subscription,
        tx: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        self.now = self.now.max(now);
        let is_module = self.config.identity().module_id().is_some();
        match subscription {
            Subscription::CloudMessages if is_module => return Err(RequestError::OtherIdentity),
            Subscription::ModuleInputs if !is_module => return Err(RequestError::OtherIdentity),
            _ => {}
        }
        let needed: &[Subscription] = match subscription {
            Subscription::DesiredPatches => &[Subscription::TwinResponses, Subscription::DesiredPatches],
            _ => &[subscription],
        };
        self.want(needed, tx)?;
        self.ask_for_desired(tx);
        Ok(())
    }

    /// Observes the desired properties and keeps them, whole: see [`desired`](Self::desired).
    ///
    /// As [`subscribe`](Self::subscribe) to [`Subscription::DesiredPatches`], but
    /// [`Action::Twin`](super::Action::Twin) comes once. From then on every change comes once, as
    /// [`Action::Desired`](super::Action::Desired), also one that was made while the device was away: then it is what
    /// the document of the hub has and the kept one has not. A change that cannot be merged is not told; the machine
    /// asks for the document instead. The kept properties are not larger than [`Limits::packet`](super::Limits::packet).
    ///
    /// # Errors
    /// [`RequestError::TooMany`] where too many SUBSCRIBEs wait for their SUBACK.
    #[cfg(feature = "twin")]
    pub fn follow_desired(&mut self, now: Instant, tx: &mut Vec<u8>) -> Result<(), RequestError> {
        self.subscribe(now, Subscription::DesiredPatches, tx)?;
        if self.live.follow()
            && let Phase::Online(link) = &mut self.phase
        {
            link.observer.fall_behind();
            self.ask_for_desired(tx);
        }
        Ok(())
    }

    /// The desired properties as the application was told of them, from [`Action::Twin`](super::Action::Twin) on; `None`
    /// before, and without [`follow_desired`](Self::follow_desired).
    #[cfg(feature = "twin")]
    #[must_use]
    pub fn desired(&self) -> Option<&super::DesiredProperties> {
        self.live.properties()
    }

    /// Takes a subscription back, now and for every connection to come. The hub may send what it has on the way.
    ///
    /// # Errors
    /// [`RequestError::TooMany`] where too many UNSUBSCRIBEs wait for their UNSUBACK.
    pub fn unsubscribe(
        &mut self,
        now: Instant,
        subscription: Subscription,
        tx: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        self.now = self.now.max(now);
        if self.wanted.get(subscription).is_none() {
            return Ok(());
        }
        self.check_pending(1)?;
        self.wanted.remove(subscription);
        if subscription == Subscription::DesiredPatches {
            self.live.forget();
        }
        self.send_subscription(PendingKind::Unsubscribe, subscription, tx);
        Ok(())
    }

    /// Shows the hub another credential from the next connection on: a newer SAS token, or the other key. The connection
    /// that there is ends as for a renewal of the token, when nothing is in flight any more. A device that the hub has refused
    /// connects at once.
    ///
    /// A new certificate needs a transport that shows it: replace that first, then call this with
    /// [`Credential::Certificate`].
    ///
    /// # Errors
    /// [`ConfigError`] where no connection could be made with it; then the old one stays.
    pub fn replace_credential(&mut self, now: Instant, credential: Credential) -> Result<(), ConfigError> {
        self.now = self.now.max(now);
        let config = self.config.clone().with_credential(credential);
        config.check()?;
        self.config = config;
        self.credential_is_newer = true;
        let was_refused =
            self.last_close.is_some_and(|close| matches!(close.reason(), CloseReason::Refused(..)));
        match &mut self.phase {
            Phase::Online(link) => {
                link.renewal = Renewal::Draining(self.now.after(self.config.timing.renewal_patience));
            }
            Phase::Offline | Phase::Ended(_) if was_refused => {
                self.reconnect_at = self.reconnect_at.and(Some(self.now)); // unless it was disconnected
            }
            _ => {}
        }
        Ok(())
    }

    /// Connects as soon as it can be done: after [`disconnect`](Self::disconnect), or because the reason to wait is gone: the
    /// network is back, the clock was set, the device is registered now, a person wants it. A pause before the twin is asked
    /// for again ends as well.
    ///
    /// If that fails, the next delay is as long as it would have been. An owner that does this often takes part in a stampede.
    pub fn connect(&mut self, now: Instant, tx: &mut Vec<u8>) {
        self.now = self.now.max(now);
        match &mut self.phase {
            Phase::Offline | Phase::Ended(_) => self.reconnect_at = Some(self.now),
            Phase::Online(link) => {
                link.observer.resume();
                self.ask_for_desired(tx);
            }
            Phase::Opening { .. } => {}
        }
    }

    /// Ends the connection in good order, and makes no other until [`connect`](Self::connect). What was not acknowledged stays
    /// in the outbox, and more may be put there meanwhile.
    ///
    /// The machine then returns [`Close`] with [`CloseReason::Disconnected`], after the PUBACKs that were on their way.
    pub fn disconnect(&mut self, now: Instant, tx: &mut Vec<u8>) {
        self.now = self.now.max(now);
        match self.phase {
            Phase::Opening { .. } | Phase::Online(_) => {
                packet::disconnect(tx);
                let _ = self.end(Close::new(CloseReason::Disconnected)); // handle returns it
            }
            Phase::Offline | Phase::Ended(_) => {
                self.reconnect_at = None;
                self.requests.fail_all(RequestFailure::ConnectionLost);
            }
        }
    }

    /// Publishes to the topic that was written to `self.topic`.
    pub(super) fn publish_at_most_once(&mut self, payload: &[u8], tx: &mut Vec<u8>) {
        if let Ok(topic) = TopicName::new(&self.topic) {
            append_at_most_once(topic, payload, tx);
        }
    }

    /// Sends a GET for the whole twin.
    pub(super) fn send_twin_get(&mut self, asker: Asker, tx: &mut Vec<u8>) -> RequestId {
        self.send_request(asker, GET_PAYLOAD, tx, topic::twin_get_topic)
    }

    /// Sends SUBSCRIBE or UNSUBSCRIBE, where there is a connection.
    pub(super) fn send_subscription(
        &mut self,
        kind: PendingKind,
        subscription: Subscription,
        tx: &mut Vec<u8>,
    ) {
        let Phase::Online(link) = &mut self.phase else { return };
        let Some(filter) = subscription.filter(self.config.identity()) else { return };
        let in_use = |id| self.outbox.holds(id) || link.awaits(id);
        // Limits::are_sound leaves ids over, and a filter is made of sound words: neither fails.
        let (Some(id), Ok(filter)) = (self.packet_ids.allocate(in_use), TopicFilter::new(&filter)) else {
            return;
        };
        let sent = match kind {
            PendingKind::Subscribe => Subscribe::encode(id, &[(filter, qos_of(subscription))], tx),
            PendingKind::Unsubscribe => Unsubscribe::encode(id, &[filter], tx),
        };
        if sent.is_ok() {
            let deadline = self.now.after(self.config.timing.request);
            link.pending.push(Pending { id, subscription, kind, deadline });
        }
    }

    /// Makes sure that a request of the application can be made, and that its answer will be heard.
    fn prepare_request(&mut self, tx: &mut Vec<u8>) -> Result<(), RequestError> {
        if matches!(self.phase, Phase::Offline | Phase::Ended(_)) && self.reconnect_at.is_none() {
            return Err(RequestError::NotConnected);
        }
        if self.requests.len() >= self.config.limits.requests {
            return Err(RequestError::TooMany);
        }
        self.want(&[Subscription::TwinResponses], tx)
    }

    /// Sends a request, or holds it back until there is a connection, and the hub has taken the subscription by which the
    /// answer comes: the hub need not look at packets in the order in which they were sent.
    fn send_request(
        &mut self,
        asker: Asker,
        payload: &[u8],
        tx: &mut Vec<u8>,
        write_topic: impl FnOnce(RequestId, &mut String),
    ) -> RequestId {
        let request = self.requests.open(asker, self.now.after(self.config.timing.request));
        self.topic.clear();
        write_topic(request, &mut self.topic);
        let heard = self.granted.get(Subscription::TwinResponses).is_some();
        let mut waiting = Vec::new();
        let (out, is_online) = match &mut self.phase {
            Phase::Online(_) if heard => (tx, true),
            Phase::Online(link) => (&mut link.held, true),
            _ => (&mut waiting, false),
        };
        let start = out.len();
        if let Ok(topic) = TopicName::new(&self.topic) {
            append_at_most_once(topic, payload, out);
        }
        if !is_online || self.config.requests == RequestPolicy::Resend {
            self.requests.keep(request, out.get(start..).unwrap_or_default(), is_online);
        }
        request
    }

    /// Subscribes to what of `needed` is not wanted yet.
    pub(super) fn want(&mut self, needed: &[Subscription], tx: &mut Vec<u8>) -> Result<(), RequestError> {
        self.check_pending(needed.iter().filter(|&&one| self.wanted.get(one).is_none()).count())?;
        for &subscription in needed {
            if self.wanted.insert(subscription, qos_of(subscription)) {
                self.send_subscription(PendingKind::Subscribe, subscription, tx);
            }
        }
        Ok(())
    }

    fn check_pending(&self, more: usize) -> Result<(), RequestError> {
        match &self.phase {
            Phase::Online(link) if link.pending.len().saturating_add(more) > self.config.limits.requests => {
                Err(RequestError::TooMany)
            }
            _ => Ok(()),
        }
    }
}

/// Cloud messages are worth an acknowledgement. The rest is not: the hub sends it at QoS 0 whatever is asked for.
fn qos_of(subscription: Subscription) -> QoS {
    match subscription {
        Subscription::CloudMessages | Subscription::ModuleInputs => QoS::AtLeastOnce,
        _ => QoS::AtMostOnce,
    }
}

/// Topic and payload come from the machine or were measured before, so that both fit into a packet.
fn append_at_most_once(topic: TopicName<'_>, payload: &[u8], out: &mut Vec<u8>) {
    let publish = Publish { qos: PublishQoS::AtMostOnce, retain: false, topic, payload };
    let _ = publish.encode(out); // fails for payloads of 256 MB only
}
