//! How many bytes the storage may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fault::{Fault, FaultCode};

/// What a file costs at least, so that empty ones are not endless (the usual block of a file system).
const FILE_COST: u64 = 4096;

/// The bytes of all files together, and their bound.
#[derive(Debug)]
pub struct Space {
    used: AtomicU64,
    max: u64,
}

/// Bytes that are taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    space: Arc<Space>,
    bytes: u64,
}

impl Space {
    pub(super) const fn new(max: u64) -> Self {
        Self { used: AtomicU64::new(0), max }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Reserved {
    /// What a file that is there takes, however much that is.
    pub(super) fn existing(space: &Arc<Space>, size: u64) -> Self {
        let bytes = size.max(FILE_COST);
        space.used.fetch_add(bytes, Ordering::Relaxed);
        Self { space: Arc::clone(space), bytes }
    }

    /// Room for a new file.
    pub(super) fn new(space: &Arc<Space>, size: u64) -> Result<Self, Fault> {
        let mut reserved = Self { space: Arc::clone(space), bytes: 0 };
        reserved.grow_to(size.max(FILE_COST))?;
        Ok(reserved)
    }

    /// Takes as many bytes as a file of this size needs.
    pub(super) fn grow_to(&mut self, size: u64) -> Result<(), Fault> {
        let more = size.saturating_sub(self.bytes);
        let (space, max) = (&self.space, self.space.max);
        let take = |used: u64| used.checked_add(more).filter(|used| *used <= max);
        space.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|used| {
            let what =
                format!("there is no room: {used} of {max} bytes are in use, and {more} more are needed");
            Fault::new(
                FaultCode::AccountQuotaExceeded,
                what,
                "start the hub with more room (--upload-mb), or have files go sooner (--upload-hours)",
            )
        })?;
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.space.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_bounded_and_given_back() {
        let space = Arc::new(Space::new(10_000));
        let mut first = Reserved::new(&space, 0).unwrap();
        assert_eq!(space.used(), FILE_COST);
        first.grow_to(6000).unwrap();
        assert!(Reserved::new(&space, 4001).is_err());
        assert_eq!(space.used(), 6000);
        let _second = Reserved::new(&space, 1).unwrap_err();
        drop(first);
        assert_eq!(space.used(), 0);
        assert!(Reserved::new(&space, 10_000).is_ok());
    }
}
