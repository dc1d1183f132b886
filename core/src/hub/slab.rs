//! Slots with a generation: an id finds its value without a map, and a stale id finds nothing.

use alloc::vec::Vec;

/// Where a value lives, and which of the values that lived there: one number, as it goes with every packet. The upper
/// half is the index, the lower half the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u64);

impl Slot {
    const fn new(index: u32, generation: u32) -> Self {
        Self((index as u64) << 32 | generation as u64)
    }

    #[inline]
    const fn index(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    const fn generation(self) -> u32 {
        self.0 as u32
    }
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len().saturating_sub(self.free.len())
    }

    /// Puts `value` into a free slot; `None`, and the value is gone, when there are 2^32 - 1 of them.
    pub(super) fn insert(&mut self, value: T) -> Option<Slot> {
        if let Some(index) = self.free.pop() {
            let entry = self.entries.get_mut(index as usize)?;
            entry.value = Some(value);
            return Some(Slot::new(index, entry.generation));
        }
        let index = u32::try_from(self.entries.len()).ok()?;
        self.entries.push(Entry { generation: 0, value: Some(value) });
        Some(Slot::new(index, 0))
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        let entry = self.entries.get(slot.index() as usize)?;
        if entry.generation == slot.generation() { entry.value.as_ref() } else { None }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        let entry = self.entries.get_mut(slot.index() as usize)?;
        if entry.generation == slot.generation() { entry.value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<T> {
        let entry = self.entries.get_mut(slot.index() as usize)?;
        if entry.generation != slot.generation() {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot.index());
        Some(value)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut T)> {
        (0_u32..)
            .zip(&mut self.entries)
            .filter_map(|(index, entry)| Some((Slot::new(index, entry.generation), entry.value.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_slot_finds_nothing_after_its_place_is_taken_again() {
        let mut slab = Slab::new();
        let first = slab.insert('a').expect("there is room");
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b').expect("there is room");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }
}
