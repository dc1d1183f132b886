//! Lines with numbers, which the service API serves as streams: bounded, in memory, in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use devicebound::time::UnixTime;
use tokio::sync::Notify;

use crate::clock::unix_time;

/// The last lines, each with a number that grows by one.
///
/// A reader that fell behind so far that lines gave way sees a gap in the numbers. What strangers cause has a share of its
/// own: however much of it there is, only their own lines give way to it.
#[derive(Debug)]
pub struct EventLog {
    lines_max: usize,
    bytes_max: usize,
    kept: Mutex<Kept>,
    grown: Notify,
    followers: AtomicUsize,
}

/// Somebody who follows a log, until this is dropped.
#[derive(Debug)]
pub struct Follower(Arc<EventLog>);

/// One line as a reader gets it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number; the first line has 1.
    pub cursor: u64,
    /// When it was told.
    pub time: UnixTime,
    /// The device that it is about.
    pub device_id: Arc<str>,
    /// One JSON object, without a line end.
    pub line: Arc<str>,
}

/// Who caused a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody who proved who they are, or the hub itself.
    Known,
    /// Somebody who was not let in.
    Stranger,
}

#[derive(Debug, Default)]
struct Kept {
    known: Share,
    strangers: Share,
    /// The number of the newest line, kept or not.
    newest: u64,
    /// When it was told.
    time: UnixTime,
}

/// Lines in the order of their numbers.
#[derive(Debug, Default)]
struct Share {
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// The lines of strangers have a tenth of the room of the others, in addition to it.
const STRANGERS_SHARE: usize = 10;

impl Share {
    fn push(&mut self, entry: Entry, lines_max: usize, bytes_max: usize) {
        self.bytes += entry.line.len();
        self.entries.push_back(entry);
        while self.entries.len() > lines_max || self.bytes > bytes_max {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.line.len();
        }
    }

    fn after(&self, cursor: u64) -> Option<&Entry> {
        self.entries.get(self.entries.partition_point(|entry| entry.cursor <= cursor))
    }
}

/// A log that keeps 100 000 lines and 64 MiB: some minutes of a busy hub, and days of a quiet one.
impl Default for EventLog {
    fn default() -> Self {
        Self::new(100_000, 64 * 1024 * 1024)
    }
}

impl EventLog {
    /// A log that keeps at most so many lines and bytes; older lines give way.
    #[must_use]
    pub fn new(lines_max: usize, bytes_max: usize) -> Self {
        Self {
            lines_max,
            bytes_max,
            kept: Mutex::default(),
            grown: Notify::new(),
            followers: AtomicUsize::new(0),
        }
    }

    /// Somebody follows the log from now on.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Follower {
        self.followers.fetch_add(1, Ordering::Relaxed);
        Follower(Arc::clone(self))
    }

    /// Whether somebody follows the log.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    /// Appends a line; `line` makes its text once its number is known.
    pub fn append(&self, device_id: Arc<str>, standing: Standing, line: impl FnOnce(u64) -> String) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.newest += 1;
        kept.time = unix_time();
        let (cursor, time) = (kept.newest, kept.time);
        let entry = Entry { cursor, time, device_id, line: line(cursor).into() };
        let (lines, bytes) = (self.lines_max, self.bytes_max);
        match standing {
            Standing::Known => kept.known.push(entry, lines, bytes),
            Standing::Stranger => {
                kept.strangers.push(entry, lines.div_ceil(STRANGERS_SHARE), bytes.div_ceil(STRANGERS_SHARE));
            }
        }
        drop(kept);
        self.grown.notify_waiters();
    }

    /// The number of the newest line; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).newest
    }

    /// The same with the time when it was told.
    #[must_use]
    pub fn newest_and_time(&self) -> (u64, UnixTime) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.newest, kept.time)
    }

    /// The oldest kept line behind `cursor`.
    #[must_use]
    pub fn after(&self, cursor: u64) -> Option<Entry> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let next = [kept.known.after(cursor), kept.strangers.after(cursor)].into_iter().flatten();
        next.min_by_key(|entry| entry.cursor).cloned()
    }

    /// The oldest kept line behind `cursor`, once there is one.
    pub async fn wait_after(&self, cursor: u64) -> Entry {
        loop {
            let mut grown = std::pin::pin!(self.grown.notified());
            // Enlisted before looking, so that a line that comes in between is not missed.
            grown.as_mut().enable();
            if let Some(entry) = self.after(cursor) {
                return entry;
            }
            grown.await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> EventLog {
        let log = EventLog::default();
        for line in lines {
            log.append("demo".into(), Standing::Known, |_| (*line).to_owned());
        }
        log
    }

    #[test]
    fn a_reader_goes_on_where_it_left_off() {
        let log = log(&["a", "b", "c"]);
        assert_eq!(&*log.after(0).unwrap().line, "a");
        assert_eq!(&*log.after(2).unwrap().line, "c");
        assert!(log.after(3).is_none());
        assert!(log.after(u64::MAX).is_none());
    }

    #[test]
    fn the_oldest_lines_give_way_and_leave_a_gap_in_the_numbers() {
        for log in [EventLog::new(2, 1000), EventLog::new(1000, 6)] {
            for line in ["one", "two", "six"] {
                log.append("demo".into(), Standing::Known, |_| line.to_owned());
            }
            assert_eq!(&*log.after(0).unwrap().line, "two");
            assert_eq!((log.after(0).unwrap().cursor, log.newest()), (2, 3));
        }
    }

    #[test]
    fn strangers_push_out_their_own_lines_and_nobody_elses() {
        let log = EventLog::new(20, 10_000);
        log.append("demo".into(), Standing::Known, |_| "DELETE".to_owned());
        for number in 0..100 {
            log.append("".into(), Standing::Stranger, |_| number.to_string());
        }
        log.append("demo".into(), Standing::Known, |_| "PUT".to_owned());
        let (mut cursor, mut lines) = (0, Vec::new());
        while let Some(entry) = log.after(cursor) {
            cursor = entry.cursor;
            lines.push(entry.line.to_string());
        }
        assert_eq!(lines, ["DELETE", "98", "99", "PUT"]);
    }

    #[test]
    fn a_log_is_followed_until_the_last_who_follows_it_is_gone() {
        let log = Arc::new(log(&[]));
        let (first, second) = (log.follow(), log.follow());
        drop(first);
        assert!(log.is_followed());
        drop(second);
        assert!(!log.is_followed());
    }

    #[tokio::test]
    async fn a_waiting_reader_gets_the_next_line() {
        let log = log(&["a"]);
        let (entry, ()) = tokio::join!(log.wait_after(1), async {
            log.append("demo".into(), Standing::Known, |_| "b".to_owned())
        });
        assert_eq!((entry.cursor, &*entry.line), (2, "b"));
    }
}
