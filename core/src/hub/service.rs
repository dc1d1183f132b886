//! What the back end asks of a hub.

use alloc::string::String;

use super::methods::Call;
use super::pending::Until;
use super::{
    CallId, Change, CloudMessage, Commit, DeviceKey, EnqueueError, Hub, InvokeError, LinkSlot, LockLost,
    LockToken, MethodRequest, Operation, Outcome, Revision, SequenceNumber, State, Target, TierError,
    TwinUpdate, TwinUpdateError,
};
use crate::iothub::Subscription;
use crate::iothub::topic::credential_response_topic;
use crate::rule::Rule;
use crate::session::CloseReason;
use crate::time::Instant;

impl Hub {
    /// Answers a request for a certificate, once the record is safe as it is now. The answer goes to the connection that
    /// the device has, if that has subscribed to such answers; false where it has none.
    ///
    /// `rid` is that of [`Action::IssueCertificate`](super::Action::IssueCertificate). A last answer may come long after
    /// the first, on another connection.
    pub fn answer_certificate(&mut self, device: DeviceKey, rid: &str, status: u16, body: &str) -> bool {
        let Some(slot) = self.devices.get(device.0) else { return false };
        let (until, link) = (Until::Committed(slot.record.revision), slot.link);
        let Some(link) = link else { return false };
        let Some(LinkSlot { state: State::Live(live), .. }) = self.links.get_mut(link.0) else {
            return false;
        };
        if live.subscriptions.get(Subscription::CredentialResponses).is_none() {
            return false;
        }
        let mut topic = String::new();
        credential_response_topic(status, rid, &mut topic);
        live.pending.message(until, &topic, body);
        self.make_ready(link);
        true
    }
}

impl Hub {
    /// Puts a cloud-to-device message into the device's queue. It is sent once the commit is safe.
    ///
    /// # Errors
    /// See [`EnqueueError`]; nothing has changed then.
    pub fn enqueue(
        &mut self,
        now: Instant,
        device: DeviceKey,
        message: CloudMessage,
    ) -> Result<(SequenceNumber, Commit), EnqueueError> {
        let unix_time = self.unix_time(now);
        self.admission.service(now, unix_time, Operation::CloudMessage, message.payload.len())?;
        let slot = self.devices.get_mut(device.0).ok_or(EnqueueError::UnknownDevice)?;
        let next = slot.record.next_revision();
        let super::DeviceRecord { identity, queue, .. } = &mut slot.record;
        if identity.identity().module_id().is_some() {
            return Err(EnqueueError::UnknownDevice);
        }
        let sequence =
            queue.enqueue(identity.identity().device_id(), message, unix_time, &self.config.limits, next)?;
        if let Some(link) = slot.link
            && let Some(bound) = self.links.get(link.0).and_then(|slot| slot.state.link())
            && bound.takes_cloud_messages()
        {
            queue.attempt(next, &self.config.limits);
            self.make_ready(link);
        }
        let revision = self.devices.get_mut(device.0).map_or(next, |slot| slot.record.change());
        self.schedule_queue(device);
        Ok((sequence, Commit { device, revision, change: Change::Enqueued(sequence) }))
    }

    /// Empties the device's queue; gives how many messages there were.
    #[must_use = "a change is safe only when its commit was made durable"]
    pub fn purge(&mut self, now: Instant, device: DeviceKey) -> Option<(usize, Commit)> {
        let unix_time = self.unix_time(now);
        let slot = self.devices.get_mut(device.0)?;
        let purged = core::mem::take(&mut slot.record.queue.messages);
        let count = purged.len();
        let mut revision = slot.record.change();
        for message in purged {
            revision = slot.record.settle(message, Outcome::Purged, || unix_time);
        }
        Some((count, Commit { device, revision, change: Change::DeadLettered }))
    }

    /// Gives the next message to a receiver without MQTT, and locks it for
    /// [`CLOUD_MESSAGE_LOCK`](crate::limits::CLOUD_MESSAGE_LOCK); what the device's connection was sent is locked
    /// already. [`DeviceRecord::message`](super::DeviceRecord::message) shows it, and it may be given out once the commit
    /// is safe. `None` where there is none.
    ///
    /// # Errors
    /// [`TierError`], where the hub has a tier.
    pub fn lock_message(
        &mut self,
        now: Instant,
        device: DeviceKey,
    ) -> Result<Option<(LockToken, Commit)>, TierError> {
        let unix_time = self.unix_time(now);
        self.admission.service(now, unix_time, Operation::Receive, 0)?;
        let Some(slot) = self.devices.get_mut(device.0) else { return Ok(None) };
        let record = &mut slot.record;
        let next = record.next_revision();
        let Some(token) = record.queue.lock(unix_time, next, &self.config.limits) else {
            return Ok(None);
        };
        let revision = record.change();
        self.schedule_queue(device);
        Ok(Some((token, Commit { device, revision, change: Change::Locked(token.sequence()) })))
    }

    /// The receiver is done with the message.
    ///
    /// # Errors
    /// [`LockLost`]; nothing has changed then.
    pub fn complete(
        &mut self,
        now: Instant,
        device: DeviceKey,
        token: LockToken,
    ) -> Result<Commit, LockLost> {
        let revision = self.take_locked(now, device, token, Outcome::Success)?;
        Ok(Commit { device, revision, change: Change::Completed(token.sequence()) })
    }

