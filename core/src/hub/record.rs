//! What a hub remembers of one identity, and nothing of any other.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::mailbox::{Mailbox, SequenceNumber};
use super::twin::Twin;
use crate::iothub::sas::SymmetricKey;
use crate::iothub::{IdError, Identity, Subscriptions};

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

/// How an identity proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// By a SAS token signed with either key.
    Sas {
        /// The primary key.
        primary: SymmetricKey,
        /// The secondary key.
        secondary: SymmetricKey,
    },
    /// By a client certificate with either thumbprint: SHA-1 or SHA-256, upper-case hex.
    SelfSigned {
        /// The primary thumbprint.
        primary: String,
        /// The secondary thumbprint.
        secondary: Option<String>,
    },
}

/// An entry of the identity registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceIdentity {
    client_id: Box<str>,
    /// Where the device id ends, in a module's client id.
    slash: Option<usize>,
    /// Told apart from an earlier identity of the same id.
    pub generation_id: String,
    /// A disabled identity cannot connect.
    pub enabled: bool,
    /// Why it is disabled, in the words of whoever did it.
    pub status_reason: Option<String>,
    /// How it proves itself.
    pub authentication: Authentication,
}

impl DeviceIdentity {
    /// A new, enabled identity. `client_id` is the device id, for a module device id, slash, module id.
    ///
    /// # Errors
    /// When `client_id` is no id (1 to 128 characters of the registry's alphabet, each).
    pub fn new(
        client_id: &str,
        generation_id: String,
        authentication: Authentication,
    ) -> Result<Self, IdError> {
        Identity::from_client_id(client_id)?;
        Ok(Self {
            client_id: client_id.into(),
            slash: client_id.find('/'),
            generation_id,
            enabled: true,
            status_reason: None,
            authentication,
        })
    }

    /// The client id of its connections: device id, for a module device id, slash, module id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Device id and module id.
    #[must_use]
    #[inline]
    pub fn identity(&self) -> Identity<'_> {
        Identity::of_checked(&self.client_id, self.slash)
    }
}

/// The persistent part of a session with CleanSession 0 `[MQTT-3.1.2-4]`. In this dialect the filters are a small set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) subscriptions: Subscriptions,
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

    /// Whether the persistent session holds any subscription, and which.
    #[must_use]
    pub fn subscriptions(&self) -> Option<Subscriptions> {
        self.session.map(|session| session.subscriptions)
    }

    pub(super) const fn change(&mut self) -> Revision {
        self.revision.0 = self.revision.0.saturating_add(1);
        self.revision
    }

    /// The keys that a SAS token may be signed with.
    pub(super) fn keys(&self) -> Vec<&SymmetricKey> {
        match &self.identity.authentication {
            Authentication::Sas { primary, secondary } => alloc::vec![primary, secondary],
            Authentication::SelfSigned { .. } => Vec::new(),
        }
    }
}
