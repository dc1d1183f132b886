//! Which change of a record something rests on.

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
