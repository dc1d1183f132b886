//! Who reads which partition: at most five of a consumer group, or one with an epoch (Event Hubs: receiver epoch).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devicebound_amqp::LinkId;
use tokio::sync::mpsc::UnboundedSender;

use super::report::Report;

/// Readers without an epoch of one partition and consumer group (Event Hubs quotas).
pub(super) const READERS_MAX: usize = 5;

/// A consumer group in lower case, and a partition.
type Key = (String, u16);

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
}

impl Readers {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Vec<Reader>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place, and tells those that lose theirs.
    pub(super) fn enter(
        self: &Arc<Self>,
        group: &str,
        partition: u16,
        who: Candidate,
    ) -> Result<Place, NoPlace> {
        let key = (group.to_lowercase(), partition);
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
        let Candidate { connection, link, name, epoch, reports } = who;
        readers.push(Reader { connection, link, name, epoch, reports });
        drop(all);
        Ok(Place { readers: Arc::clone(self), key, connection, link })
    }

    /// Tells all readers of groups that are gone. Their places end with their links.
    pub(super) fn dismiss(&self, is_gone: impl Fn(&str) -> bool) {
        for ((group, _), readers) in self.all().iter().filter(|((group, _), _)| is_gone(group)) {
            for reader in readers {
                // As above.
                let _ = reader.reports.send(Report::GroupRemoved { link: reader.link, group: group.clone() });
            }
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
