//! What becomes of cloud-to-device messages, and what the back end asks to hear of that.

use alloc::collections::VecDeque;
use alloc::string::String;

use super::revision::Revision;
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
    /// The property of a message that carries it.
    pub const PROPERTY: &str = "iothub-ack";

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
    pub(super) fn is_wanted(self, ack: FeedbackRequest) -> bool {
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
