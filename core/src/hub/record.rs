//! What a hub remembers of one identity, and nothing of any other.

use alloc::string::String;

use serde_json::{Map, Value};

use super::cloud_to_device_queue::{CloudToDeviceQueue, SequenceNumber, Waiting, WaitingMessage};
use super::identity::DeviceIdentity;
use super::revision::Revision;
use super::twin::Twin;
use crate::iothub::Subscriptions;
use crate::iothub::twin::TwinError;
use crate::time::UnixTime;

/// The persistent part of a session with CleanSession 0 `[MQTT-3.1.2-4]`. In this dialect the filters are a small set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) subscriptions: Subscriptions,
}

/// When the device was last seen. It is written down with the next change, and makes none of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// When the device connected, or its connection ended, for the last time.
    pub connection_state_updated: Option<UnixTime>,
    /// When the last packet came, of a connection that has ended or before the present one began.
    pub last: Option<UnixTime>,
}

/// Identity, persistent session, queue and twin of one device or module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The registry entry.
    pub identity: DeviceIdentity,
    pub(super) session: Option<Session>,
    pub(super) queue: CloudToDeviceQueue,
    pub(super) twin: Twin,
    /// The model id that the device announced last (IoT Plug and Play).
    pub(super) model_id: Option<String>,
    pub(super) activity: Activity,
    pub(super) revision: Revision,
}

impl DeviceRecord {
    /// The record of an identity that was never connected: no session, an empty queue, a twin with both versions 1.
    #[must_use]
    pub fn new(identity: DeviceIdentity) -> Self {
        Self {
            identity,
            session: None,
            queue: CloudToDeviceQueue::default(),
            twin: Twin::default(),
            model_id: None,
            activity: Activity::default(),
            revision: Revision(1),
        }
    }

    /// The same with desired properties and tags, both versions still 1.
    ///
    /// # Errors
    /// [`TwinError`] where one of them could not be a twin's.
    pub fn with_twin(
        mut self,
        desired: &Map<String, Value>,
        tags: &Map<String, Value>,
        now: UnixTime,
    ) -> Result<Self, TwinError> {
        self.twin.begin(desired, tags, now)?;
        Ok(self)
    }

    /// How many changes the record has seen.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The twin.
    #[must_use]
    pub const fn twin(&self) -> &Twin {
        &self.twin
    }

    /// The model id that the device announced last (IoT Plug and Play).
    #[must_use]
    pub fn model_id(&self) -> Option<&str> {
        self.model_id.as_deref()
    }

    /// The messages that wait, oldest first.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = SequenceNumber> {
        self.queue.messages.iter().map(|message| message.sequence)
    }

    /// A message that waits; `None` if it does not.
    #[must_use]
    pub fn message(&self, sequence: SequenceNumber) -> Option<WaitingMessage<'_>> {
        self.queue.get(sequence).map(Waiting::view)
    }

    /// Whether the persistent session holds any subscription, and which.
    #[must_use]
    pub fn subscriptions(&self) -> Option<Subscriptions> {
        self.session.map(|session| session.subscriptions)
    }

    /// The revision that the next change makes.
    pub(super) const fn next_revision(&self) -> Revision {
        Revision(self.revision.0.saturating_add(1))
    }

    pub(super) const fn change(&mut self) -> Revision {
        self.revision = self.next_revision();
        self.revision
    }
}
