//! A reader of one partition: from the store's blocks to transfers.

use std::collections::VecDeque;
use std::io;

use devicebound::time::UnixTime;
use devicebound_amqp::{Connection, LinkId, Tag};

use super::event_message::{self, SenderAnnotations};
use super::filter::Start;
use super::readers::Place;
use super::report::{Found, Skip};
use crate::clock::unix_time;
use crate::store::partitions::{Partition, partition_of};
use crate::store::{Piece, TelemetryLog};
use crate::telemetry::block::Part;

/// Bytes of blocks that are read at a time.
const READ: usize = 64 * 1024;

/// A link to a partition.
#[derive(Debug)]
pub(super) struct EventLink {
    pub(super) partition: u16,
    /// The client wants to hear of the newest event with each event.
    pub(super) tells_newest: bool,
    /// Behind which message it reads on; `None` until that is found.
    cursor: Option<u64>,
    skip: Skip,
    current: Option<Current>,
    waiting: VecDeque<Piece>,
    pub(super) is_loading: bool,
    /// Among the readers of the partition.
    _place: Place,
}

/// The block that is read.
#[derive(Debug)]
struct Current {
    piece: Piece,
    /// Where its next part begins.
    at: usize,
    /// The cursor of its next message.
    cursor: u64,
    /// The sequence number of its next message in this partition.
    sequence: u64,
    /// Those of this partition.
    senders: Vec<Option<SenderAnnotations>>,
}

/// Finds where a reader begins. Blocks.
pub(super) fn find(log: &TelemetryLog, partition: u16, start: Start) -> io::Result<Found> {
    let at = |cursor| Found { cursor, skip: Skip::None };
    Ok(match start {
        Start::Oldest => at(0),
        Start::Latest => at(log.newest()),
        Start::Offset { cursor, inclusive: true } => at(cursor.saturating_sub(1)),
        Start::Offset { cursor, inclusive: false } => at(cursor),
        Start::Sequence { number, inclusive } => {
            let wanted = if inclusive { number } else { number.saturating_add(1) };
            let counted = |counted: Option<&Partition>| counted.map_or(0, |counted| counted.next);
            // The first block before which it was counted, and from there one back.
            let behind = log.seek(|head| counted(head.before.get(partition)) <= wanted)?;
            let first = match log.head_of(behind)? {
                Some(head) if behind > 0 => head.first.saturating_sub(1).min(behind),
                _ => 0,
            };
            Found { cursor: first, skip: Skip::Sequence(wanted) }
        }
        Start::Time { at, inclusive } => {
            // Nothing in a block was taken later than it was stored.
            Found { cursor: log.seek(|head| head.stored < at)?, skip: Skip::Time { at, inclusive } }
        }
    })
}

/// The next blocks for a reader. Blocks.
pub(super) fn load(log: &TelemetryLog, cursor: u64) -> io::Result<Vec<Piece>> {
    log.pieces(cursor, READ)
}

impl EventLink {
    pub(super) const fn new(partition: u16, tells_newest: bool, place: Place) -> Self {
        Self {
            partition,
            tells_newest,
            cursor: None,
            skip: Skip::None,
            current: None,
            waiting: VecDeque::new(),
            is_loading: true,
            _place: place,
        }
    }

    pub(super) fn begin(&mut self, found: Found) {
        self.cursor = Some(found.cursor);
        self.skip = found.skip;
        self.is_loading = false;
    }

    /// Blocks have been read. Where there are none, nothing up to `until`, the newest when they were asked for, is kept any
    /// more: without that, a reader would ask for it without end.
    pub(super) fn loaded(&mut self, pieces: Vec<Piece>, until: u64) {
        if pieces.is_empty() {
            self.cursor = self.cursor.map(|cursor| cursor.max(until));
        }
        self.waiting.extend(pieces);
        self.is_loading = false;
    }

    /// From where to load; `None` where there is something left, or nothing new, or it is on its way.
    pub(super) fn wants(&self, newest: u64) -> Option<u64> {
        let is_empty = self.current.is_none() && self.waiting.is_empty();
        self.cursor.filter(|cursor| is_empty && !self.is_loading && *cursor < newest)
    }

    /// Whether all that is stored was sent, or passed over.
    pub(super) fn is_at_end(&self, newest: u64) -> bool {
        self.cursor.is_some_and(|cursor| cursor >= newest)
    }

