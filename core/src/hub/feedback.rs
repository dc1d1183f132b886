//! What the back end hears of the cloud-to-device messages that it wants to hear of.
//!
//! A report is part of the record from the change on that it reports, so that it is neither lost nor made up: it is
//! given out once that change is safe, and dropped when the caller has said that it has it.

use alloc::collections::VecDeque;
use alloc::string::String;

use super::mailbox::Waiting;
use super::{Change, Commit, DeviceKey, DeviceRecord, Hub, Revision};
use crate::time::UnixTime;

/// What the back end asks to hear about a message (`iothub-ack`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedbackRequest {
    /// Nothing.
    #[default]
    None,
    /// That it was completed.
    Positive,
    /// That it expired or was rejected.
    Negative,
    /// Either.
    Full,
}

impl FeedbackRequest {
    /// The value of the property `iothub-ack`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Full => "full",
        }
    }

    /// Reads the value of `iothub-ack`, in any case of letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Positive, Self::Negative, Self::Full]
            .into_iter()
            .find(|request| request.as_str().eq_ignore_ascii_case(text))
    }
}

/// What became of a cloud-to-device message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The device completed it.
    Success,
    /// Its time was over before.
    Expired,
    /// It was delivered in vain as often as it may be.
    DeliveryCountExceeded,
    /// The device rejected it.
    Rejected,
    /// The back end purged the queue.
    Purged,
}

impl Outcome {
    const ALL: [Self; 5] =
        [Self::Success, Self::Expired, Self::DeliveryCountExceeded, Self::Rejected, Self::Purged];

    /// Its name in a feedback record (`statusCode`, and `description`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Expired => "Expired",
            Self::DeliveryCountExceeded => "DeliveryCountExceeded",
            Self::Rejected => "Rejected",
            Self::Purged => "Purged",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }

    /// Whether somebody who asked for `ack` wants to hear of this.
    fn is_wanted(self, ack: FeedbackRequest) -> bool {
        match ack {
            FeedbackRequest::None => false,
            FeedbackRequest::Positive => self == Self::Success,
            FeedbackRequest::Negative => self != Self::Success,
            FeedbackRequest::Full => true,
        }
    }
}

/// One feedback record (IoT Hub cloud-to-device guide: message feedback).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// The message id that the back end gave; empty where it gave none.
    pub original_message_id: String,
    /// When that became of it (`enqueuedTimeUtc`).
    pub at: UnixTime,
    /// What became of it.
    pub outcome: Outcome,
    /// The device.
    pub device_id: String,
    /// The generation of the device (`deviceGenerationId`).
    pub generation_id: String,
}

/// A report that was not taken yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) message_id: Option<String>,
    pub(super) at: UnixTime,
    pub(super) outcome: Outcome,
    /// The revision that must be safe before it is given out.
    pub(super) since: Revision,
}

/// The reports of one device, oldest first.
pub(super) type Reports = VecDeque<Report>;

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
            self.mailbox.feedback.push_back(Report {
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
            slot.record.mailbox.feedback.iter().take_while(is_safe).map(|report| Feedback {
                original_message_id: report.message_id.clone().unwrap_or_default(),
                at: report.at,
                outcome: report.outcome,
                device_id: identity.identity().device_id().into(),
                generation_id: identity.generation_id.clone(),
            })
        })
    }

    /// The first `count` of what [`feedback`](Self::feedback) gave are in safe hands, and are dropped here.
    pub fn take_feedback(&mut self, device: DeviceKey, count: usize) -> Option<Commit> {
        let slot = self.devices.get_mut(device.0)?;
        let reports = &mut slot.record.mailbox.feedback;
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
        if slot.record.mailbox.feedback.front().is_some_and(|report| report.since <= slot.committed) {
            self.has_feedback.insert(device);
        }
    }
}
