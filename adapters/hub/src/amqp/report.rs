//! What came of something that took its time, told to the connection that waits for it.

use std::io;

use devicebound::time::UnixTime;
use devicebound_amqp::LinkId;

use super::address::Source;
use super::cloud_messages::Rejection;
use super::locked::Locked;
use crate::store::Piece;

/// What became of something that took its time.
#[derive(Debug)]
pub(super) enum Report {
    /// Where a reader begins.
    Found { link: LinkId, result: io::Result<Found> },
    /// What is next for a reader.
    Pieces { link: LinkId, until: u64, result: io::Result<Vec<Piece>> },
    /// A reader with a higher epoch has come.
    Stolen { link: LinkId, epoch: i64 },
    /// The consumer group of a reader was removed.
    GroupRemoved { link: LinkId, source: Source, group: String },
    /// A message for a device is safe, or not.
    Sent { link: LinkId, delivery: u32, result: Result<(), Rejection> },
    /// Feedback or a file notification for a reader.
    ServiceBound { link: LinkId, locked: Locked },
    /// An answer of `$management`.
    Answer { requests: LinkId, delivery: u32, answer: Option<Vec<u8>> },
}

/// What is passed over at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    None,
    /// Until this sequence number.
    Sequence(u64),
    /// Until an event that was taken then, or behind it.
    Time {
        at: UnixTime,
        inclusive: bool,
    },
}

/// Where a reader begins, once it is found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) cursor: u64,
    pub(super) skip: Skip,
}
