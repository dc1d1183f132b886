//! What a hub calls its connections, its records, and telemetry on its way to the store.

use super::slab::Slot;

/// A connection of a hub, told apart from all others before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) Slot);

/// A record of a hub, told apart from all others before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey(pub(super) Slot);

/// Names telemetry that is to be stored, for [`Hub::stored`](super::Hub::stored).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the device's PUBACK waits until `Hub::stored` is told of it"]
pub struct Receipt {
    pub(super) link: LinkId,
    pub(super) number: u64,
}
