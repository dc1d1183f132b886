//! Who reads which partition: at most five of a consumer group, or one with an epoch (Event Hubs: receiver epoch).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devicebound_amqp::LinkId;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::address::Source;
use super::report::Report;

/// Readers without an epoch of one partition and consumer group (Event Hubs quotas).
pub(super) const READERS_MAX: usize = 5;

/// A consumer group in lower case, and a partition.
type Key = (Source, String, u16);

/// All readers of a hub.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<HashMap<Key, Vec<Reader>>>);

#[derive(Debug)]
struct Reader {
    connection: u64,
    link: LinkId,
    name: String,
    epoch: Option<i64>,
    reports: UnboundedSender<Report>,
    wake: Arc<Notify>,
}

/// A place among the readers, for as long as it is held.
#[derive(Debug)]
pub(super) struct Place {
    readers: Arc<Readers>,
    key: Key,
    connection: u64,
    link: LinkId,
}

/// Why there is no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// There are five: their names.
    Full(Vec<String>),
    /// One with a higher epoch, or with any where none was given, reads.
    Epoch(i64),
}

/// Who wants a place.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) connection: u64,
    pub(super) link: LinkId,
    pub(super) name: String,
    pub(super) epoch: Option<i64>,
    pub(super) reports: UnboundedSender<Report>,
    /// Wakes its connection; how often it was woken does not count.
    pub(super) wake: Arc<Notify>,
}

impl Readers {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Vec<Reader>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place, and tells those that lose theirs.
    pub(super) fn enter(
        self: &Arc<Self>,
        source: Source,
        group: &str,
        partition: u16,
        who: Candidate,
    ) -> Result<Place, NoPlace> {
        let key = (source, group.to_lowercase(), partition);
        let mut all = self.all();
        let readers = all.entry(key.clone()).or_default();
        let highest = readers.iter().filter_map(|reader| reader.epoch).max();
        match (highest, who.epoch) {
            (Some(highest), own) if own.is_none_or(|own| own < highest) => {
                return Err(NoPlace::Epoch(highest));
            }
            (None, None) if readers.len() >= READERS_MAX => {
                return Err(NoPlace::Full(readers.iter().map(|reader| reader.name.clone()).collect()));
            }
            (_, None) => {}
            (_, Some(epoch)) => {
                for loser in readers.drain(..) {
                    // A connection that is gone needs not hear of it.
                    let _ = loser.reports.send(Report::Stolen { link: loser.link, epoch });
                }
            }
        }
        let Candidate { connection, link, name, epoch, reports, wake } = who;
        readers.push(Reader { connection, link, name, epoch, reports, wake });
        drop(all);
        Ok(Place { readers: Arc::clone(self), key, connection, link })
    }

    /// Tells all readers of groups that are gone. Their places end with their links.
    pub(super) fn dismiss(&self, is_gone: impl Fn(&str) -> bool) {
        for ((source, group, _), readers) in self.all().iter().filter(|((_, group, _), _)| is_gone(group)) {
            for Reader { link, reports, .. } in readers {
                // As above.
                let report = Report::GroupRemoved { link: *link, source: *source, group: group.clone() };
                let _ = reports.send(report);
            }
        }
    }

    /// Wakes the readers of the partitions that have more.
    pub(super) fn wake(&self, source: Source, has_more: impl Fn(u16) -> bool) {
        for (_, readers) in
            self.all().iter().filter(|((own, _, partition), _)| *own == source && has_more(*partition))
        {
            readers.iter().for_each(|reader| reader.wake.notify_one());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.readers.all();
        let Some(readers) = all.get_mut(&self.key) else { return };
        readers.retain(|reader| (reader.connection, reader.link) != (self.connection, self.link));
        if readers.is_empty() {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use devicebound_amqp::{Action, Config, Connection};
    use futures_util::FutureExt as _;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    /// A link of a machine of its own.
    fn link() -> LinkId {
        let now = devicebound::time::Instant::from_secs(0);
        let mut machine = Connection::new(now, Config { container_id: "h".into(), product: "h".into() });
        let open = [0, 0, 0, 17, 2, 0, 0, 0, 0, 0x53, 0x10, 0xc0, 4, 1, 0xa1, 1, b'c'];
        let begin = [0, 0, 0, 20, 2, 0, 0, 0, 0, 0x53, 0x11, 0xc0, 7, 4, 0x40, 0x43, 0x52, 9, 0x52, 9];
        let attach = [0, 0, 0, 18, 2, 0, 0, 0, 0, 0x53, 0x12, 0xc0, 5, 3, 0xa1, 0, 0x43, 0x41];
        let bytes = [&b"AMQP\0\x01\0\0"[..], &open, &begin, &attach].concat();
        let (mut rx, mut tx) = (&bytes[..], Vec::new());
        loop {
            match machine.receive(now, &mut rx, &mut tx) {
                Action::Attach(request) => return request.link,
                Action::Opened(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// A reader without an epoch, on a connection of its own.
    pub(in super::super) fn candidate() -> Candidate {
        let (reports, _) = unbounded_channel();
        let (name, wake) = ("r".to_owned(), Arc::default());
        Candidate { connection: 0, link: link(), name, epoch: None, reports, wake }
    }

    #[test]
    fn the_readers_of_a_partition_that_has_more_are_woken_and_nobody_else() {
        let readers = Arc::new(Readers::default());
        let enter = |source, group, partition| {
            let who = candidate();
            let wake = Arc::clone(&who.wake);
            (readers.enter(source, group, partition, who).unwrap(), wake)
        };
        let entered = [
            enter(Source::Telemetry, "$Default", 0),
            enter(Source::Telemetry, "$Default", 1),
            enter(Source::Telemetry, "dash", 1),
            enter(Source::Operations, "$Default", 1),
        ];
        readers.wake(Source::Telemetry, |partition| partition == 1);
        let woken = entered.each_ref().map(|(_, wake)| wake.notified().now_or_never().is_some());
        assert_eq!(woken, [false, true, true, false]);
    }
}
