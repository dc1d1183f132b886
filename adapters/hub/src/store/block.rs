//! Telemetry as it is kept: many messages in one piece of bytes, each read back only when somebody wants it.

use std::io;
use std::sync::Arc;

use devicebound::time::UnixTime;

use crate::log::Entry;
use crate::message::{Message, Sender};

/// The layout that this version writes and reads, the first byte of every block.
const LAYOUT: u8 = 1;
/// The layout, the number of messages, the time of the newest.
const HEADER: usize = 1 + 4 + 8;
/// The length that stands for a text that is not there.
const NONE: u32 = u32::MAX;

/// Messages in order of arrival, as they are kept.
///
/// ```text
/// layout u8 │ messages u32 │ newest enqueued time u64 (ms) │ message │ message …
/// message:  enqueued time u64 (ms) │ device id │ module id? │ generation id │ authentication │ model id?
///           │ properties u32 │ (name │ value?) … │ body
/// ```
/// Numbers are little-endian; a text or body is its length as u32 and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    bytes: Vec<u8>,
}

impl Default for Block {
    fn default() -> Self {
        let mut bytes = vec![0; HEADER];
        if let Some(layout) = bytes.first_mut() {
            *layout = LAYOUT;
        }
        Self { bytes }
    }
}

impl Block {
    /// Appends a message.
    pub fn push(&mut self, message: &Message) {
        let count = self.len().saturating_add(1);
        let newest = self.newest().max(message.enqueued);
        if let Some(field) = self.bytes.get_mut(1..5) {
            field.copy_from_slice(&count.to_le_bytes());
        }
        if let Some(field) = self.bytes.get_mut(5..HEADER) {
            field.copy_from_slice(&newest.as_millis().to_le_bytes());
        }
        self.bytes.extend(message.enqueued.as_millis().to_le_bytes());
        let Sender { device_id, module_id, generation_id, auth_method, model_id } = &*message.sender;
        for text in [
            Some(&**device_id),
            module_id.as_deref(),
            Some(generation_id),
            Some(auth_method),
            model_id.as_deref(),
        ] {
            self.put(text.map(str::as_bytes));
        }
        self.bytes.extend(length(message.properties.len()).to_le_bytes());
        for (name, value) in &message.properties {
            self.put(Some(name.as_bytes()));
            self.put(value.as_ref().map(String::as_bytes));
        }
        self.put(Some(&message.body));
    }

    fn put(&mut self, bytes: Option<&[u8]>) {
        self.bytes.extend(bytes.map_or(NONE, |bytes| length(bytes.len())).to_le_bytes());
        self.bytes.extend(bytes.unwrap_or_default());
    }

    /// The block whose bytes these are.
    ///
    /// # Errors
    /// When this version cannot read them.
    pub fn from_bytes(bytes: Vec<u8>) -> io::Result<Self> {
        if bytes.len() < HEADER || bytes.first() != Some(&LAYOUT) {
            return Err(damaged("its header is damaged, or another version wrote it"));
        }
        Ok(Self { bytes })
    }

    /// What is to be kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many messages it holds.
    #[must_use]
    pub fn len(&self) -> u32 {
        Self::len_of(&self.bytes)
    }

    /// How many messages the block with these bytes holds.
    #[must_use]
    pub fn len_of(bytes: &[u8]) -> u32 {
        let field = bytes.get(1..5).and_then(|field| field.try_into().ok());
        field.map_or(0, u32::from_le_bytes)
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the newest of its messages was taken.
    #[must_use]
    pub fn newest(&self) -> UnixTime {
        Self::newest_of(&self.bytes)
    }

    /// When the newest message of the block with these bytes was taken.
    #[must_use]
    pub fn newest_of(bytes: &[u8]) -> UnixTime {
        let field = bytes.get(5..HEADER).and_then(|field| field.try_into().ok());
        UnixTime::from_millis(field.map_or(0, u64::from_le_bytes))
    }

    /// The messages behind `after`, as the service API shows them; `first` is the cursor of the block's first message.
    ///
    /// # Errors
    /// When the block is damaged.
    pub fn entries(&self, first: u64, after: u64) -> io::Result<Vec<Entry>> {
        let mut rest = Rest(self.bytes.get(HEADER..).unwrap_or_default());
        let mut entries = Vec::new();
        for place in 0..self.len() {
            let cursor = first.saturating_add(u64::from(place));
            let message = rest.message()?;
            if cursor > after {
                let line = message.to_line(cursor).into();
                entries.push(Entry { cursor, device_id: Arc::clone(&message.sender.device_id), line });
            }
        }
        if rest.0.is_empty() { Ok(entries) } else { Err(damaged("bytes are left over")) }
    }
}

/// What was not read yet.
struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    fn take(&mut self, count: usize) -> io::Result<&'b [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or_else(|| damaged("a message is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?.try_into().map_err(|_| damaged("a number is cut short"))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn bytes(&mut self) -> io::Result<Option<&'b [u8]>> {
        match self.u32()? {
            NONE => Ok(None),
            length => self.take(usize::try_from(length).unwrap_or(usize::MAX)).map(Some),
        }
    }