    /// Sends what there is, as far as there are credit, window and room in `tx`; gives how many events that was.
    pub(super) fn pump(
        &mut self,
        link: LinkId,
        machine: &mut Connection,
        tx: &mut Vec<u8>,
        room: usize,
        newest: &Partition,
    ) -> u64 {
        let mut sent = 0_u64;
        while machine.credit(link) > 0 && tx.len() < room {
            if self.current.is_none() {
                let Some(piece) = self.waiting.pop_front() else { break };
                self.current = Some(Current::new(piece, self.partition));
            }
            let newest = self.tells_newest.then(|| (newest, unix_time()));
            let Some(current) = &mut self.current else { break };
            match current.step(self.partition, self.cursor.unwrap_or(0), &mut self.skip) {
                Step::Passed => {}
                Step::Over => {
                    self.cursor = Some(current.piece.head.last);
                    self.current = None;
                }
                Step::Event { sender, content, place, next } => {
                    let is_sent = machine.send(link, Tag::Untracked, tx, |tx| {
                        event_message::write(sender, &content, place, newest, tx);
                    });
                    if !is_sent {
                        break;
                    }
                    sent = sent.saturating_add(1);
                    self.cursor = Some(place.cursor);
                    (current.at, current.cursor) = (next, place.cursor.saturating_add(1));
                    current.sequence = place.sequence.saturating_add(1);
                }
            }
        }
        sent
    }
}

/// What one look at a block came to.
enum Step<'b> {
    Passed,
    Over,
    Event {
        sender: &'b SenderAnnotations,
        content: crate::telemetry::message::Content<'b>,
        place: event_message::Place,
        next: usize,
    },
}

impl Current {
    fn new(piece: Piece, partition: u16) -> Self {
        let sequence = piece.head.before.get(partition).map_or(0, |counted| counted.next);
        Self { at: 0, cursor: piece.head.first, sequence, senders: Vec::new(), piece }
    }

    fn step(&mut self, partition: u16, behind: u64, skip: &mut Skip) -> Step<'_> {
        let Some((part, next)) = self.piece.block.part_at(self.at) else { return Step::Over };
        match part {
            Part::Sender(sender) => {
                let is_own = partition_of(sender.device_id, self.piece.head.before.count()) == partition;
                self.senders.push(is_own.then(|| SenderAnnotations::of(&sender)));
                self.at = next;
                Step::Passed
            }
            Part::Message(sender, content) => {
                let index = usize::try_from(sender).unwrap_or(usize::MAX);
                let place = event_message::Place { sequence: self.sequence, cursor: self.cursor };
                let is_own = matches!(self.senders.get(index), Some(Some(_)));
                if is_own && self.cursor > behind && skip.is_over(&place, content.enqueued) {
                    return match self.senders.get(index) {
                        Some(Some(sender)) => Step::Event { sender, content, place, next },
                        _ => Step::Over,
                    };
                }
                self.sequence = self.sequence.saturating_add(u64::from(is_own));
                self.cursor = self.cursor.saturating_add(1);
                self.at = next;
                Step::Passed
            }
        }
    }
}

impl Skip {
    /// Whether this event is the first, or behind it.
    fn is_over(&mut self, place: &event_message::Place, enqueued: UnixTime) -> bool {
        let is_over = match *self {
            Self::None => true,
            Self::Sequence(wanted) => place.sequence >= wanted,
            Self::Time { at, inclusive } => enqueued > at || inclusive && enqueued == at,
        };
        if is_over {
            *self = Self::None;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::address::Source;
    use super::super::readers::Readers;
    use super::super::readers::tests::candidate;
    use super::*;

    #[test]
    fn a_reader_of_what_is_no_longer_kept_waits_for_what_comes() {
        let readers = Arc::new(Readers::default());
        let place = readers.enter(Source::Telemetry, "$Default", 0, candidate()).unwrap();
        let mut events = EventLink::new(0, false, place);
        assert_eq!(events.wants(7), None, "it is not known yet where it begins");
        events.begin(Found { cursor: 3, skip: Skip::None });
        assert_eq!(events.wants(7), Some(3));
        events.loaded(Vec::new(), 7);
        assert_eq!(events.wants(7), None);
        assert!(events.is_at_end(7));
        assert_eq!(events.wants(8), Some(7));
    }
}
