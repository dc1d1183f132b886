//! What the back end asks of a hub.

use super::methods::Call;
use super::opening::Opening;
use super::{
    CallId, Change, CloudMessage, Commit, DeviceKey, EnqueueError, Hub, InvokeError, MethodRequest, Revision,
    SequenceNumber, State, Target, TwinUpdate, TwinUpdateError,
};
use crate::limits::{METHOD_CONNECT_TIME_MAX, METHOD_PAYLOAD_MAX, METHOD_RESPONSE_TIME};
use crate::rule::Rule;
use crate::session::CloseReason;
use crate::time::Instant;

/// Longest method name (Azure IoT Edge hub).
const METHOD_NAME_MAX: usize = 100;

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
        let most = self.config.limits.mailbox;
        let slot = self.devices.get_mut(device.0).ok_or(EnqueueError::UnknownDevice)?;
        let next = Revision(slot.record.revision.0.saturating_add(1));
        let super::DeviceRecord { identity, mailbox, .. } = &mut slot.record;
        if identity.identity().module_id().is_some() {
            return Err(EnqueueError::UnknownDevice);
        }
        let sequence = mailbox.enqueue(identity.identity().device_id(), message, unix_time, most, next)?;
        if let Some(link) = slot.link
            && let Some(State::Opening(Opening { link: live, .. }) | State::Live(live)) =
                self.links.get(link.0).map(|slot| &slot.state)
            && live.takes_cloud_messages()
        {
            mailbox.attempt(next);
            self.make_ready(link);
        }
        let revision = self.devices.get_mut(device.0).map_or(next, |slot| slot.record.change());
        self.schedule_mailbox(device);
        Ok((sequence, Commit { device, revision, change: Change::Enqueued(sequence) }))
    }

    /// Empties the device's queue; gives how many messages there were.
    pub fn purge(&mut self, device: DeviceKey) -> Option<(usize, Commit)> {
        let slot = self.devices.get_mut(device.0)?;
        let purged = slot.record.mailbox.messages.len();
        slot.record.mailbox.messages.clear();
        let revision = slot.record.change();
        Some((purged, Commit { device, revision, change: Change::DeadLettered }))
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
        check(&request)?;
        let slot = self.devices.get_mut(device.0).ok_or(InvokeError::UnknownDevice)?;
        if slot.calls.len() >= self.config.limits.calls {
            return Err(InvokeError::TooMany);
        }
        let link = slot.link.and_then(|link| Some((link, self.links.get_mut(link.0)?)));
        let live = match link {
            Some((link, slot)) => match &mut slot.state {
                State::Live(live) if live.has_methods() => Some((link, live)),
                _ => None,
            },
            None => None,
        };
        if live.is_none() && request.connect_timeout.is_zero() {
            return Err(InvokeError::NotOnline);
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

/// The rules of direct methods (IoT Hub direct method guide).
fn check(request: &MethodRequest) -> Result<(), InvokeError> {
    let (shortest, _, longest) = METHOD_RESPONSE_TIME;
    if request.name.is_empty() || request.name.len() > METHOD_NAME_MAX {
        return Err(InvokeError::Argument("the method name has 1 to 100 characters"));
    }
    if !request.name.bytes().all(|byte| byte.is_ascii_graphic() && !br#"$()<>@,;:\"/[]?={}"#.contains(&byte))
    {
        return Err(InvokeError::Argument(
            "the method name is printable ASCII without $()<>@,;:\\\"/[]?={} and spaces",
        ));
    }
    if !(shortest..=longest).contains(&request.response_timeout) {
        return Err(InvokeError::Argument("responseTimeoutInSeconds is 5 to 300"));
    }
    if request.connect_timeout > METHOD_CONNECT_TIME_MAX {
        return Err(InvokeError::Argument("connectTimeoutInSeconds is 0 to 300"));
    }
    if request.payload.as_ref().is_some_and(|payload| payload.len() > METHOD_PAYLOAD_MAX) {
        return Err(InvokeError::Argument("the payload is at most 131072 bytes"));
    }
    Ok(())
}
