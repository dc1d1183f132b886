//! What the back end hears of the cloud-to-device messages that it wants to hear of.
//!
//! A report is part of the record from the change on that it reports, so that it is neither lost nor made up: it is
//! given out once that change is safe, and dropped when the caller has said that it has it.

use super::cloud_to_device_queue::Waiting;
use super::outcome::Report;
use super::{Change, Commit, DeviceKey, DeviceRecord, Feedback, Hub, Outcome, Revision};
use crate::time::UnixTime;

impl DeviceRecord {
    /// A message is over, and was taken out of the queue; gives the revision that this makes.
    #[inline]
    pub(super) fn settle(
        &mut self,
        message: Waiting,
        outcome: Outcome,
        now: impl FnOnce() -> UnixTime,
    ) -> Revision {
        let since = self.change();
        if outcome.is_wanted(message.ack) {
            self.queue.feedback.push_back(Report {
                message_id: message.message_id,
                at: now(),
                outcome,
                since,
            });
        }
        since
    }
}

impl Hub {
    /// The next device that has feedback to give: read it with [`feedback`](Self::feedback). A device is named again when
    /// there is more.
    pub fn poll_feedback(&mut self) -> Option<DeviceKey> {
        self.has_feedback.pop_first()
    }

    /// The feedback of a device that is safe and was not taken yet, oldest first.
    pub fn feedback(&self, device: DeviceKey) -> impl Iterator<Item = Feedback> + '_ {
        let slot = self.devices.get(device.0);
        slot.into_iter().flat_map(|slot| {
            let identity = &slot.record.identity;
            let is_safe = |report: &&Report| report.since <= slot.committed;
            slot.record.queue.feedback.iter().take_while(is_safe).map(|report| Feedback {
                original_message_id: report.message_id.clone().unwrap_or_default(),
                at: report.at,
                outcome: report.outcome,
                device_id: identity.identity().device_id().into(),
                generation_id: identity.generation_id.clone(),
            })
        })
    }

    /// The first `count` of what [`feedback`](Self::feedback) gave are in safe hands, and are dropped here.
    #[must_use = "a change is safe only when its commit was made durable"]
    pub fn take_feedback(&mut self, device: DeviceKey, count: usize) -> Option<Commit> {
        let slot = self.devices.get_mut(device.0)?;
        let reports = &mut slot.record.queue.feedback;
        let safe = reports.iter().take_while(|report| report.since <= slot.committed).count();
        if count.min(safe) == 0 {
            return None;
        }
        reports.drain(..count.min(safe));
        let revision = slot.record.change();
        Some(Commit { device, revision, change: Change::Feedback })
    }

    /// Something of a device became safe: if it is a report, the device has feedback to give.
    pub(super) fn look_for_feedback(&mut self, device: DeviceKey) {
        let Some(slot) = self.devices.get(device.0) else { return };
        if slot.record.queue.feedback.front().is_some_and(|report| report.since <= slot.committed) {
            self.has_feedback.insert(device);
        }
    }
}
