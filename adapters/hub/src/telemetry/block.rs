//! Telemetry as it is stored: the messages of many connections behind each other in one piece of memory.
//!
//! ```text
//! block   = *( sender / message )
//! sender  = 0x00 device-id module-id generation-id auth-type model-id     ; the next sender has the next number, from 0
//! auth-type = [ scope "/" ] type                                          ; without a scope, it is the sender's own
//! message = flags number enqueued [ retain-property ] bag body            ; flags: 1, | 2 a will, | 4 with retain-property, | 8 DUP
//! ```
//! Texts and bodies have a length of four bytes in front; `number` has four bytes, `enqueued`, milliseconds since 1970,
//! eight. All numbers are little-endian. A block explains itself, so that any of them can be dropped.

use devicebound::hub::Telemetry;
use devicebound::iothub::PropertyBag;
use devicebound::time::UnixTime;

use crate::telemetry::bytes::{Reader, put_bytes, put_text};
use crate::telemetry::message::{Content, Message};
use crate::telemetry::sender::{Sender, SenderFields};

/// A block begins with room for so many bytes at most.
const ROOM_MAX: usize = 1024 * 1024;

const SENDER: u8 = 0;
const MESSAGE: u8 = 1;
const WILL: u8 = 2;
const RETAIN: u8 = 4;
const DUP: u8 = 8;

/// Messages in order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Block {
    bytes: Vec<u8>,
    count: u32,
    senders: u32,
}

/// Bytes that are no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a block of telemetry, or it is damaged")]
pub struct DamagedBlock;

impl Block {
    /// The block that these bytes are.
    ///
    /// # Errors
    /// [`DamagedBlock`], when any part of it cannot be read.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, DamagedBlock> {
        let mut messages = Messages::new(&bytes);
        let mut count = 0_u32;
        while !messages.reader.rest.is_empty() {
            let is_message = messages.part().ok_or(DamagedBlock)?.is_some();
            count = count.checked_add(u32::from(is_message)).ok_or(DamagedBlock)?;
        }
        let senders = u32::try_from(messages.senders.len()).map_err(|_| DamagedBlock)?;
        Ok(Self { bytes, count, senders })
    }

    /// How it is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many messages it has.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The messages, in order.
    #[must_use]
    pub fn messages(&self) -> Messages<'_> {
        Messages::new(&self.bytes)
    }

    /// The part that begins at this byte, and where the next one does; `None` at the end.
    #[must_use]
    pub fn part_at(&self, at: usize) -> Option<(Part<'_>, usize)> {
        let mut reader = Reader::new(self.bytes.get(at..)?);
        let part = Part::read(&mut reader)?;
        Some((part, self.bytes.len().saturating_sub(reader.rest.len())))
    }

    /// An empty block with room for about as much as this one holds.
    pub(crate) fn with_the_same_room(&self) -> Self {
        Self { bytes: Vec::with_capacity(self.bytes.len().min(ROOM_MAX)), ..Self::default() }
    }

    /// Appends a message. `number` is the block's own, which no other block has that the sender was written into.
    pub(crate) fn push(
        &mut self,
        number: u64,
        telemetry: &Telemetry<'_>,
        sender: &Sender,
        enqueued: UnixTime,
    ) {
        let index = match sender.mark.get() {
            (block, index) if block == number => index,
            _ => {
                self.bytes.push(SENDER);
                self.bytes.extend_from_slice(&sender.encoded);
                let index = self.senders;
                self.senders = self.senders.saturating_add(1);
                sender.mark.set((number, index));
                index
            }
        };
        let bag = telemetry.bag.as_str();
        let will = if telemetry.is_will { WILL } else { 0 };
        let retain = if telemetry.retain_property.is_some() { RETAIN } else { 0 };
        let dup = if telemetry.is_dup { DUP } else { 0 };
        self.bytes.reserve(21 + bag.len() + telemetry.payload.len());
        self.bytes.push(MESSAGE | will | retain | dup);
        self.bytes.extend_from_slice(&index.to_le_bytes());
        self.bytes.extend_from_slice(&enqueued.as_millis().to_le_bytes());
        telemetry.retain_property.into_iter().for_each(|name| put_text(name, &mut self.bytes));
        put_text(bag, &mut self.bytes);
        put_bytes(telemetry.payload, &mut self.bytes);
        self.count = self.count.saturating_add(1);
    }
}

/// The messages of a block.
#[derive(Debug)]
pub struct Messages<'b> {
    reader: Reader<'b>,
    senders: Vec<SenderFields<'b>>,
}

impl<'b> Messages<'b> {
    const fn new(bytes: &'b [u8]) -> Self {
        Self { reader: Reader::new(bytes), senders: Vec::new() }
    }

