//! What went over a connection, told after the fact in the words of the live view: `devicebound explain`.
//!
//! ```text
//!  hex lines ──▶ hex ──────────────────────────┐
//!                                              ├─▶ conversation ─▶ lines
//!  pcap, pcapng ─▶ frames ─▶ segments ─▶ streams ─┘    (a hub machine)
//!                 (file)     (link)      (direction, content: TLS, WebSocket)
//! ```
//!
//! What the device sent goes through a hub machine of its own for each connection, so a breach is judged by the very code
//! that the hub runs. Authentication is waved through, because nobody has the keys of a captured device: the form and the
//! scope of a token are judged, and its expiry where the capture has the time, its signature is not.
//!
//! Nothing in a capture is trusted: whatever its bytes are, there are lines in the end.

mod content;
mod conversation;
mod direction;
mod file;
mod framing;
mod hex;
mod judge;
mod key_log;
mod link;
mod streams;
mod unread;
mod websocket;
mod words;

use std::fmt;
use std::rc::Rc;

pub use conversation::Conversation;
use file::Item;
pub use hex::HexError;
pub use key_log::KeyLog;

/// Why a capture cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureError {
    /// The text is not hex.
    Hex(HexError),
    /// Neither pcap nor pcapng, or broken off: what is wrong, in the words of the reader.
    File(String),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hex(error) => error.fmt(f),
            Self::File(error) => write!(f, "this is no whole pcap or pcapng file: {error}"),
        }
    }
}

impl std::error::Error for CaptureError {}

/// Explains hex lines. `tell` gets each line of the explanation.
///
/// # Errors
/// [`CaptureError::Hex`], after the lines before it were explained.
pub fn explain_hex(text: &str, tell: &mut dyn FnMut(&str)) -> Result<(), CaptureError> {
    let (chunks, result) = hex::chunks(text);
    let mut conversation = Conversation::in_the_middle("device");
    for chunk in chunks {
        match chunk.sender {
            Some(sender) => conversation.received(None, sender, &chunk.bytes, tell),
            None => conversation.received_by_either(&chunk.bytes, tell),
        }
    }
    conversation.end(tell);
    result.map_err(CaptureError::Hex)
}

/// Explains the MQTT in a pcap or pcapng file, in TLS where the file itself has the session secrets. `tell` gets each line of
/// the explanation.
///
/// # Errors
/// [`CaptureError::File`], after what comes before the damage was explained.
pub fn explain_file(bytes: &[u8], tell: &mut dyn FnMut(&str)) -> Result<(), CaptureError> {
    explain_file_with(KeyLog::default(), bytes, tell)
}

/// As [`explain_file`], with session secrets of TLS.
///
/// # Errors
/// [`CaptureError::File`], after what comes before the damage was explained.
pub fn explain_file_with(
    secrets: KeyLog,
    bytes: &[u8],
    tell: &mut dyn FnMut(&str),
) -> Result<(), CaptureError> {
    let mut secrets = secrets;
    if file::may_hold_secrets(bytes) {
        // They may stand behind the packets that they are for. What is wrong with the file is told below.
        let _ = file::each_item(bytes, &mut |item| {
            if let Item::KeyLog(text) = item {
                secrets.read(text);
            }
        });
    }
    let mut streams = streams::Streams::new(Rc::new(secrets));
    let mut unread = unread::Summary::default();
    let result = file::each_item(bytes, &mut |item| match item {
        Item::Frame(frame) => match link::segment(&frame) {
            Ok(segment) => {
                if segment.cut > 0 {
                    unread.cut(frame.snap_length);
                }
                streams.segment(&segment, tell);
            }
            Err(why) => unread.count(why),
        },
        Item::NoInterface => unread.count(unread::Unread::NoInterface),
        Item::KeyLog(_) => {}
    });
    streams.end(tell);
    unread.tell(tell);
    result.map_err(CaptureError::File)
}
