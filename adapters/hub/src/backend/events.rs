//! Events as they come: telemetry from the store, and what the hub tells of itself.
//!
//! A reader that was away misses nothing, unless it was away for longer than is kept: then it hears of the gap, where it
//! asked for a position. A position that has not come yet is of another store, and refused.

use std::sync::Arc;

use super::{Backend, Error};
use crate::observe::event_log::{Entry, EventLog, Follower};
use crate::store::reader::TelemetryReader;
use crate::store::{Gap, Position};
use crate::telemetry::message::Message;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// With the oldest that is kept.
    #[default]
    Oldest,
    /// With what comes next.
    Newest,
    /// With what follows this position.
    After(Position),
}

/// How a protocol appends a message, which has this cursor.
pub type Encode = fn(u64, &Message<'_>, &mut String);

/// What a reader asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where it begins.
    pub begin: Begin,
    /// Only what is about this device.
    pub device_id: Option<String>,
    /// It ends when all was read that was kept when it began.
    pub ends: bool,
}

/// What a reader is given.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event.
    Event(Entry),
    /// Events that are not kept any more.
    Gap(Gap),
    /// The store cannot be read; the reader ends.
    Failed(String),
}

/// What a message of a device that is not wanted counts as, in bytes of those that are read at a time.
const PASSED: usize = 64;

#[derive(Clone, Debug)]
enum Source {
    Telemetry(TelemetryReader, Encode),
    /// Operations, or the timeline of the view.
    Operations(Arc<EventLog>),
}

/// One reader's place in a log.
#[derive(Debug)]
pub struct EventReader {
    source: Source,
    position: Position,
    /// It asked for a position, so it is told what is not kept any more.
    minds_gaps: bool,
    /// The source failed.
    is_over: bool,
    device_id: Option<Arc<str>>,
    /// Ends after this one: the newest when it began. `None` follows what comes.
    end: Option<Position>,
    /// While this is there, the log knows that somebody follows it.
    _follower: Option<Follower>,
}

impl Backend {
    /// Reads what devices send, as `encode` writes it. All that was acknowledged before this was asked is there.
    ///
    /// # Errors
    /// 400004 for a position that has not come yet.
    pub async fn read_telemetry(&self, wanted: Wanted, encode: Encode) -> Result<EventReader, Error> {
        self.engine.bring_telemetry().await;
        EventReader::new(Source::Telemetry(self.telemetry.clone(), encode), wanted)
    }

    /// Reads what begins, fails and ends.
    ///
    /// # Errors
    /// 400004 for a position that has not come yet.
    pub fn read_operations(&self, wanted: Wanted) -> Result<EventReader, Error> {
        EventReader::new(Source::Operations(Arc::clone(&self.engine.operations.log)), wanted)
    }

    /// What the live view tells, as JSON: packets while somebody reads, ends of connections and refusals in any case.
    ///
    /// # Errors
    /// 400004 for a position that has not come yet.
    pub fn read_timeline(&self, wanted: Wanted) -> Result<EventReader, Error> {
        EventReader::new(Source::Operations(Arc::clone(self.engine.view.timeline())), wanted)
    }
}

/// The next events of a source.
struct Page {
    gap: Option<Gap>,
    entries: Vec<Entry>,
    next: Position,
}

impl Source {
    fn newest(&self) -> Position {
        Position::after(match self {
            Self::Telemetry(reader, _) => reader.newest(),
            Self::Operations(log) => log.newest(),
        })
    }

    async fn read(&self, after: Position, device_id: Option<&Arc<str>>) -> std::io::Result<Page> {
        match self {
            Self::Telemetry(reader, encode) => {
                let (encode, device_id) = (*encode, device_id.cloned());
                // Where it blocks nobody: some megabytes of text may become of it.
                reader
                    .read(move |log| {
                        let page = log.read(after)?;
                        Ok(Page::of_messages(&page, device_id.as_deref(), encode))
                    })
                    .await
            }
            Self::Operations(log) => {
                // Before the look, so that nothing between the two is taken for a gap.
                let newest = Position::after(log.newest());
                let entry = log.after(after.cursor());
                let begin = entry.as_ref().map_or(newest, |entry| Position::before(entry.cursor));
                let next = entry.as_ref().map_or(newest, |entry| Position::after(entry.cursor));
                Ok(Page { gap: after.gap_until(begin), entries: entry.into_iter().collect(), next })
            }
        }
    }
}

