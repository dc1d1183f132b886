//! The file as redb reads and writes it, with a seal where redb has no checksum.
//!
//! Every page has one, and so has each of the two commits that the header names; the header's first bytes, which say
//! *which* of the two counts, have none. One bit flipped there after a crash would take back the last commit in silence,
//! and a device that was removed would be let in again. So whatever writes the header writes a seal of them into the same
//! sector: on a disk that writes sectors whole, both are there or neither.

use std::io;
use std::ops::Bound;

use redb::{BackendError, StorageBackend};
use sha2::{Digest as _, Sha256};

use super::error::Error;

/// What a disk writes at once, or not at all.
const SECTOR: usize = 512;
/// What has no checksum: redb's magic number, which commit counts, and how the file is divided (redb: `docs/design.md`).
const UNCHECKED: usize = 64;
/// Where the seal is: the end of the first sector. redb's header has 320 bytes of its first page.
const SEAL: usize = SECTOR - 32;

/// A file whose header is sealed.
#[derive(Debug)]
pub struct Sealed(Box<dyn StorageBackend>);

impl Sealed {
    /// A file that is to be made.
    #[must_use]
    pub fn make(backend: Box<dyn StorageBackend>) -> Self {
        Self(backend)
    }

    /// A file whose seal is whole.
    pub(super) fn check(backend: Box<dyn StorageBackend>) -> Result<Self, Error> {
        let mut sector = [0; SECTOR];
        if backend.len().map_err(Error::Io)? < SECTOR as u64 {
            return Err(Error::Damaged("it is empty, or cut short".to_owned()));
        }
        backend.read(0, &mut sector).map_err(Error::Io)?;
        let (header, seal) = sector.split_at(SEAL);
        if seal_of(header) == *seal {
            return Ok(Self(backend));
        }
        Err(Error::Damaged("its header is not the one that was written".to_owned()))
    }
}

fn seal_of(header: &[u8]) -> [u8; 32] {
    Sha256::digest(header.get(..UNCHECKED).unwrap_or(header)).into()
}

impl StorageBackend for Sealed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset != 0 {
            return self.0.write(offset, data);
        }
        let mut sector = [0; SECTOR];
        let (header, seal) = sector.split_at_mut(SEAL);
        let room = header.get_mut(..data.len());
        room.ok_or_else(|| io::Error::other("redb's header leaves no room for its seal"))?
            .copy_from_slice(data);
        seal.copy_from_slice(&seal_of(header));
        self.0.write(0, &sector)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    // redb's locks on the file, so that no two hubs use it, whatever became of the folder that it is in.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
