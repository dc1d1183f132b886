//! The records of one side: taken apart, opened, and found again behind bytes that are missing.

use super::keys::{Opener, Suite, Version};

/// Type, version and length.
const HEADER: usize = 5;
/// The longest body of a record that any version allows (RFC 5246 §6.2.3).
const BODY_MAX: usize = (16 + 2) * 1024;
/// The shortest record that is encrypted; so many bytes that are missing hold no more records than that.
const ENCRYPTED_MIN: u64 = 22;
/// Bytes that are searched for the start of a record.
const SEARCHED_MAX: usize = 64 * 1024;
/// Tries to open a record while one is searched, for each side of a connection.
const TRIES_MAX: u32 = 20_000;
/// Records in a row that one gap may have swallowed.
const SWALLOWED_MAX: u64 = 1000;

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Record(Record),
    /// A record that was opened while it was searched, with its inner type.
    Found(u8, Vec<u8>),
    Incomplete,
    /// These bytes are no record.
    Broken,
}

/// One side.
#[derive(Debug, Default)]
pub(super) struct Records {
    unread: Vec<u8>,
    keys: Vec<Epoch>,
    /// Which of the keys was used last.
    current: usize,
    /// The number of the next record under it.
    number: u64,
    /// TLS 1.2: ChangeCipherSpec was seen, and all that follows is encrypted.
    pub(super) is_encrypted: bool,
    pub(super) opened: u64,
    pub(super) failed: u64,
    /// How many records may be missing, while the next one is searched.
    lost: Option<u64>,
    tries: u32,
    is_over: bool,
}

/// The keys of one part of a session.
#[derive(Debug)]
struct Epoch {
    /// What the next generation is derived from, where there is one.
    secret: Option<(Suite, Vec<u8>)>,
    opener: Opener,
}

impl Records {
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if !self.is_over {
            self.unread.extend_from_slice(bytes);
        }
    }

    pub(super) fn finish(&mut self) {
        self.is_over = true;
        self.unread = Vec::new();
    }

    pub(super) const fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Adds keys that are used after those that were added before; with a secret, KeyUpdate is followed.
    pub(super) fn add_keys(&mut self, opener: Opener, secret: Option<(Suite, Vec<u8>)>) {
        self.keys.push(Epoch { secret, opener });
    }

    /// Bytes are missing before those that come next.
    pub(super) fn gap(&mut self, missing: u64) {
        self.unread.clear();
        let records = (missing / ENCRYPTED_MIN).saturating_add(2);
        self.lost = Some(self.lost.unwrap_or(0).saturating_add(records).min(SWALLOWED_MAX));
        self.is_encrypted = true;
    }

    /// Takes the next record off what has come.
    pub(super) fn next(&mut self) -> Next {
        if self.is_over {
            return Next::Incomplete;
        }
        if self.lost.is_some() {
            return self.search();
        }
        let Some(length) = length_of(&self.unread) else {
            return if self.unread.len() < HEADER { Next::Incomplete } else { Next::Broken };
        };
        let Some(body) = self.unread.get(HEADER..HEADER + length) else { return Next::Incomplete };
        let (kind, body) = (self.unread.first().copied().unwrap_or_default(), body.to_vec());
        self.unread.drain(..HEADER + length);
        Next::Record(Record { kind, body })
    }

    /// Opens a record; `None` where no key does.
    pub(super) fn open(&mut self, record: &Record) -> Option<(u8, Vec<u8>)> {
        let opened = self.open_within(record, 0);
        match &opened {
            Some(_) => self.opened = self.opened.saturating_add(1),
            None => {
                self.failed = self.failed.saturating_add(1);
                // Before the first one that opens, records are of a part of the session whose secret is not there.
                self.number = self.number.saturating_add(u64::from(self.number > 0));
            }
        }
        opened
    }

    /// Opens a record that is the next one, or at most `ahead` records later, under the current keys or those that follow.
    fn open_within(&mut self, record: &Record, ahead: u64) -> Option<(u8, Vec<u8>)> {
        for index in self.current..self.keys.len() {
            let epoch = self.keys.get(index)?;
            let first = if index == self.current { self.number } else { 0 };
            for number in first..=first.saturating_add(ahead) {
                self.tries = self.tries.saturating_add(1);
                if let Some(opened) = epoch.opener.open(number, record.kind, &record.body) {
                    (self.current, self.number) = (index, number.saturating_add(1));
                    return Some(opened);
                }
            }
        }
        // KeyUpdate begins another generation of the last keys.
        let (suite, secret) = self.keys.last()?.secret.as_ref()?;
        let secret = suite.next_secret(secret)?;
        let opener = suite.of_traffic_secret(&secret)?;
        let found =
            (0..=ahead).find_map(|number| Some((number, opener.open(number, record.kind, &record.body)?)));
        let (number, opened) = found?;
        let suite = *suite;
        self.keys.push(Epoch { secret: Some((suite, secret)), opener });
        (self.current, self.number) = (self.keys.len().saturating_sub(1), number.saturating_add(1));
        Some(opened)
    }

    /// Looks for a record that opens: its header may be anywhere.
    fn search(&mut self) -> Next {
        let ahead = self.lost.unwrap_or_default();
        for at in 0..self.unread.len() {
            let Some(bytes) = self.unread.get(at..) else { break };
            let Some(length) = length_of(bytes) else { continue };
            let Some(body) = bytes.get(HEADER..HEADER + length) else { continue };
            let record = Record { kind: bytes.first().copied().unwrap_or_default(), body: body.to_vec() };
            if self.tries > TRIES_MAX {
                self.finish();
                return Next::Broken;
            }
            if let Some((kind, content)) = self.open_within(&record, ahead) {
                self.unread.drain(..at + HEADER + length);
                self.lost = None;
                self.opened = self.opened.saturating_add(1);
                return Next::Found(kind, content);
            }
        }
        let useless = self.unread.len().saturating_sub(SEARCHED_MAX);
        self.unread.drain(..useless);
        Next::Incomplete
    }

    /// Whether these keys are of a version whose records say by their type that they are encrypted.
    pub(super) fn is_encrypted(&self, version: Option<Version>, kind: u8) -> bool {
        match version {
            Some(Version::Tls13) => kind == super::APPLICATION_DATA,
            Some(Version::Tls12) => self.is_encrypted,
            // A hub that asks for another ClientHello sends ChangeCipherSpec before its ServerHello (RFC 8446 §D.4).
            None => false,
        }
    }
}

/// The length of the body, where these bytes are the header of a record.
fn length_of(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [20..=23, 3, 0..=4, high, low, ..] => {
            Some(usize::from(u16::from_be_bytes([*high, *low]))).filter(|length| *length <= BODY_MAX)
        }
        _ => None,
    }
}
