//! A disk whose power can go, whose syncs can fail and which can be full.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devicebound_hub::store::disk::Disk;
use devicebound_world::Entropy;
use redb::StorageBackend;

/// What a disk writes at once, or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is there after a power cut.
    durable: Vec<u8>,
    /// What is read: the disk's contents with what was written since.
    cached: Vec<u8>,
    /// What was not synced yet, in order.
    unsynced: Vec<Change>,
    /// Writes, syncs and changes of length so far.
    operations: u64,
    /// How many of them were syncs.
    syncs: u64,
    /// The power goes before this operation.
    cut_at: Option<u64>,
    is_off: bool,
    /// These syncs fail.
    failing_syncs: BTreeSet<u64>,
    /// The file cannot become longer than this.
    capacity: Option<u64>,
    opened: u64,
    /// Which bytes were asked for of what it held in the beginning.
    read: Vec<bool>,
    /// A file was written to or synced again after a sync of it had failed.
    was_trusted_again: bool,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

/// One time that the file was opened.
#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    has_failed: Mutex<bool>,
}

impl SimDisk {
    /// A disk with this on it.
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        let mut state = disk.lock();
        state.durable.clone_from(&bytes);
        state.read = vec![false; bytes.len()];
        state.cached = bytes;
        drop(state);
        disk
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn handle(&self) -> Box<dyn StorageBackend> {
        self.lock().opened += 1;
        Box::new(Handle { disk: self.clone(), has_failed: Mutex::new(false) })
    }

    /// What is on it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().durable.clone()
    }

    /// Which bytes were asked for of what it [held](Self::holding) in the beginning.
    pub(crate) fn read(&self) -> Vec<bool> {
        self.lock().read.clone()
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    pub(crate) fn opened(&self) -> u64 {
        self.lock().opened
    }

    pub(crate) fn was_trusted_again(&self) -> bool {
        self.lock().was_trusted_again
    }

    /// The power goes before the operation of this number.
    pub(crate) fn cut_at(&self, operation: u64) {
        self.lock().cut_at = Some(operation);
    }

    /// The sync of this number fails.
    pub(crate) fn fail_sync(&self, number: u64) {
        self.lock().failing_syncs.insert(number);
    }

    pub(crate) fn set_capacity(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    pub(crate) fn length(&self) -> u64 {
        self.lock().cached.len() as u64
    }

    /// The power goes and comes back: of what was not synced, each sector is there or not.
    pub(crate) fn reboot(&self, entropy: &mut dyn Entropy) {
        let mut state = self.lock();
        let unsynced = std::mem::take(&mut state.unsynced);
        state.settle(unsynced, entropy);
        state.cached = state.durable.clone();
        state.cut_at = None;
        state.is_off = false;
    }
}

impl State {
    /// Lets the disk have any part of these changes.
    fn settle(&mut self, changes: Vec<Change>, entropy: &mut dyn Entropy) {
        for change in changes {
            match change {
                Change::Length(length) if entropy.one_in(2) => self.durable.resize(length, 0),
                Change::Length(_) => {}
                Change::Write { offset, data } => {
                    let torn = entropy.below(3);
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        let is_there = match torn {
                            0 => false,
                            1 => true,
                            _ => entropy.one_in(2),
                        };
                        if is_there {
                            put(&mut self.durable, offset + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
    }

    fn note_read(&mut self, start: usize, length: usize) {
        self.read.iter_mut().skip(start).take(length).for_each(|is_read| *is_read = true);
    }

    fn begin(&mut self) -> io::Result<()> {
        self.is_off |= self.cut_at == Some(self.operations);
        if self.is_off {
            return Err(io::Error::other("the power is gone"));
        }
        self.operations += 1;
        Ok(())
    }
}

fn put(to: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if to.len() < offset + data.len() {
        to.resize(offset + data.len(), 0);
    }
    to[offset..offset + data.len()].copy_from_slice(data);
}

impl Disk for SimDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(self.handle())
    }

    fn name(&self) -> String {
        "the simulated disk".to_owned()
    }
}

impl Handle {
    /// A handle whose sync has failed is to be let go.
    fn note_use(&self, state: &mut State) {
        state.was_trusted_again |= *self.has_failed.lock().unwrap_or_else(PoisonError::into_inner);
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = start.checked_add(out.len()).and_then(|end| state.cached.get(start..end));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        state.note_read(start, out.len());
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        self.note_use(&mut state);
        state.begin()?;
        if length > state.cached.len() as u64 && state.capacity.is_some_and(|capacity| capacity < length) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        state.cached.resize(length, 0);
        state.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        self.note_use(&mut state);
        state.begin()?;
        let number = state.syncs;
        state.syncs += 1;
        if state.failing_syncs.remove(&number) {
            // As Linux has it: the pages count as clean and are read as they were written, and the disk has none of them.
            state.unsynced.clear();
            *self.has_failed.lock().unwrap_or_else(PoisonError::into_inner) = true;
            return Err(io::Error::from_raw_os_error(5));
        }
        let State { durable, unsynced, .. } = &mut *state;
        for change in unsynced.drain(..) {
            match change {
                Change::Length(length) => durable.resize(length, 0),
                Change::Write { offset, data } => put(durable, offset, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        self.note_use(&mut state);
        state.begin()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        put(&mut state.cached, offset, data);
        state.unsynced.push(Change::Write { offset, data: data.to_vec() });
        Ok(())
    }
}
