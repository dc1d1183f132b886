//! `messages/operationsMonitoringEvents`: what begins, fails and ends at the hub, as an event hub of one partition.
//!
//! Azure had it until 2019 (IoT Hub operations monitoring): the same events as `GET /operations`, one JSON object each. They
//! are in memory, and begin anew with the hub; what gave way is a jump of the sequence number.

use std::sync::Arc;

use devicebound::time::UnixTime;
use devicebound_amqp::{Connection, LinkId, Tag};

use super::event_message;
use super::filter::Start;
use super::readers::Place;
use crate::clock::unix_time;
use crate::observe::event_log::{EventLog, Follower};
use crate::store::partitions::Partition;

/// A link to a reader.
#[derive(Debug)]
pub(super) struct OperationsLink {
    log: Arc<EventLog>,
    /// The number of the line that was sent last, or passed over.
    cursor: u64,
    /// Lines that are older are passed over.
    begin: Option<(UnixTime, bool)>,
    /// The client wants to hear of the newest event with each event.
    tells_newest: bool,
    /// While it reads, what goes well with twins is told, too.
    _follower: Follower,
    /// Among the readers.
    _place: Place,
}

/// The partition as its readers see it.
pub(super) fn partition(log: &EventLog) -> Partition {
    let (newest, enqueued) = log.newest_and_time();
    Partition { next: newest, last: newest, enqueued }
}

/// The line behind which a reader begins, and the time before which it passes over what there is.
fn place_of(start: Start, newest: u64) -> (u64, Option<(UnixTime, bool)>) {
    let cursor = match start {
        Start::Oldest | Start::Time { .. } => 0,
        Start::Latest => newest,
        Start::Offset { cursor, inclusive } => cursor.saturating_sub(u64::from(inclusive)),
        // The first line has the number 1 and the sequence number 0.
        Start::Sequence { number, inclusive } => number.saturating_add(u64::from(!inclusive)),
    };
    let begin = match start {
        Start::Time { at, inclusive } => Some((at, inclusive)),
        _ => None,
    };
    // What has not come yet is a place in the log of an earlier run.
    (if cursor > newest { 0 } else { cursor }, begin)
}

impl OperationsLink {
    pub(super) fn new(log: &Arc<EventLog>, start: Start, tells_newest: bool, place: Place) -> Self {
        let (cursor, begin) = place_of(start, log.newest());
        let (log, follower) = (Arc::clone(log), log.follow());
        Self { log, cursor, begin, tells_newest, _follower: follower, _place: place }
    }

    /// Sends what there is, as far as there are credit, window and room in `tx`.
    pub(super) fn pump(&mut self, link: LinkId, machine: &mut Connection, tx: &mut Vec<u8>, room: usize) {
        while machine.credit(link) > 0 && tx.len() < room {
            let Some(entry) = self.log.after(self.cursor) else { return machine.drained(link, tx) };
            let is_wanted =
                self.begin.is_none_or(|(at, inclusive)| entry.time > at || inclusive && entry.time == at);
            let newest = self.tells_newest.then(|| (partition(&self.log), unix_time()));
            let is_done = !is_wanted
                || machine.send(link, Tag::Untracked, tx, |tx| {
                    event_message::write_operation(&entry, newest.as_ref(), tx);
                });
            if !is_done {
                return;
            }
            self.cursor = entry.cursor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_an_earlier_run_is_the_beginning() {
        let offset = |cursor, inclusive| place_of(Start::Offset { cursor, inclusive }, 5).0;
        assert_eq!([offset(3, false), offset(3, true), offset(5, false), offset(6, false)], [3, 2, 5, 0]);
        let sequence = |number, inclusive| place_of(Start::Sequence { number, inclusive }, 5).0;
        assert_eq!(
            [sequence(0, true), sequence(2, false), sequence(4, false), sequence(5, false)],
            [0, 3, 5, 0]
        );
        assert_eq!(place_of(Start::Latest, 5), (5, None));
        let at = UnixTime::from_secs(9);
        assert_eq!(place_of(Start::Time { at, inclusive: true }, 5), (0, Some((at, true))));
    }
}