    /// The next part, which is a message or a sender; `None` where neither is.
    fn part(&mut self) -> Option<Option<Message<'b>>> {
        match Part::read(&mut self.reader)? {
            Part::Sender(sender) => {
                self.senders.push(sender);
                Some(None)
            }
            Part::Message(number, content) => {
                let sender = usize::try_from(number).ok().and_then(|index| self.senders.get(index))?;
                Some(Some(content.of(*sender)))
            }
        }
    }
}

/// What a block is made of.
#[derive(Clone, Copy, Debug)]
pub enum Part<'b> {
    /// The next sender.
    Sender(SenderFields<'b>),
    /// A message of the sender with this number.
    Message(u32, Content<'b>),
}

impl<'b> Part<'b> {
    fn read(reader: &mut Reader<'b>) -> Option<Self> {
        let flags = reader.byte()?;
        if flags == SENDER {
            return Some(Self::Sender(SenderFields::read(reader)?));
        }
        if flags & !(WILL | RETAIN | DUP) != MESSAGE {
            return None;
        }
        let sender = reader.number()?;
        let enqueued = UnixTime::from_millis(u64::from_le_bytes(reader.array()?));
        let retain_property = if flags & RETAIN == 0 { None } else { Some(reader.text()?) };
        let content = Content {
            enqueued,
            retain_property,
            is_dup: flags & DUP != 0,
            is_will: flags & WILL != 0,
            bag: PropertyBag::parse(reader.text()?).ok()?,
            body: reader.bytes()?,
        };
        Some(Self::Message(sender, content))
    }
}

impl<'b> Iterator for Messages<'b> {
    type Item = Message<'b>;

    fn next(&mut self) -> Option<Message<'b>> {
        loop {
            if let Some(message) = self.part()? {
                return Some(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use devicebound::hub::{Authentication, DeviceIdentity, DeviceRecord, Hub, HubConfig};
    use devicebound::iothub::sas::SymmetricKey;
    use devicebound::time::Instant;

    use super::*;

    fn record(client_id: &str) -> DeviceRecord {
        let key = || SymmetricKey::from_bytes(&[7; 32]);
        let authentication = Authentication::Sas { primary: key(), secondary: key() };
        DeviceRecord::new(DeviceIdentity::new(client_id, "1".to_owned(), authentication).unwrap())
    }

    /// Three messages of two senders, in three different shapes.
    fn block() -> Block {
        let mut hub = Hub::new(HubConfig::default(), Instant::from_secs(1), UnixTime::from_secs(1));
        let device = hub.insert(record("a")).unwrap();
        let telemetry = |bag, payload| Telemetry {
            device,
            bag: PropertyBag::parse(bag).unwrap(),
            payload,
            receipt: None,
            retain_property: None,
            is_dup: false,
            is_will: false,
        };
        let (a, b) = (Sender::of(&record("a")), Sender::of(&record("b/m")));
        let mut block = Block::default();
        block.push(1, &telemetry("x=1", b"one"), &a, UnixTime::from_millis(5));
        let retained = Telemetry { retain_property: Some("mqtt-retain"), is_dup: true, ..telemetry("", b"") };
        block.push(1, &retained, &b, UnixTime::from_millis(6));
        let will = Telemetry { is_will: true, ..telemetry("", b"three") };
        block.push(1, &will, &a, UnixTime::from_millis(7));
        block
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let block = Block::from_bytes(block().as_bytes().to_vec()).unwrap();
        assert_eq!(block.count(), 3);
        let messages: Vec<Message<'_>> = block.messages().collect();
        let bodies: Vec<&[u8]> = messages.iter().map(|message| message.body).collect();
        assert_eq!(bodies, [&b"one"[..], b"", b"three"]);
        let senders: Vec<_> =
            messages.iter().map(|message| (message.sender.device_id, message.sender.module_id)).collect();
        assert_eq!(senders, [("a", None), ("b", Some("m")), ("a", None)]);
        assert_eq!(messages[0].bag.as_str(), "x=1");
        let flags =
            |message: &Message<'_>| (message.retain_property.is_some(), message.is_dup, message.is_will);
        let flags: Vec<_> = messages.iter().map(flags).collect();
        assert_eq!(flags, [(false, false, false), (true, true, false), (false, false, true)]);
        assert_eq!(
            (messages[1].retain_property, messages[2].enqueued),
            (Some("mqtt-retain"), UnixTime::from_millis(7))
        );
    }

    #[test]
    fn a_block_that_was_cut_is_refused_and_not_read_in_part() {
        let whole = block().as_bytes().to_vec();
        let ends: Vec<usize> =
            (0..whole.len()).filter(|end| Block::from_bytes(whole[..*end].to_vec()).is_ok()).collect();
        // Between two parts nothing is missing.
        assert!(ends.len() < 6, "{ends:?}");
    }

    #[test]
    fn no_damaged_byte_makes_a_reader_panic() {
        let whole = block().as_bytes().to_vec();
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= flip;
                if let Ok(block) = Block::from_bytes(damaged) {
                    block.messages().for_each(|message| drop(message.to_line(1)));
                }
            }
        }
    }
}