impl Page {
    /// Messages of devices that are not wanted have no line.
    fn of_messages(page: &crate::store::Page, wanted: Option<&str>, encode: Encode) -> Self {
        let (mut line, mut device_id) = (String::new(), Arc::from(""));
        let entry = |(cursor, message): (u64, Message<'_>)| {
            line.clear();
            if wanted.is_none_or(|wanted| wanted == message.sender.device_id) {
                encode(cursor, &message, &mut line);
            }
            if *device_id != *message.sender.device_id {
                device_id = message.sender.device_id.into();
            }
            Entry {
                cursor,
                time: message.enqueued,
                device_id: Arc::clone(&device_id),
                line: line.as_str().into(),
            }
        };
        Self { gap: page.gap, entries: page.messages().map(entry).collect(), next: page.next }
    }
}

impl EventReader {
    fn new(source: Source, wanted: Wanted) -> Result<Self, Error> {
        let Wanted { begin, device_id, ends } = wanted;
        let newest = source.newest();
        let position = match begin {
            Begin::Oldest => Position::START,
            Begin::Newest => newest,
            // To wait for it would be to pass over all that comes until then.
            Begin::After(ahead) if ahead > newest => {
                let (ahead, newest) = (ahead.cursor(), newest.cursor());
                let what = format!("line {ahead} has not come yet, the newest is {newest}");
                return Err(
                    Error::invalid(what).with_fix("the cursor is of another store: begin with from=1")
                );
            }
            Begin::After(position) => position,
        };
        let follower = match &source {
            Source::Operations(log) if !ends => Some(log.follow()),
            Source::Operations(_) | Source::Telemetry(..) => None,
        };
        Ok(Self {
            // Taken once, or a reader that is no faster than the devices would never come to the end.
            end: ends.then_some(newest),
            source,
            position,
            minds_gaps: begin != Begin::Oldest,
            is_over: false,
            device_id: device_id.map(Into::into),
            _follower: follower,
        })
    }

    /// The position of what was read last, or passed over.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.position.cursor()
    }

    /// Whether there will be no more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over || self.end.is_some_and(|end| end <= self.position)
    }

    /// Waits until there may be more.
    pub async fn wait(&self) {
        match &self.source {
            Source::Telemetry(reader, _) => reader.wait_after(self.position).await,
            Source::Operations(log) => drop(log.wait_after(self.position.cursor()).await),
        }
    }

    /// What there is, without waiting for more: at least so many bytes, if there are.
    pub async fn available(&mut self, bytes: usize) -> Vec<Item> {
        let (mut items, mut length) = (Vec::new(), 0_usize);
        while length < bytes && !self.is_over() && self.position < self.source.newest() {
            match self.source.read(self.position, self.device_id.as_ref()).await {
                Ok(Page { gap, entries, next }) => {
                    self.miss(gap, &mut items);
                    let end = self.end;
                    let is_wanted = |entry: &Entry| end.is_none_or(|end| entry.cursor <= end.cursor());
                    for entry in entries.into_iter().take_while(is_wanted) {
                        // What is passed over counts, too: what was found waits for no long search.
                        length = length.saturating_add(entry.line.len().max(PASSED));
                        // From here on it minds: what it reads has begun.
                        self.minds_gaps = true;
                        if self.device_id.as_deref().is_none_or(|device_id| device_id == &*entry.device_id) {
                            items.push(Item::Event(entry));
                        }
                    }
                    self.position = self.end.map_or(next, |end| next.min(end));
                }
                Err(error) => {
                    items.push(Item::Failed(error.to_string()));
                    self.is_over = true;
                }
            }
        }
        items
    }

    /// Tells of a gap, as far as it was to be read.
    fn miss(&self, gap: Option<Gap>, items: &mut Vec<Item>) {
        if let Some(Gap { from, to }) = gap.filter(|_| self.minds_gaps) {
            items.push(Item::Gap(Gap { from, to: self.end.map_or(to, |end| to.min(end.cursor())) }));
        }
    }
}

#[cfg(test)]
impl EventReader {
    /// A reader of stored telemetry.
    pub(crate) fn of_telemetry(
        reader: TelemetryReader,
        wanted: Wanted,
        encode: Encode,
    ) -> Result<Self, Error> {
        Self::new(Source::Telemetry(reader, encode), wanted)
    }

    /// A reader of a log of lines.
    pub(crate) fn of_log(log: Arc<EventLog>, wanted: Wanted) -> Result<Self, Error> {
        Self::new(Source::Operations(log), wanted)
    }
}
