//! Partitions of the telemetry: a device stays with one, and each counts its own messages without gaps.
//!
//! The store keeps one order of all messages; a partition is a part of it. What a partition counts is written with each
//! block, as it was before it: so that a message has the same sequence number whoever reads it, after restarts, and when
//! all that was before it is no longer kept.

use std::ops::RangeInclusive;

use devicebound::time::UnixTime;

use crate::telemetry::block::Block;

/// Partitions of a hub that was not told otherwise, as Azure's smallest.
pub const PARTITIONS: u16 = 4;
/// How many there may be (Azure: 2 to 32 for a standard hub, 1 for Event Hubs' smallest).
pub const PARTITIONS_RANGE: RangeInclusive<u16> = 1..=32;

/// The partition of a device: FNV-1a of its id, mixed as MurmurHash3 ends (fmix64), because ids often differ in their last
/// digits alone. Stores rest on it, so it never changes.
#[must_use]
pub fn partition_of(device_id: &str, count: u16) -> u16 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = device_id.bytes().fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let mix = |hash: u64, factor: u64| (hash ^ (hash >> 33)).wrapping_mul(factor);
    let hash = mix(mix(hash, 0xff51_afd7_ed55_8ccd), 0xc4ce_b9fe_1a85_ec53);
    let hash = hash ^ (hash >> 33);
    u16::try_from((hash >> 32) % u64::from(count.max(1))).unwrap_or(0)
}

/// What one partition has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// The sequence number of its next message; the first has 0.
    pub next: u64,
    /// The cursor of its newest message; 0 before the first.
    pub last: u64,
    /// When that was taken.
    pub enqueued: UnixTime,
}

/// What all partitions have counted, by their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitions(Box<[Partition]>);

impl Partitions {
    /// So many partitions without a message.
    #[must_use]
    pub fn new(count: u16) -> Self {
        Self(vec![Partition::default(); usize::from(count.max(1))].into())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or(u16::MAX)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<&Partition> {
        self.0.get(usize::from(number))
    }

    /// Counts the messages of a block whose first has the cursor `first`.
    pub fn append(&mut self, first: u64, block: &Block) {
        let count = self.count();
        for (cursor, message) in (first..=u64::MAX).zip(block.messages()) {
            let number = partition_of(message.sender.device_id, count);
            let Some(partition) = self.0.get_mut(usize::from(number)) else { continue };
            *partition = Partition {
                next: partition.next.saturating_add(1),
                last: cursor,
                enqueued: message.enqueued,
            };
        }
    }

    /// As they are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = |partition: &Partition| {
            [partition.next, partition.last, partition.enqueued.as_millis()].map(u64::to_le_bytes).concat()
        };
        self.0.iter().flat_map(numbers).collect()
    }

    /// What was stored; `None` where the bytes are not that.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let (partitions, none) = numbers.as_chunks::<3>();
        let is_whole = rest.is_empty() && none.is_empty() && !partitions.is_empty();
        let partition = |numbers: &[[u8; 8]; 3]| {
            let [next, last, enqueued] = numbers.map(u64::from_le_bytes);
            Partition { next, last, enqueued: UnixTime::from_millis(enqueued) }
        };
        is_whole.then(|| Self(partitions.iter().map(partition).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_stays_with_its_partition_whatever_the_build() {
        let numbers = ["demo", "device-1", "device-2", "é"].map(|id| partition_of(id, 4));
        assert_eq!(numbers, [2, 0, 2, 1]);
        let mut counts = [0_u32; 32];
        for n in 0..3200 {
            counts[usize::from(partition_of(&format!("device-{n}"), 32))] += 1;
        }
        assert!(counts.iter().all(|count| (50..=150).contains(count)), "{counts:?}");
        assert_eq!(partition_of("any", 1), 0);
    }

    #[test]
    fn what_was_counted_is_stored_and_read_back() {
        let mut partitions = Partitions::new(3);
        partitions.0[1] = Partition { next: 7, last: 9, enqueued: UnixTime::from_millis(5) };
        assert_eq!(Partitions::from_bytes(&partitions.to_bytes()), Some(partitions));
        assert_eq!(Partitions::from_bytes(&[0; 23]), None);
        assert_eq!(Partitions::from_bytes(&[]), None);
    }
}
