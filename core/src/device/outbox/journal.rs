//! Changes of the outbox, to be appended to its snapshot, so that not all of it is written each time.
//!
//! ```text
//! length of what follows u32
//! last ticket u64, last packet id u16
//! number u32, per message that is gone: ticket u64
//! number u32, per message that was sent for the first time: ticket u64, packet id u16
//! number u32, per new message: as in the snapshot
//! SHA-256 of the digest before this one and of all since
//! ```

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::snapshot::{DIGEST_LENGTH, Reader, RestoreError, long};
use super::{DUP, Entry, Outbox, Ticket};
use crate::packet::PacketId;

/// Bytes of changes from which on a snapshot is written anew, unless it is longer than they are.
const CHANGES_MAX: usize = 64 << 10;

/// What is to be done with what [`Device::save`](crate::device::Device::save) has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was written is to be stored"]
pub enum Save {
    /// Nothing: nothing was written, as nothing has changed.
    Nothing,
    /// Append it to what is stored, and sync that.
    Append,
    /// Store it in place of what is stored: write it to another file, sync that, and then rename it.
    Replace,
}

/// What was saved.
#[derive(Debug)]
pub(super) struct Journal {
    digest: [u8; DIGEST_LENGTH],
    /// Messages with tickets up to this are saved, or gone.
    up_to: u64,
    /// Those of them whose packet ids are saved as well.
    ids_up_to: u64,
    last_id: u16,
    /// Saved messages that have gone since.
    gone: Vec<Ticket>,
    /// Bytes of the snapshot, and of the changes after it.
    snapshot: usize,
    changes: usize,
}

impl Outbox {
    /// Appends what has changed since the last save, or a whole snapshot.
    pub(in super::super) fn save(&mut self, identity: &str, last_id: u16, out: &mut Vec<u8>) -> Save {
        let start = out.len();
        let Some(journal) = self.journal.as_ref().filter(|journal| journal.is_worth_going_on()) else {
            self.write_snapshot(identity, last_id, out);
            let written = out.get(start..).unwrap_or_default();
            self.journal = Some(Journal {
                digest: written.last_chunk().copied().unwrap_or_default(),
                up_to: self.last_ticket,
                ids_up_to: self.last_with_id(),
                last_id,
                gone: Vec::new(),
                snapshot: written.len(),
                changes: 0,
            });
            return Save::Replace;
        };
        if journal.up_to == self.last_ticket
            && journal.ids_up_to == self.last_with_id().max(journal.ids_up_to)
            && journal.last_id == last_id
            && journal.gone.is_empty()
        {
            return Save::Nothing;
        }
        self.write_changes(journal, last_id, out);
        let digest = digest(&journal.digest, out.get(start..).unwrap_or_default());
        out.extend_from_slice(&digest);
        let (up_to, with_id) = (self.last_ticket, self.last_with_id());
        if let Some(journal) = &mut self.journal {
            journal.digest = digest;
            journal.up_to = up_to;
            journal.ids_up_to = with_id.max(journal.ids_up_to);
            journal.last_id = last_id;
            journal.gone.clear();
            journal.changes = journal.changes.saturating_add(out.len().saturating_sub(start));
        }
        Save::Append
    }

    /// What was saved is not known any more: the next save is a whole one.
    pub(in super::super) fn forget_saves(&mut self) {
        self.journal = None;
    }