    /// The receiver does not want the message: it is dead-lettered.
    ///
    /// # Errors
    /// [`LockLost`]; nothing has changed then.
    pub fn reject(&mut self, now: Instant, device: DeviceKey, token: LockToken) -> Result<Commit, LockLost> {
        let revision = self.take_locked(now, device, token, Outcome::Rejected)?;
        Ok(Commit { device, revision, change: Change::DeadLettered })
    }

    fn take_locked(
        &mut self,
        now: Instant,
        device: DeviceKey,
        token: LockToken,
        outcome: Outcome,
    ) -> Result<Revision, LockLost> {
        let unix_time = self.unix_time(now);
        let slot = self.devices.get_mut(device.0).ok_or(LockLost)?;
        let message = slot.record.queue.take(token, unix_time)?;
        let revision = slot.record.settle(message, outcome, || unix_time);
        if let Some(link) = slot.link {
            self.make_ready(link); // what is behind it may go now
        }
        Ok(revision)
    }

    /// The receiver gives the message back: it is delivered again, or [dead-lettered](super::Expired::DeadLettered) where
    /// that was in vain [`Limits::delivery_count`](super::Limits::delivery_count) times.
    ///
    /// # Errors
    /// [`LockLost`]; nothing has changed then.
    pub fn abandon(&mut self, now: Instant, device: DeviceKey, token: LockToken) -> Result<Commit, LockLost> {
        let unix_time = self.unix_time(now);
        let slot = self.devices.get_mut(device.0).ok_or(LockLost)?;
        slot.record.queue.abandon(token, unix_time)?;
        let revision = slot.record.change();
        if let Some(link) = slot.link {
            self.make_ready(link);
        }
        self.schedule_queue(device);
        Ok(Commit { device, revision, change: Change::Locked(token.sequence()) })
    }

    /// Calls a direct method. The answer comes as [`Action::Answered`](super::Action::Answered), its absence as
    /// [`Expired::Call`](super::Expired::Call).
    ///
    /// # Errors
    /// See [`InvokeError`]; the device hears nothing then.
    pub fn invoke(
        &mut self,
        now: Instant,
        device: DeviceKey,
        request: MethodRequest,
    ) -> Result<CallId, InvokeError> {
        request.check()?;
        let unix_time = self.unix_time(now);
        let bytes = request.payload.as_ref().map_or(0, String::len);
        self.admission.service(now, unix_time, Operation::Method, bytes)?;
        let slot = self.devices.get_mut(device.0).ok_or(InvokeError::UnknownDevice)?;
        if slot.calls.len() >= self.config.limits.calls {
            return Err(InvokeError::TooMany);
        }
        let link = slot.link.and_then(|link| Some((link, self.links.get_mut(link.0)?)));
        let online = link.and_then(|(link, slot)| match &mut slot.state {
            State::Live(live) => Some((link, live)),
            _ => None,
        });
        let is_online = online.is_some();
        let live = online.filter(|(_, live)| live.has_methods());
        if live.is_none() && request.connect_timeout.is_zero() {
            return Err(if is_online { InvokeError::NotSubscribed } else { InvokeError::NotOnline });
        }
        let patience = if live.is_some() { request.response_timeout } else { request.connect_timeout };
        let deadline = now.after(patience);
        let call = self.calls.insert(Call {
            device,
            name: request.name.into(),
            payload: request.payload.map(Into::into),
            response_timeout: request.response_timeout,
            deadline,
            sent: false,
        });
        slot.calls.push(call);
        self.timers.schedule(deadline, Target::Call(call));
        if let Some((link, live)) = live {
            live.queue_call(call);
            self.make_ready(link);
        }
        Ok(call)
    }

    /// Ends a call whose caller is gone: it holds no place among the calls of its device any more. A device that got it already
    /// answers a call that is no longer open, which has no consequence. False if the call has ended before.
    pub fn cancel(&mut self, call: CallId) -> bool {
        let Some(device) = self.calls.cancel(call) else { return false };
        if let Some(slot) = self.devices.get_mut(device.0) {
            slot.calls.retain(|open| *open != call);
            if let Some(link) = slot.link.and_then(|link| self.links.get_mut(link.0))
                && let State::Live(live) = &mut link.state
            {
                live.forget_call(call);
            }
        }
        true
    }

    /// Changes desired properties or tags, and tells the device if it is connected and subscribed.
    ///
    /// # Errors
    /// See [`TwinUpdateError`]; nothing has changed then.
    pub fn update_twin(
        &mut self,
        now: Instant,
        device: DeviceKey,
        update: TwinUpdate,
    ) -> Result<Commit, TwinUpdateError> {
        let unix_time = self.unix_time(now);
        self.admission.service(now, unix_time, Operation::TwinUpdate, update.bytes())?;
        let most = self.config.limits.notifications;
        let slot = self.devices.get_mut(device.0).ok_or(TwinUpdateError::UnknownDevice)?;
        let notification = slot.record.twin.update(update, unix_time)?;
        let revision = slot.record.change();
        let version = slot.record.twin.desired_version;
        if let (Some(body), Some(link)) = (notification, slot.link)
            && let Some(link_slot) = self.links.get_mut(link.0)
            && let State::Live(live) = &mut link_slot.state
        {
            if live.notify(revision, version, &body, most) {
                self.make_ready(link);
            } else {
                self.end(link, CloseReason::Ended(Rule::SlowReader));
            }
        }
        Ok(Commit { device, revision, change: Change::Desired })
    }
}