    fn optional(&mut self) -> io::Result<Option<String>> {
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| damaged("a text is not UTF-8"));
        self.bytes()?.map(text).transpose()
    }

    fn text(&mut self) -> io::Result<String> {
        self.optional()?.ok_or_else(|| damaged("a text is missing"))
    }

    fn message(&mut self) -> io::Result<Message> {
        let enqueued = self.take(8)?.try_into().map_err(|_| damaged("a time is cut short"))?;
        let sender = Sender {
            device_id: self.text()?.into(),
            module_id: self.optional()?,
            generation_id: self.text()?,
            auth_method: self.text()?,
            model_id: self.optional()?,
        };
        let properties =
            (0..self.u32()?).map(|_| Ok((self.text()?, self.optional()?))).collect::<io::Result<_>>()?;
        Ok(Message {
            sender: Arc::new(sender),
            enqueued: UnixTime::from_millis(u64::from_le_bytes(enqueued)),
            properties,
            body: self.bytes()?.unwrap_or_default().to_vec(),
        })
    }
}

/// Lengths fit: a packet is at most 256 MiB long.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(NONE - 1)
}

fn damaged(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a block of telemetry cannot be read: {how}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message of `device_id` with this body, taken at second `at`.
    pub(crate) fn message(device_id: &str, body: &str, at: u64) -> Message {
        let sender = Sender {
            device_id: device_id.into(),
            module_id: Some("camera".to_owned()),
            generation_id: "1".to_owned(),
            auth_method: "{}".to_owned(),
            model_id: None,
        };
        Message {
            sender: Arc::new(sender),
            enqueued: UnixTime::from_secs(at),
            properties: vec![("alert".to_owned(), Some("true".to_owned())), ("bare".to_owned(), None)],
            body: body.as_bytes().to_vec(),
        }
    }

    fn block() -> Block {
        let mut block = Block::default();
        for (body, at) in [("a", 5), ("b", 9), ("c", 7)] {
            block.push(&message("dev", body, at));
        }
        block
    }

    #[test]
    fn messages_come_back_with_their_numbers() {
        let block = Block::from_bytes(block().as_bytes().to_vec()).unwrap();
        assert_eq!((block.len(), block.newest()), (3, UnixTime::from_secs(9)));
        let entries = block.entries(10, 10).unwrap();
        let lines: Vec<&str> = entries.iter().map(|entry| &*entry.line).collect();
        assert_eq!(lines, [message("dev", "b", 9).to_line(11), message("dev", "c", 7).to_line(12)]);
    }

    #[test]
    fn a_block_that_is_cut_anywhere_is_refused() {
        let bytes = block().as_bytes().to_vec();
        for end in 0..bytes.len() {
            let read = Block::from_bytes(bytes[..end].to_vec()).and_then(|block| block.entries(1, 0));
            assert!(read.is_err(), "cut at {end}");
        }
    }

    #[test]
    fn no_byte_makes_the_reader_panic() {
        let bytes = block().as_bytes().to_vec();
        for at in 0..bytes.len() {
            for mask in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= mask;
                let _ = Block::from_bytes(bytes).and_then(|block| block.entries(u64::MAX - 1, 0));
            }
        }
    }
}
