//! The outbox as bytes, so that a crash of the device loses nothing that was taken over.
//!
//! ```text
//! "devicebound outbox 1\n"
//! length u16, identity        whose outbox it is
//! last ticket u64, last packet id u16, number of messages u32
//! per message: ticket u64, packet id u16 or 0, length u32, PUBLISH
//! SHA-256 of all before
//! ```
//!
//! After it there may be changes: see [`journal`](super::journal).
//!
//! Numbers have their most significant byte first, as in MQTT.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::super::{ConfigError, Limits};
use super::{Entry, Outbox, Ticket};
use crate::packet::{Decoded, Packet, PacketId, PublishQoS, decode};
use crate::rule::Rule;
use crate::time::Instant;

/// What a snapshot of any version starts with.
const TITLE: &[u8] = b"devicebound outbox ";
/// The version that is written, and read.
const VERSION: &[u8] = b"1\n";
pub(super) const DIGEST_LENGTH: usize = 32;

/// Why no device can be made from a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The config alone is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// These bytes are no snapshot.
    #[error("this is no snapshot of an outbox; give what Device::snapshot has written")]
    NotASnapshot,
    /// The snapshot is of another version of its format.
    #[error(
        "the snapshot is of a version that this one cannot read; send what is in it with the version that wrote it"
    )]
    Version,
    /// The snapshot is cut short or was changed.
    #[error("the snapshot is damaged; write it to another file first, sync that, and then rename it")]
    Damaged,
    /// The snapshot is of another device or module.
    #[error("the snapshot is of another device; start this one without it")]
    OtherIdentity,
    /// The snapshot holds more than the limits of the config allow.
    #[error("the snapshot holds more than the limits allow; raise Limits::outbox_messages or outbox_bytes")]
    Limits,
}

impl RestoreError {
    /// The rule that stands in the way.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Config(error) => error.rule(),
            Self::Limits => Rule::OutboxFull,
            Self::NotASnapshot | Self::Version | Self::Damaged | Self::OtherIdentity => Rule::OutboxSnapshot,
        }
    }
}

impl Outbox {
    /// Appends a snapshot of what is not acknowledged.
    pub(in super::super) fn write_snapshot(&self, identity: &str, last_id: u16, out: &mut Vec<u8>) {
        let start = out.len();
        let waiting = || self.entries.iter().filter(|entry| !entry.acknowledged);
        out.extend_from_slice(TITLE);
        out.extend_from_slice(VERSION);
        out.extend_from_slice(&short(identity.len()).to_be_bytes());
        out.extend_from_slice(identity.as_bytes());
        out.extend_from_slice(&self.last_ticket.to_be_bytes());
        out.extend_from_slice(&last_id.to_be_bytes());
        out.extend_from_slice(&long(waiting().count()).to_be_bytes());
        for entry in waiting() {
            self.write_entry(entry, out);
        }
        let digest = Sha256::digest(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&digest);
    }

    /// A message as it stands in snapshots and changes.
    pub(super) fn write_entry(&self, entry: &Entry, out: &mut Vec<u8>) {
        out.extend_from_slice(&entry.ticket.0.to_be_bytes());
        out.extend_from_slice(&entry.id.map_or(0, PacketId::get).to_be_bytes());
        out.extend_from_slice(&long(entry.length).to_be_bytes());
        out.extend_from_slice(self.bytes.get(entry.range()).unwrap_or_default());
    }

    /// The outbox that a snapshot is of, and the last packet id that was given.
    pub(in super::super) fn restored(
        snapshot: &[u8],
        identity: &str,
        limits: &Limits,
    ) -> Result<(Self, u16), RestoreError> {
        let rest = snapshot.strip_prefix(TITLE).ok_or(RestoreError::NotASnapshot)?;
        let rest = rest.strip_prefix(VERSION).ok_or(RestoreError::Version)?;
        // Nothing in it is believed: neither before the digest is known, nor after.
        let mut reader = Reader(rest);
        let whose = reader.array().and_then(|length| reader.bytes(u16::from_be_bytes(length).into()));
        let whose = whose.ok_or(RestoreError::Damaged)?;
        let (mut outbox, mut last_id) = reader.outbox().ok_or(RestoreError::Damaged)?;
        let content = snapshot.len().saturating_sub(reader.0.len());
        let digest: [u8; DIGEST_LENGTH] = reader.array().ok_or(RestoreError::Damaged)?;
        if Sha256::digest(snapshot.get(..content).unwrap_or_default()).as_slice() != digest {
            return Err(RestoreError::Damaged);
        }
        if whose != identity.as_bytes() {
            return Err(RestoreError::OtherIdentity);
        }
        outbox.apply(&mut reader, digest, &mut last_id)?;
        if outbox.entries.len() > limits.outbox_messages || outbox.live > limits.outbox_bytes {
            return Err(RestoreError::Limits);
        }
        Ok((outbox, last_id))
    }
}

/// Identities are shorter than that.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// An outbox holds fewer messages, and a packet fewer bytes, than that.
pub(super) fn long(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What is left to be read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.array()?)).ok()
    }

    /// All that stands behind the identity.
    fn outbox(&mut self) -> Option<(Outbox, u16)> {
        let last_ticket = u64::from_be_bytes(self.array()?);
        let last_id = u16::from_be_bytes(self.array()?);
        let mut outbox = Outbox { last_ticket, ..Outbox::default() };
        self.entries(&mut outbox)?;
        Some((outbox, last_id))
    }

    /// Messages with their number before them, behind those that are there.
    pub(super) fn entries(&mut self, outbox: &mut Outbox) -> Option<()> {
        for _ in 0..self.length()? {
            let entry = self.entry(&mut outbox.bytes)?;
            let in_order = outbox.entries.back().is_none_or(|before| {
                // Ids are given in turn.
                before.ticket < entry.ticket && (before.id.is_some() || entry.id.is_none())
            });
            let is_known = entry.id.is_some_and(|id| outbox.holds(id));
            if !in_order || is_known || entry.ticket.0 > outbox.last_ticket {
                return None;
            }
            outbox.live = outbox.live.saturating_add(entry.length);
            outbox.entries.push_back(entry);
        }
        Some(())
    }

    /// One message, whose packet is appended to `bytes`: a whole PUBLISH at QoS 1, with DUP if and only if it has a
    /// packet id of its own.
    fn entry(&mut self, bytes: &mut Vec<u8>) -> Option<Entry> {
        let ticket = Ticket(u64::from_be_bytes(self.array()?));
        let id = PacketId::new(u16::from_be_bytes(self.array()?));
        let length = self.length()?;
        let packet = self.bytes(length)?;
        let mut rest = packet;
        let Ok(Decoded::Packet(Packet::Publish(publish))) = decode(&mut rest, length) else { return None };
        let PublishQoS::AtLeastOnce { packet_id, dup } = publish.qos else { return None };
        let id_at = length.checked_sub(publish.payload.len())?.checked_sub(2)?;
        let sound = rest.is_empty() && dup == id.is_some() && id.is_none_or(|id| id == packet_id);
        let at = bytes.len();
        bytes.extend_from_slice(packet);
        sound.then_some(Entry { ticket, at, length, id_at, id, due: Instant::default(), acknowledged: false })
    }
}
