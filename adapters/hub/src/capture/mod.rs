//! What went over a connection, told after the fact in the words of the live view: `devicebound explain`.
//!
//! ```text
//!  hex lines ──▶ hex ──────────────────────────┐
//!                                              ├─▶ conversation ─▶ lines
//!  pcap, pcapng ─▶ frames ─▶ segments ─▶ streams ─┘    (a hub machine)
//! ```
//!
//! What the device sent goes through a hub machine of its own for each connection, so a breach is judged by the very code
//! that the hub runs. Authentication is waved through, because nobody has the keys of a captured device: the form and the
//! scope of a token are judged, and its expiry where the capture has the time, its signature is not.
//!
//! Nothing in a capture is trusted: whatever its bytes are, there are lines in the end.

mod conversation;
mod frames;
mod hex;
mod judge;
mod streams;
mod words;

use std::fmt;

pub use conversation::Conversation;
pub use hex::HexError;

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

/// Explains the MQTT in a pcap or pcapng file. `tell` gets each line of the explanation.
///
/// # Errors
/// [`CaptureError::File`], after what comes before the damage was explained.
pub fn explain_file(bytes: &[u8], tell: &mut dyn FnMut(&str)) -> Result<(), CaptureError> {
    let mut streams = streams::Streams::default();
    let result = frames::each_segment(bytes, &mut |segment| streams.segment(&segment, tell));
    streams.end(tell);
    result.map_err(CaptureError::File)
}
