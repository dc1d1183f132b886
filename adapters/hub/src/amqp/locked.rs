//! What a back end reads from the hub itself: feedback and file notifications, each locked for its reader.

use std::sync::Arc;

use devicebound::time::UnixTime;

use crate::backend::files::notifications::{self, Delivery};
use crate::backend::{Backend, Error, feedback};

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// What became of cloud-to-device messages.
    Feedback,
    /// Files that devices have uploaded.
    FileNotifications,
}

/// Something for a reader; where it is dropped before it was sent, it comes again at once.
#[derive(Debug)]
pub(super) enum Locked {
    Feedback(feedback::Batch),
    FileNotification(Delivery),
}

impl Queue {
    pub(super) async fn take(self, backend: &Arc<Backend>) -> Result<Option<Locked>, Error> {
        Ok(match self {
            Self::Feedback => backend.take_feedback().await?.map(Locked::Feedback),
            Self::FileNotifications => backend.take_file_notification().await?.map(Locked::FileNotification),
        })
    }

    pub(super) async fn complete(self, backend: &Arc<Backend>, lock: &str) -> Result<(), Error> {
        match self {
            Self::Feedback => backend.complete_feedback(lock).await,
            Self::FileNotifications => backend.complete_file_notification(lock).await,
        }
    }

    pub(super) fn abandon(self, backend: &Backend, lock: &str) -> Result<(), Error> {
        match self {
            Self::Feedback => backend.abandon_feedback(lock),
            Self::FileNotifications => backend.abandon_file_notification(lock),
        }
    }
}

impl Locked {
    pub(super) fn enqueued(&self) -> UnixTime {
        match self {
            Self::Feedback(batch) => batch.reports().iter().map(|report| report.at).max().unwrap_or_default(),
            Self::FileNotification(delivery) => delivery.notification().enqueued,
        }
    }

    pub(super) const fn content_type(&self) -> &'static str {
        match self {
            Self::Feedback(_) => feedback::CONTENT_TYPE,
            Self::FileNotification(_) => notifications::CONTENT_TYPE,
        }
    }

    pub(super) fn to_json(&self) -> String {
        match self {
            Self::Feedback(batch) => batch.to_json().to_string(),
            Self::FileNotification(delivery) => delivery.notification().to_json().to_string(),
        }
    }

    /// The reader gets it; gives the lock.
    pub(super) fn give(self) -> String {
        match self {
            Self::Feedback(batch) => batch.give(),
            Self::FileNotification(delivery) => delivery.give(),
        }
    }
}
