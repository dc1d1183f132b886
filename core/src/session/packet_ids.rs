//! Which packet id comes next.

use crate::packet::PacketId;

/// Hands out packet ids in turn: 1 to 65535 and 1 again `[MQTT-2.3.1-1]`, never one in use `[MQTT-2.3.1-2]`.
///
/// In turn instead of the lowest free one: so an id rests as long as possible before a packet carries it again.
#[derive(Clone, Debug, Default)]
pub(crate) struct PacketIds {
    last: u16,
}

impl PacketIds {
    /// The ids behind `last`, which was the last that was given.
    #[cfg(feature = "device")]
    pub(crate) const fn behind(last: u16) -> Self {
        Self { last }
    }

    /// The last id that was given; 0 where none was.
    #[cfg(feature = "device")]
    pub(crate) const fn last(&self) -> u16 {
        self.last
    }

    /// The next id that is not `in_use`; `None` where all are.
    pub(crate) fn allocate(&mut self, in_use: impl Fn(PacketId) -> bool) -> Option<PacketId> {
        (0..=u16::MAX).find_map(|_| {
            self.last = self.last.wrapping_add(1);
            PacketId::new(self.last).filter(|&id| !in_use(id))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_run_from_1_to_65535_and_start_again_at_1() {
        let mut ids = PacketIds::default();
        let all: alloc::vec::Vec<u16> =
            (0..=65_535).map(|_| ids.allocate(|_| false).unwrap().get()).collect();
        assert_eq!(all[0], 1);
        assert_eq!(all[65_534], 65_535);
        assert_eq!(all[65_535], 1);
    }

    #[test]
    fn an_id_in_use_is_passed_over() {
        let mut ids = PacketIds::default();
        assert_eq!(ids.allocate(|id| id.get() < 3).unwrap().get(), 3);
        assert_eq!(ids.allocate(|id| id.get() == 4).unwrap().get(), 5);
    }

    #[test]
    fn no_id_is_handed_out_when_all_are_in_use() {
        let mut ids = PacketIds::default();
        assert_eq!(ids.allocate(|_| true), None);
        assert_eq!(ids.allocate(|id| id.get() != 7).unwrap().get(), 7);
    }
}
