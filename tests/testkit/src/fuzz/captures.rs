//! The reader of captures.

use devicebound_hub::capture::{explain_file, explain_hex};

/// Lines that a byte of a capture may give at most: one frame of a few dozen bytes has a line or two for each packet.
const LINES_PER_BYTE: usize = 2;

/// A capture file of any bytes, and hex lines of any text, are told in the end.
///
/// # Panics
/// When a line is empty or could move the cursor, or when there are more of them than the input can have packets.
pub fn capture(data: &[u8]) {
    let mut lines = 0_usize;
    let mut tell = |line: &str| {
        assert!(!line.is_empty());
        assert!(line.chars().all(|char| !char.is_control() || char == '\n'), "{line:?}");
        lines = lines.saturating_add(1);
    };
    // Whether it can be read is another matter.
    let _ = explain_file(data, &mut tell);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = explain_hex(text, &mut tell);
    }
    assert!(lines <= 100 + LINES_PER_BYTE * data.len(), "{lines} lines of {} bytes", data.len());
}
