//! What a hub remembers of one identity, and nothing of any other.

use alloc::string::String;

use super::identity::DeviceIdentity;
use super::mailbox::{Mailbox, SequenceNumber, Waiting, WaitingMessage};
use super::twin::Twin;
use crate::iothub::Subscriptions;
use crate::time::UnixTime;

/// Counts the changes of one record. What rests on a revision waits until it is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub(super) u64);

impl Revision {
    /// The number, as it stands in a stored record.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

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

/// Identity, persistent session, mailbox and twin of one device or module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The registry entry.
    pub identity: DeviceIdentity,
    pub(super) session: Option<Session>,
    pub(super) mailbox: Mailbox,
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
            mailbox: Mailbox::default(),
            twin: Twin::default(),
            model_id: None,
            activity: Activity::default(),
            revision: Revision(1),
        }
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
        self.mailbox.messages.iter().map(|message| message.sequence)
    }

    /// A message that waits; `None` if it does not.
    #[must_use]
    pub fn message(&self, sequence: SequenceNumber) -> Option<WaitingMessage<'_>> {
        self.mailbox.get(sequence).map(Waiting::view)
    }

    /// Whether the persistent session holds any subscription, and which.
    #[must_use]
    pub fn subscriptions(&self) -> Option<Subscriptions> {
        self.session.map(|session| session.subscriptions)
    }

    pub(super) const fn change(&mut self) -> Revision {
        self.revision.0 = self.revision.0.saturating_add(1);
        self.revision
    }
}