    fn write_changes(&self, journal: &Journal, last_id: u16, out: &mut Vec<u8>) {
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.last_ticket.to_be_bytes());
        out.extend_from_slice(&last_id.to_be_bytes());
        out.extend_from_slice(&long(journal.gone.len()).to_be_bytes());
        for gone in &journal.gone {
            out.extend_from_slice(&gone.0.to_be_bytes());
        }
        let waiting = || self.entries.iter().filter(|entry| !entry.acknowledged);
        let sent = || {
            let known =
                |entry: &&Entry| entry.ticket.0 > journal.ids_up_to && entry.ticket.0 <= journal.up_to;
            waiting().filter(known).filter_map(|entry| Some((entry.ticket, entry.id?)))
        };
        out.extend_from_slice(&long(sent().count()).to_be_bytes());
        for (ticket, id) in sent() {
            out.extend_from_slice(&ticket.0.to_be_bytes());
            out.extend_from_slice(&id.get().to_be_bytes());
        }
        let new = || waiting().filter(|entry| entry.ticket.0 > journal.up_to);
        out.extend_from_slice(&long(new().count()).to_be_bytes());
        new().for_each(|entry| self.write_entry(entry, out));
        let length = long(out.len().saturating_sub(length_at).saturating_sub(4));
        if let Some(field) = out.get_mut(length_at..length_at.saturating_add(4)) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }

    /// A message leaves: those that store it have to hear of that.
    #[inline]
    pub(super) fn note_gone(&mut self, ticket: Ticket) {
        if let Some(journal) = &mut self.journal
            && ticket.0 <= journal.up_to
        {
            journal.gone.push(ticket);
        }
    }

    /// The last ticket whose message has a packet id; ids are given in turn.
    fn last_with_id(&self) -> u64 {
        self.entries.iter().take_while(|entry| entry.id.is_some()).last().map_or(0, |entry| entry.ticket.0)
    }

    /// Takes the changes after a snapshot. The last one may have been cut short by a crash: then it was never saved.
    pub(super) fn apply(
        &mut self,
        reader: &mut Reader<'_>,
        mut before: [u8; DIGEST_LENGTH],
        last_id: &mut u16,
    ) -> Result<(), RestoreError> {
        loop {
            let record = reader.0;
            let Some(body) = reader.length().and_then(|length| reader.bytes(length)) else { return Ok(()) };
            let Some(written) = reader.array::<DIGEST_LENGTH>() else { return Ok(()) };
            let length = body.len().saturating_add(4);
            before = digest(&before, record.get(..length).unwrap_or_default());
            if before != written {
                return if reader.0.is_empty() { Ok(()) } else { Err(RestoreError::Damaged) };
            }
            *last_id = self.change(&mut Reader(body)).ok_or(RestoreError::Damaged)?;
        }
    }

    /// Takes one change; `None` where it cannot be one of this outbox.
    fn change(&mut self, body: &mut Reader<'_>) -> Option<u16> {
        let last_ticket = u64::from_be_bytes(body.array()?);
        let last_id = u16::from_be_bytes(body.array()?);
        for _ in 0..body.length()? {
            let gone = Ticket(u64::from_be_bytes(body.array()?));
            let index = self.entries.binary_search_by_key(&gone, |entry| entry.ticket).ok()?;
            self.live = self.live.saturating_sub(self.entries.remove(index)?.length);
        }
        for _ in 0..body.length()? {
            let ticket = Ticket(u64::from_be_bytes(body.array()?));
            let id = PacketId::new(u16::from_be_bytes(body.array()?))?;
            let index = self.entries.binary_search_by_key(&ticket, |entry| entry.ticket).ok()?;
            let in_turn = index
                .checked_sub(1)
                .is_none_or(|before| self.entries.get(before).is_some_and(|before| before.id.is_some()));
            if self.holds(id) || !in_turn {
                return None;
            }
            let entry = self.entries.get_mut(index)?;
            let packet = self.bytes.get_mut(entry.range())?;
            packet.get_mut(entry.id_at..)?.get_mut(..2)?.copy_from_slice(&id.get().to_be_bytes());
            *packet.first_mut()? |= DUP;
            entry.id = Some(id);
        }
        self.last_ticket = self.last_ticket.max(last_ticket);
        body.entries(self)?;
        body.0.is_empty().then_some(last_id)
    }
}

impl Journal {
    /// Whether changes may be appended: a snapshot is written anew when they are longer than it, and not short.
    const fn is_worth_going_on(&self) -> bool {
        self.changes <= CHANGES_MAX || self.changes <= self.snapshot
    }
}

fn digest(before: &[u8; DIGEST_LENGTH], record: &[u8]) -> [u8; DIGEST_LENGTH] {
    Sha256::new().chain_update(before).chain_update(record).finalize().into()
}
